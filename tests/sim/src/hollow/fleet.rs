//! All hollow nodes of a cluster, on one watch of the pods that are bound to nodes.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::TryStreamExt;
use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event},
};
use serde::Deserialize;

use super::{kubelet, node::Node};
use crate::watch;

/// The nodes, by name.
pub type Nodes = Arc<BTreeMap<String, Node>>;

/// A pod, as much of it as these kubelets look at. A real one holds every time that a server takes; of a
/// pod's status ours read none.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Pod)]
struct Bound {
    metadata: ObjectMeta,
    spec: Option<PodSpec>,
    status: Option<Phase>,
}

#[derive(Clone, Debug, Deserialize)]
struct Phase {
    phase: Option<String>,
}

impl From<Bound> for Pod {
    fn from(Bound { metadata, spec, status }: Bound) -> Self {
        let status = status.map(|status| PodStatus { phase: status.phase, ..PodStatus::default() });
        Self { metadata, spec, status }
    }
}

/// Registers nodes, some at a time.
pub async fn register(nodes: &Nodes) -> anyhow::Result<()> {
    use futures::StreamExt;
    let work = futures::stream::iter(nodes.values().cloned())
        .map(|node| async move { super::register::register(&node).await });
    work.buffered(16).try_collect().await
}

/// Brings pods to their nodes until it is dropped. When the store has gone back, nothing that was seen before
/// counts.
pub async fn run(client: Client, nodes: Nodes, mut restored: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            biased;
            again = restored.changed() => {
                if again.is_err() {
                    return;
                }
                // A real kubelet would go on with its containers and report them; these begin anew with what
                // the store says.
                forget_unseen(&nodes, &HashSet::new());
            }
            () = follow(client.clone(), &nodes) => return,
        }
    }
}

async fn follow(client: Client, nodes: &Nodes) {
    let pods: Api<Bound> = Api::all(client);
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let mut seen = HashSet::new();
    let stream = watcher::watcher(pods, config);
    futures::pin_mut!(stream);
    loop {
        // An error means that the watcher backs off and lists again.
        let Ok(event) = stream.try_next().await else {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        match event {
            Some(Event::Apply(pod)) => changed(nodes, pod.into()),
            Some(Event::Delete(pod)) => gone(nodes, &pod.into()),
            Some(Event::Init) => seen.clear(),
            Some(Event::InitApply(pod)) => {
                seen.insert(pod.uid().unwrap_or_default());
                changed(nodes, pod.into());
            }
            Some(Event::InitDone) => forget_unseen(nodes, &seen),
            None => return,
        }
    }
}

fn node_of<'a>(nodes: &'a Nodes, pod: &Pod) -> Option<&'a Node> {
    nodes.get(pod.spec.as_ref()?.node_name.as_ref()?)
}

fn changed(nodes: &Nodes, pod: Pod) {
    let Some(node) = node_of(nodes, &pod) else { return };
    // A static pod is its node's own affair, and so is its object.
    match (kubelet::is_mirror(&pod), pod.metadata.deletion_timestamp.is_some()) {
        (false, _) => node.pod_changed(Arc::new(pod)),
        (true, true) => node.mirror_ended(),
        (true, false) => {}
    }
}

fn gone(nodes: &Nodes, pod: &Pod) {
    if let Some(node) = node_of(nodes, pod) {
        if kubelet::is_mirror(pod) {
            node.mirror_ended();
        }
        node.pod_gone(&pod.uid().unwrap_or_default());
    }
}

/// After a new list: pods that went while nobody watched.
fn forget_unseen(nodes: &Nodes, seen: &HashSet<String>) {
    for node in nodes.values() {
        for uid in node.pods().iter().filter(|uid| !seen.contains(*uid)) {
            node.pod_gone(uid);
        }
    }
}

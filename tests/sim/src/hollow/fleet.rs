//! All hollow nodes of a cluster, on one watch of the pods that are bound to nodes.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event},
};

use super::{kubelet, node::Node};
use crate::watch;

/// The nodes, by name.
pub type Nodes = Arc<BTreeMap<String, Node>>;

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
    let pods: Api<Pod> = Api::all(client);
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
            Some(Event::Apply(pod)) => changed(nodes, pod),
            Some(Event::Delete(pod)) => gone(nodes, &pod),
            Some(Event::Init) => seen.clear(),
            Some(Event::InitApply(pod)) => {
                seen.insert(pod.uid().unwrap_or_default());
                changed(nodes, pod);
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
    // A static pod is its node's own affair.
    if let Some(node) = node_of(nodes, &pod).filter(|_| !kubelet::is_mirror(&pod)) {
        node.pod_changed(Arc::new(pod));
    }
}

fn gone(nodes: &Nodes, pod: &Pod) {
    if let Some(node) = node_of(nodes, pod) {
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

//! Objects of other people: under our labels, with owners that they do not have, under the names that we
//! want.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kairos_operator::{
    api::names::{self, container},
    contract::{self, Sentinel},
};
use kairos_sim::{Cluster, install};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::world::{OLD, World};

/// What marks an object as somebody else's.
pub const STRANGER: &str = "stranger";
/// What it says on a facts pod that a compromised node has made for itself, which nobody can tell from ours.
pub const FORGED_FACTS: &str = "facts";
/// What the container of a stranger's pod says before it ends well; without it, it runs for ever.
pub const SAYS: &str = "stranger-says";
/// Where strangers have rights, and where they have none.
pub const NAMESPACE: &str = "team-a";
/// The number of names that are taken before we get to them.
const NAMES: u32 = 4;

pub fn is_strange(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| labels.contains_key(STRANGER))
}

/// Pods and DaemonSets that carry labels of ours.
pub async fn arrive(cluster: &Cluster, world: &World) {
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    let daemon = |name: &str, namespace: &str, labels: Value| {
        let mut labels = labels;
        labels[STRANGER] = name.into();
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": namespace, "labels": {STRANGER: name}},
            "spec": {"selector": {"matchLabels": {STRANGER: name}}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "theirs:1"}]}}}})
    };
    if world.chance(60) {
        objects.push(daemon("web", NAMESPACE, json!({names::NODEOP: "op0", names::NODE: "n1"})));
    }
    if world.chance(40) {
        objects.push(daemon("waits", NAMESPACE, json!({names::NODEOP: "op0", names::REBOOT: "true"})));
    }
    if world.chance(40) {
        objects.push(daemon("asks", "default", json!({names::NODEOP: "op0", names::PREFLIGHT: "true"})));
    }
    if world.chance(40) {
        objects.push(daemon("labeler", install::NAMESPACE, json!({names::APP: names::LABELER})));
    }
    let text = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    cluster.apply(&text).await.expect("what strangers make");
}

/// Somebody who may read Jobs makes pods elsewhere which say that they are theirs, and that all is well.
pub fn forge(world: &Arc<World>) {
    let world = world.clone();
    tokio::spawn(async move {
        let jobs: Api<Job> = Api::default_namespaced(world.client.clone());
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
        loop {
            sleep(Duration::from_secs(2)).await;
            let Ok(found) = jobs.list(&ListParams::default().labels(names::NODEOP)).await else { continue };
            for job in found {
                let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
                let node = job.annotations().get(names::NODE_NAME).cloned().unwrap_or_default();
                let Some(boot) = world.nodes.get(&node).map(|node| node.boot().id) else { continue };
                let says = Sentinel {
                    job: name.clone(),
                    job_uid: uid.clone(),
                    boot,
                    before: Some("v3.4.1-k3sv1.30.11+k3s1".into()),
                    target: Some(OLD.into()),
                    ..Sentinel::default()
                };
                let labels = json!({names::NODEOP: job.labels().get(names::NODEOP), names::NODE: node, contract::JOB_UID_LABEL: uid, STRANGER: "forger"});
                let owner = json!({"apiVersion": "no.such.group/v1", "kind": "Job", "name": name, "uid": uid, "controller": true});
                let says = serde_json::to_string(&says).unwrap_or_default();
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels,
                        "annotations": {names::NODE_NAME: node, SAYS: says}, "ownerReferences": [owner]},
                    "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [{"name": container::SENTINEL, "image": "theirs:1"}]}});
                // It may be there already, from the last look.
                let _ =
                    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a Pod")).await;
            }
        }
    });
}

/// Somebody takes our label off a Job, or a pod that runs, now and then.
pub fn unlabel(world: &Arc<World>) {
    let world = world.clone();
    tokio::spawn(async move {
        let (jobs, pods): (Api<Job>, Api<Pod>) =
            (Api::default_namespaced(world.client.clone()), Api::default_namespaced(world.client.clone()));
        let patch = Patch::Merge(json!({"metadata": {"labels": {(names::NODEOP): null}}}));
        let (ours, params) = (ListParams::default().labels(names::NODEOP), PatchParams::default());
        loop {
            sleep(Duration::from_secs(7)).await;
            let (Ok(all_jobs), Ok(all_pods)) = (jobs.list(&ours).await, pods.list(&ours).await) else {
                continue;
            };
            let runs = |pod: &&Pod| {
                pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
            };
            for job in all_jobs.iter().filter(|job| !is_strange(&job.metadata) && world.chance(10)) {
                world.note(|| format!("somebody takes our label off Job {}", job.name_any()));
                let _ = jobs.patch(&job.name_any(), &params, &patch).await;
            }
            for pod in
                all_pods.iter().filter(runs).filter(|pod| !is_strange(&pod.metadata) && world.chance(10))
            {
                world.note(|| format!("somebody takes our label off pod {}", pod.name_any()));
                let _ = pods.patch(&pod.name_any(), &params, &patch).await;
            }
        }
    });
}

/// Whether the pod is one that the operator made, itself or by its Job.
pub fn is_ours(pod: &Value) -> bool {
    let (labels, owner) = (&pod["metadata"]["labels"], &pod["metadata"]["ownerReferences"][0]);
    let owned = owner["apiVersion"] == "batch/v1" || owner["kind"] == "NodeOp";
    let marked = !labels[names::NODEOP].is_null() || labels[names::APP] == names::LABELER;
    (marked || owned) && labels[STRANGER].is_null()
}

/// Accounts under the names that ours would have.
pub async fn take_accounts(cluster: &Cluster, world: &World) {
    let mut objects = Vec::new();
    for number in 0..3 {
        for kind in ["op", "up"] {
            let meta = json!({"name": format!("{kind}{number}-reboot"), "namespace": "default", "labels": {STRANGER: "account"}});
            let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]});
            let all = [
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": []}),
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": []}),
            ];
            objects.extend(all.into_iter().filter(|_| world.chance(40)));
        }
    }
    let text = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    cluster.apply(&text).await.expect("what strangers make");
}

/// Somebody has guessed the name of a pod that is about to be made, and takes it.
pub async fn take_name(world: &World, body: &[u8]) {
    let Ok(wanted) = serde_json::from_slice::<Pod>(body) else { return };
    let (Some(name), Some(namespace)) = (wanted.metadata.name.clone(), wanted.namespace()) else { return };
    let node = wanted.spec.as_ref().and_then(|spec| spec.node_name.clone());
    if node.is_none() || !world.chance(30) || !world.takes_name(NAMES) {
        return;
    }
    world.note(|| format!("a stranger takes the name {name}"));
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &namespace);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {STRANGER: "pod"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "theirs:1"}]}});
    // It may be there already.
    let _ = pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a Pod")).await;
}

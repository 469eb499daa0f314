//! Deployments, ReplicaSets, StatefulSets and DaemonSets, as small as a drain needs: pods that are gone are
//! made again.
//!
//! No rolling update: a Deployment has one ReplicaSet, which follows its template only for new pods.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};

use super::Timers;
use crate::{
    json::{flag, int, list, set, text},
    server::{State, delete, evict::is_ready, write::Options},
    store::{Change, Key, Object},
};

/// A pod that failed is not replaced before this time: a node that refuses pods must not be fed with them.
const PAUSE: Duration = Duration::from_secs(2);

/// The controller of a pod that changed.
pub fn owner(change: &Change) -> Option<Key> {
    let owner = list(&change.object, "/metadata/ownerReferences").iter().find(|r| flag(r, "/controller"))?;
    let table = match text(owner, "/kind") {
        "ReplicaSet" => "replicasets.apps",
        "StatefulSet" => "statefulsets.apps",
        "DaemonSet" => "daemonsets.apps",
        _ => return None,
    };
    Some(Key::new(table, &change.key.namespace, text(owner, "/name")))
}

/// DaemonSets, which follow the nodes.
pub fn daemon_sets(state: &State) -> Vec<Key> {
    let sets = state.store.list("daemonsets.apps", None);
    sets.map(|d| Key::new("daemonsets.apps", text(d, "/metadata/namespace"), text(d, "/metadata/name")))
        .collect()
}

/// Makes what is missing of a workload, removes what is too much, and writes its status.
pub fn look(state: &mut State, key: &Key, timers: &Timers) {
    let Some(object) = state.store.get(key).filter(|o| o.pointer("/metadata/deletionTimestamp").is_none())
    else {
        return;
    };
    match key.table.as_ref() {
        "deployments.apps" => deployment(state, key, &object),
        "daemonsets.apps" => daemon_set(state, key, &object),
        _ => {
            replicas(state, key, &object, timers);
            let deployment =
                list(&object, "/metadata/ownerReferences").iter().find(|r| text(r, "/kind") == "Deployment");
            if let Some(deployment) = deployment {
                look(state, &Key::new("deployments.apps", &key.namespace, text(deployment, "/name")), timers);
            }
        }
    }
}

fn deployment(state: &mut State, key: &Key, deployment: &Object) {
    let table = "replicasets.apps";
    let name = format!("{}-sim", key.name);
    let replicas = int(deployment, "/spec/replicas").unwrap_or(1);
    let of = Key::new(table, &key.namespace, &name);
    if state.store.get(&of).is_none() {
        let spec = json!({"replicas": replicas, "selector": deployment["spec"]["selector"], "template": deployment["spec"]["template"]});
        let labels = deployment.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
        let set = json!({"metadata": {"name": name, "namespace": key.namespace, "labels": labels, "ownerReferences": [reference(deployment)]}, "spec": spec});
        create(state, table, set);
    }
    let template = deployment["spec"]["template"].clone();
    let set_now = state.modify(&of, |rs| {
        set(rs, "/spec/replicas", replicas);
        set(rs, "/spec/template", template);
    });
    let status = set_now.map(|rs| rs["status"].clone()).unwrap_or_default();
    let ready = int(&status, "/readyReplicas").unwrap_or_default();
    let generation = int(deployment, "/metadata/generation");
    state.modify(key, |d| {
        set(d, "/status", json!({"observedGeneration": generation, "replicas": int(&status, "/replicas").unwrap_or_default(), "updatedReplicas": int(&status, "/replicas").unwrap_or_default(), "readyReplicas": ready, "availableReplicas": ready}));
        let available = if ready >= replicas { "True" } else { "False" };
        set(d, "/status/conditions", json!([{"type": "Available", "status": available, "reason": "Sim", "message": ""}]));
    });
}

fn create(state: &mut State, table: &str, object: Value) {
    let Some(kind) = state.registry.of_table(table) else { return };
    if let Err(error) = state.insert(&kind, object, Options::default()) {
        tracing::warn!(table, ?error, "a controller's object was refused");
    }
}

fn reference(object: &Value) -> Value {
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"], "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true})
}

/// All pods of a controller: those of its own namespace.
fn pods_of(state: &State, owner: &Value) -> Vec<Object> {
    let namespace = text(owner, "/metadata/namespace");
    let keys = state.store.owned_by(text(owner, "/metadata/uid")).into_iter();
    keys.filter(|key| key.table.as_ref() == "pods" && key.namespace == namespace)
        .filter_map(|key| state.store.get(&key))
        .collect()
}

/// Those that are neither over nor on their way.
fn living(state: &State, owner: &Value) -> Vec<Object> {
    let pods = pods_of(state, owner).into_iter();
    pods.filter(|p| {
        p.pointer("/metadata/deletionTimestamp").is_none()
            && !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")
    })
    .collect()
}

fn pod_of(owner_object: &Value, name: Option<String>) -> Value {
    let mut pod = owner_object["spec"]["template"].clone();
    match name {
        Some(name) => set(&mut pod, "/metadata/name", name),
        None => set(&mut pod, "/metadata/generateName", format!("{}-", text(owner_object, "/metadata/name"))),
    }
    set(&mut pod, "/metadata/namespace", text(owner_object, "/metadata/namespace"));
    set(&mut pod, "/metadata/ownerReferences", json!([reference(owner_object)]));
    pod
}

fn remove(state: &mut State, pod: &Value) {
    let Some(kind) = state.registry.of_table("pods") else { return };
    let key = Key::new("pods", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    if let Err(error) = state.delete(&kind, &key, &delete::Options::default()) {
        tracing::warn!(?key, ?error, "a controller's pod was not deleted");
    }
}

/// Whether some time has passed since the last pod of a controller failed.
fn paused(state: &State, key: &Key, owner: &Value, timers: &Timers) -> bool {
    let failed: Vec<Object> =
        pods_of(state, owner).into_iter().filter(|pod| text(pod, "/status/phase") == "Failed").collect();
    failed.iter().any(|pod| !timers.passed(&format!("{}/replaced", text(pod, "/metadata/uid")), PAUSE, key))
}

fn replicas(state: &mut State, key: &Key, owner: &Object, timers: &Timers) {
    let wanted = usize::try_from(int(owner, "/spec/replicas").unwrap_or(1)).unwrap_or_default();
    let pods = living(state, owner);
    let ordinal = key.table.as_ref() == "statefulsets.apps";
    for pod in pods.iter().skip(wanted) {
        remove(state, pod);
    }
    if paused(state, key, owner, timers) {
        // It is looked at again.
    } else if ordinal {
        // A stateful pod comes back under its own name, so only when the old one is gone.
        for name in (0..wanted).map(|i| format!("{}-{i}", key.name)) {
            let found = state.store.get(&Key::new("pods", &key.namespace, &name));
            let over = |pod: &&Object| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
            // One that is over would hold the name for ever.
            let ended = found
                .as_ref()
                .filter(over)
                .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
            ended.into_iter().for_each(|pod| remove(state, pod));
            if found.is_none() {
                create(state, "pods", pod_of(owner, Some(name)));
            }
        }
    } else {
        for _ in pods.len()..wanted {
            create(state, "pods", pod_of(owner, None));
        }
    }
    let pods = living(state, owner);
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    let generation = int(owner, "/metadata/generation");
    let status = json!({"observedGeneration": generation, "replicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready});
    state.modify(key, |o| set(o, "/status", status));
}

fn daemon_set(state: &mut State, key: &Key, owner: &Object) {
    let nodes: Vec<String> =
        state.store.list("nodes", None).map(|n| text(n, "/metadata/name").to_owned()).collect();
    // A pod on its way still holds its node's place.
    let present = pods_of(state, owner);
    let held: HashSet<&str> = present.iter().map(|p| text(p, "/spec/nodeName")).collect();
    for node in &nodes {
        if !held.contains(node.as_str()) {
            let mut pod = pod_of(owner, None);
            set(&mut pod, "/spec/nodeName", node.clone());
            let mut tolerations = list(&pod, "/spec/tolerations").to_vec();
            tolerations.push(json!({"operator": "Exists"}));
            set(&mut pod, "/spec/tolerations", tolerations);
            create(state, "pods", pod);
        }
    }
    let pods = living(state, owner);
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    let status = json!({"observedGeneration": int(owner, "/metadata/generation"), "desiredNumberScheduled": nodes.len(), "currentNumberScheduled": pods.len(), "numberReady": ready, "numberMisscheduled": 0});
    state.modify(key, |o| set(o, "/status", status));
}

//! The scheduler, and the sweeping of pods whose node is gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::Timers;
use crate::{
    json::{flag, list, map, set, text},
    server::{State, delete, evict::is_ready, now},
    store::{Change, ChangeKind, Key, Object},
};

/// How long pods of a node that is gone stay (a real cluster waits 40 s).
const QUARANTINE: Duration = Duration::from_secs(2);

/// Finds a node for a new pod; when a node changes, for all pods that wait.
pub fn react(state: &mut State, change: &Change, timers: &Timers) {
    match (change.key.table.as_ref(), change.kind) {
        // Somebody, whose view is an old one, made it for a node that is gone.
        ("pods", ChangeKind::Added) if let Some(node) = missing_node(state, &change.object) => {
            timers.after(QUARANTINE, node);
        }
        ("pods", ChangeKind::Added | ChangeKind::Modified) => place(state, &change.key),
        ("nodes", ChangeKind::Added | ChangeKind::Modified) if frees(change) => place_waiting(state),
        ("nodes", ChangeKind::Deleted) => timers.after(QUARANTINE, change.key.clone()),
        _ => {}
    }
}

/// The node that the pod is bound to, if there is none of that name.
fn missing_node(state: &State, pod: &Value) -> Option<Key> {
    let name = text(pod, "/spec/nodeName");
    let node = Key::new("nodes", "", name);
    (!name.is_empty() && state.store.get(&node).is_none()).then_some(node)
}

/// Whether a change of a node may let a pod in that had to wait.
fn frees(change: &Change) -> bool {
    let Some(before) = &change.before else { return true };
    before.get("spec") != change.object.get("spec")
        || is_ready(before) != is_ready(&change.object)
        || before.pointer("/metadata/labels") != change.object.pointer("/metadata/labels")
}

fn place_waiting(state: &mut State) {
    for key in state.store.on_node("").cloned().collect::<Vec<_>>() {
        place(state, &key);
    }
}

fn place(state: &mut State, key: &Key) {
    let Some(pod) = state.store.get(key) else { return };
    let waits =
        text(&pod, "/spec/nodeName").is_empty() && pod.pointer("/metadata/deletionTimestamp").is_none();
    if !waits || text(&pod, "/spec/schedulerName") != "default-scheduler" {
        return;
    }
    let roomy = |node: &&Object| {
        let room: Option<usize> = text(node, "/status/allocatable/pods").parse().ok();
        let taken = || {
            let pods = state.store.pods_on(text(node, "/metadata/name"));
            pods.filter(|pod| !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")).count()
        };
        room.is_none_or(|room| taken() < room)
    };
    let fitting = state
        .store
        .list("nodes", None)
        .filter(|node| fits(&pod, node))
        .filter(roomy)
        .map(|n| text(n, "/metadata/name"));
    let load = |node: &str| state.store.on_node(node).count();
    let best = fitting.map(|name| (load(name), name.to_owned())).min();
    match best {
        Some((_, node)) => state.assign(key, &node),
        None => {
            let message = "0 nodes are available for the pod.";
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": text(&pod, "/metadata/creationTimestamp")});
            state.modify(key, |pod| set(pod, "/status/conditions", json!([condition])));
        }
    }
}

fn fits(pod: &Value, node: &Value) -> bool {
    let labels = node.pointer("/metadata/labels");
    let selected = map(pod, "/spec/nodeSelector")
        .into_iter()
        .flatten()
        .all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
    let tolerated = |taint: &Value| {
        text(taint, "/effect") == "PreferNoSchedule"
            || list(pod, "/spec/tolerations").iter().any(|t| tolerates(t, taint))
    };
    !flag(node, "/spec/unschedulable")
        && is_ready(node)
        && selected
        && list(node, "/spec/taints").iter().all(tolerated)
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let key = text(toleration, "/key");
    let effect = text(toleration, "/effect");
    let exists = text(toleration, "/operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "/effect"))
        && (key.is_empty() && exists || key == text(taint, "/key"))
        && (exists || text(toleration, "/value") == text(taint, "/value"))
}

/// Force-deletes the pods of a node that does not exist any more.
pub fn sweep(state: &mut State, node: &Key) {
    if state.store.get(node).is_some() {
        return;
    }
    let Some(kind) = state.registry.of_table("pods") else { return };
    for key in state.store.on_node(&node.name).cloned().collect::<Vec<_>>() {
        state.modify(&key, |pod| {
            if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
                set(pod, "/status/phase", "Failed");
                let mut conditions = list(pod, "/status/conditions").to_vec();
                conditions.retain(|c| text(c, "/type") != "DisruptionTarget");
                conditions
                    .push(json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now()}));
                set(pod, "/status/conditions", conditions);
            }
        });
        let options = delete::Options { grace: Some(0), ..delete::Options::default() };
        if let Err(error) = state.delete(&kind, &key, &options) {
            tracing::warn!(?key, ?error, "a pod without a node was not deleted");
        }
    }
}

impl State {
    /// Binds a pod to a node.
    pub fn assign(&mut self, key: &Key, node: &str) {
        self.modify(key, |pod| {
            set(pod, "/spec/nodeName", node);
            let mut conditions = list(pod, "/status/conditions").to_vec();
            conditions.retain(|c| text(c, "/type") != "PodScheduled");
            conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}));
            set(pod, "/status/conditions", conditions);
        });
    }
}

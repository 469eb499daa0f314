//! Which nodes' facts are read, and when: at first sight of a node, after each of its boots, and when our schema changes.
//!
//! The annotation `facts-of` says what has been read, so a restarted or newly elected operator makes no pod. At most ten
//! pods at a time; a node whose facts a NodeOp waits for goes first. A pod that failed stays, as the memory of when and
//! how often, until its successor is made.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;

use super::{
    action::{Action, Plan},
    labels, names,
    release::pod_target,
    snapshot::{ContainerState, NodeView, PodPhase, PodView, Snapshot},
    step::later,
};
use crate::{api::names::container, contract::Facts};

/// Facts pods at a time, over the whole cluster.
const AT_ONCE: usize = 10;
/// After the first failure; it doubles with each …
const BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// … at most so often.
const DOUBLINGS: i32 = 7;

/// Reads what is to be read, and clears what has been.
pub fn sweep(s: &Snapshot, plan: &mut Plan) {
    let mut pods: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in s.facts.values() {
        pods.entry(&pod.node).or_default().push(pod);
    }
    let busy = s.facts.values().filter(|pod| !pod.phase.is_final() && !pod.deleting).count();
    let mut free = AT_ONCE.saturating_sub(busy);
    let first: Vec<&NodeView> = plan.facts_first.iter().filter_map(|name| s.nodes.get(name).map(AsRef::as_ref)).collect();
    let rest: Vec<&NodeView> = s.nodes.values().map(AsRef::as_ref).filter(|node| !plan.facts_first.contains(&node.name)).collect();
    for node in first.into_iter().chain(rest) {
        one(s, node, pods.remove(node.name.as_str()).unwrap_or_default(), &mut free, plan);
    }
    // What is left is of nodes that are not there any more.
    pods.into_values().flatten().filter(|pod| !pod.deleting).for_each(|pod| clear(pod, plan));
}

fn clear(pod: &PodView, plan: &mut Plan) {
    plan.actions.push(Action::DeletePod { pod: pod_target(pod), why: "its facts are recorded, or outdated" });
}

fn one(s: &Snapshot, node: &NodeView, pods: Vec<&PodView>, free: &mut usize, plan: &mut Plan) {
    let waited_for = plan.facts_first.contains(&node.name);
    let wanted = !labels::up_to_date(node) && (waited_for || !labels::hands_off(node)) && !node.boot_id.is_empty() && !node.deleting;
    let current = |pod: &&&PodView| pod.name == name(node, pod.attempt);
    let newest = pods.iter().filter(current).max_by_key(|pod| pod.attempt).copied();
    for pod in pods.iter().filter(|pod| !pod.deleting && (!wanted || newest.is_some_and(|newest| newest.name != pod.name))) {
        clear(pod, plan);
    }
    if !wanted {
        return;
    }
    let Some(pod) = newest else {
        return make(node, 0, None, free, plan);
    };
    match read(pod) {
        Some(facts) if facts.boot == node.boot_id => {
            let change = labels::change(node, &facts);
            plan.actions.push(Action::Node { name: node.name.clone(), resource_version: node.resource_version.clone(), change });
        }
        // The kubelet had not yet reported the boot that the pod ran in, or reports an old one.
        Some(_) => retry(s, node, pod, "the facts are of another boot", free, plan),
        None if pod.phase == PodPhase::Failed || pod.phase == PodPhase::Succeeded => {
            let why = [pod.reason.clone(), ended(pod)].join(" ");
            retry(s, node, pod, why.trim(), free, plan);
        }
        None => {}
    }
}

/// The deterministic name of a facts pod: of this machine, in this boot.
fn name(node: &NodeView, attempt: i32) -> String {
    names::object((crate::api::names::LABELER, &format!("{} {}", node.uid, node.boot_id)), &node.name, "", attempt)
}

fn read(pod: &PodView) -> Option<Facts> {
    match pod.container(container::FACTS) {
        Some(ContainerState::Ended { code: 0, message, .. }) => serde_json::from_str(message).ok(),
        _ => None,
    }
}

fn ended(pod: &PodView) -> String {
    match pod.container(container::FACTS) {
        Some(ContainerState::Ended { code, message, .. }) => format!("exit code {code}: {message}"),
        Some(ContainerState::Waiting { .. } | ContainerState::Running { .. }) | None => pod.complaint().unwrap_or_default(),
    }
}

fn retry(s: &Snapshot, node: &NodeView, pod: &PodView, why: &str, free: &mut usize, plan: &mut Plan) {
    let at = later(pod.created, BACKOFF * 2i32.pow(u32::try_from(pod.attempt.clamp(0, DOUBLINGS)).unwrap_or(0)));
    if s.now < at {
        return plan.wake(at);
    }
    make(node, pod.attempt + 1, Some(why.to_owned()), free, plan);
}

fn make(node: &NodeView, attempt: i32, complaint: Option<String>, free: &mut usize, plan: &mut Plan) {
    if *free == 0 || !node.ready {
        return;
    }
    *free -= 1;
    let name = name(node, attempt);
    plan.actions.push(Action::MakeFacts { node: node.name.clone(), node_uid: node.uid.clone(), name, attempt, complaint });
}

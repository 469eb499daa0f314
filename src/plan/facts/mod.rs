//! Which nodes' facts are read, and when: at first sight of a node, after each of its boots, and when our schema changes.
//!
//! The annotation `facts-of` says what has been read, so a restarted or newly elected operator makes no pod. At most ten
//! pods at a time; a node whose facts a NodeOp waits for goes first, and does not have to be Ready yet. A pod that failed
//! stays, as the memory of when and how often, until its successor is made.

pub mod labels;

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::names::container,
    contract::Facts,
    plan::model::{
        action::{Action, Plan, Target},
        failing, object_name,
        snapshot::{ContainerState, NodeView, PodPhase, PodView, Role, Snapshot},
        time::later,
    },
};

/// Facts pods at a time, over the whole cluster.
const AT_ONCE: usize = 10;
/// After the first failure; it doubles with each …
const BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// … at most so often.
const DOUBLINGS: i32 = 7;

/// Reads what is to be read, and clears what has been.
pub fn sweep(s: &Snapshot, plan: &mut Plan) {
    let mut pods: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in ours(s) {
        pods.entry(&pod.node).or_default().push(pod);
    }
    let busy = ours(s).filter(|pod| !pod.phase.is_final() && !pod.deleting).count();
    let mut free = AT_ONCE.saturating_sub(busy);
    let first: Vec<&NodeView> = plan.facts_first.iter().filter_map(|name| s.nodes.get(name).map(AsRef::as_ref)).collect();
    let rest: Vec<&NodeView> = s.nodes.values().map(AsRef::as_ref).filter(|node| !plan.facts_first.contains(&node.name)).collect();
    for node in first.into_iter().chain(rest) {
        one(s, node, pods.remove(node.name.as_str()).unwrap_or_default(), &mut free, plan);
    }
    // What is left is of nodes that are not there any more.
    pods.into_values().flatten().filter(|pod| !pod.deleting).for_each(|pod| clear(pod, plan));
}

/// The facts pods. Others that carry their label are the Go operator's, and none of ours to delete.
fn ours(s: &Snapshot) -> impl Iterator<Item = &PodView> {
    s.facts.values().map(AsRef::as_ref).filter(|pod| pod.role == Role::Facts)
}

/// What keeps failing while a node's facts are read.
pub fn trouble(s: &Snapshot, node: &NodeView) -> Option<String> {
    if s.failures.is_empty() {
        return None;
    }
    let mut reading = Plan { facts_first: [node.name.clone()].into(), ..Plan::default() };
    one(s, node, ours(s).filter(|pod| pod.node == node.name).collect(), &mut 1, &mut reading);
    failing::of_any(s, &reading.actions)
}

fn clear(pod: &PodView, plan: &mut Plan) {
    plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its facts are recorded, or outdated" });
}

fn one(s: &Snapshot, node: &NodeView, pods: Vec<&PodView>, free: &mut usize, plan: &mut Plan) {
    let waited_for = plan.facts_first.contains(&node.name);
    let wanted = !labels::up_to_date(node) && (waited_for || !labels::hands_off(node)) && !node.boot_id.is_empty() && !node.deleting;
    let current = |pod: &&&PodView| pod.is_of_node(node) && pod.name == name(node, pod.attempt);
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
    object_name::object((crate::api::names::LABELER, &format!("{} {}", node.uid, node.boot_id)), &node.name, "", attempt)
}

fn read(pod: &PodView) -> Option<Facts> {
    pod.container(container::FACTS)?.words()
}

fn ended(pod: &PodView) -> String {
    match pod.container(container::FACTS) {
        Some(ContainerState::Ended { code, message, .. }) => format!("exit code {code}: {message}"),
        Some(ContainerState::Waiting { .. } | ContainerState::Running { .. }) | None => {
            pod.obstacle().map(|obstacle| obstacle.text).unwrap_or_default()
        }
    }
}

fn retry(s: &Snapshot, node: &NodeView, pod: &PodView, why: &str, free: &mut usize, plan: &mut Plan) {
    let at = later(pod.created, BACKOFF * 2i32.pow(u32::try_from(pod.attempt.clamp(0, DOUBLINGS)).unwrap_or(0)));
    if s.now < at {
        return plan.wake(at);
    }
    make(node, pod.attempt.saturating_add(1), Some(why.to_owned()), free, plan);
}

fn make(node: &NodeView, attempt: i32, complaint: Option<String>, free: &mut usize, plan: &mut Plan) {
    let may_start = node.ready || plan.facts_first.contains(&node.name);
    if *free == 0 || !may_start {
        return;
    }
    *free -= 1;
    let name = name(node, attempt);
    plan.actions.push(Action::MakeFacts { node: node.name.clone(), node_uid: node.uid.clone(), name, attempt, complaint });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{ContainerView, Owner},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn node(name: &str) -> NodeView {
        NodeView { name: name.into(), uid: format!("u-{name}"), boot_id: "b1".into(), ready: true, ..NodeView::default() }
    }

    fn pod(of: &NodeView, attempt: i32, phase: PodPhase, state: ContainerState) -> PodView {
        PodView {
            name: name(of, attempt),
            phase,
            created: at(0),
            attempt,
            containers: vec![ContainerView::new(container::FACTS, state)],
            ..fixtures::pod(Role::Facts, &format!("p{attempt}"), Owner::node(&of.name, &of.uid), &of.name)
        }
    }

    fn says(boot: &str) -> ContainerState {
        let facts = Facts { boot: boot.into(), kairos: true, ..Facts::default() };
        ContainerState::Ended { code: 0, reason: "Completed".into(), message: serde_json::to_string(&facts).unwrap() }
    }

    fn planned(nodes: &[NodeView], pods: Vec<PodView>, now: i64, first: &[&str]) -> Plan {
        let s = Snapshot {
            now: at(now),
            nodes: nodes.iter().map(|node| (node.name.clone(), Arc::new(node.clone()))).collect(),
            facts: pods.into_iter().map(|pod| ((pod.namespace.clone(), pod.name.clone()), Arc::new(pod))).collect(),
            ..Snapshot::default()
        };
        let mut plan = Plan { facts_first: first.iter().map(|name| (*name).to_owned()).collect(), ..Plan::default() };
        sweep(&s, &mut plan);
        plan
    }

    fn made(plan: &Plan) -> Vec<(&str, i32)> {
        let make = |action| match action {
            &Action::MakeFacts { ref node, attempt, .. } => Some((node.as_str(), attempt)),
            _ => None,
        };
        plan.actions.iter().filter_map(make).collect()
    }

    #[test]
    fn at_most_ten_pods_at_a_time_and_who_is_waited_for_goes_first() {
        let nodes: Vec<NodeView> = (10..40).map(|i| node(&format!("n{i}"))).collect();
        let plan = planned(&nodes, vec![], 0, &["n39"]);
        assert_eq!(made(&plan).len(), AT_ONCE);
        assert_eq!(made(&plan)[0], ("n39", 0));
        let busy = nodes[..4].iter().map(|node| pod(node, 0, PodPhase::Running, ContainerState::Running { since: at(0) })).collect();
        assert_eq!(made(&planned(&nodes, busy, 0, &[])).len(), AT_ONCE - 4);
    }

    #[test]
    fn what_was_read_in_this_boot_is_not_read_again_and_its_pod_goes() {
        let mut known = node("n1");
        known.annotations.insert(crate::api::names::FACTS_OF.into(), labels::facts_of("b1"));
        assert!(planned(&[known.clone()], vec![], 0, &[]).actions.is_empty(), "a restarted operator makes no pod");
        let plan = planned(&[known.clone()], vec![pod(&known, 0, PodPhase::Succeeded, says("b1"))], 0, &[]);
        assert!(matches!(plan.actions[..], [Action::DeletePod { .. }]), "{:?}", plan.actions);
        known.boot_id = "b2".into();
        assert_eq!(made(&planned(&[known], vec![], 0, &[])), [("n1", 0)], "another boot");
    }

    #[test]
    fn facts_are_recorded_if_they_are_of_the_boot_that_the_node_reports() {
        let node = node("n1");
        let plan = planned(std::slice::from_ref(&node), vec![pod(&node, 0, PodPhase::Succeeded, says("b1"))], 0, &[]);
        assert!(matches!(&plan.actions[..], [Action::Node { name, .. }] if name == "n1"), "{:?}", plan.actions);
        let plan = planned(std::slice::from_ref(&node), vec![pod(&node, 0, PodPhase::Succeeded, says("b0"))], 1, &[]);
        assert!(plan.actions.is_empty() && plan.wake_at.is_some(), "{:?}", plan.actions);
    }

    #[test]
    fn a_pod_that_another_owner_has_says_nothing_of_a_node() {
        let node = node("n1");
        for owner in [Owner::node("n1", "another"), Owner::node("n2", &node.uid), Owner::job("n1", &node.uid), Owner::default()] {
            let forged = PodView { owner: owner.clone(), ..pod(&node, 0, PodPhase::Succeeded, says("b1")) };
            let plan = planned(std::slice::from_ref(&node), vec![forged], 0, &[]);
            assert!(!plan.actions.iter().any(|action| matches!(action, Action::Node { .. })), "{owner:?}: {:?}", plan.actions);
        }
    }

    #[test]
    fn a_pod_that_failed_is_followed_by_another_after_a_pause_that_doubles() {
        let node = node("n1");
        let ended = || ContainerState::Ended { code: 1, reason: "Error".into(), message: "no /etc".into() };
        for (attempt, pause) in [(0, 30), (1, 60), (3, 240), (50, 30 * 128)] {
            let failed = || vec![pod(&node, attempt, PodPhase::Failed, ended())];
            let early = planned(std::slice::from_ref(&node), failed(), pause - 1, &[]);
            assert_eq!((made(&early).len(), early.wake_at), (0, Some(at(pause))), "{attempt}");
            let plan = planned(std::slice::from_ref(&node), failed(), pause, &[]);
            assert_eq!(made(&plan), [("n1", attempt + 1)]);
        }
        let both =
            vec![pod(&node, 0, PodPhase::Failed, ended()), pod(&node, 1, PodPhase::Running, ContainerState::Running { since: at(31) })];
        let plan = planned(&[node], both, 32, &[]);
        assert!(matches!(&plan.actions[..], [Action::DeletePod { pod, .. }] if pod.uid == "p0"), "{:?}", plan.actions);
    }

    #[test]
    fn hands_off_means_no_pod_unless_an_upgrade_waits_for_the_proof() {
        let mut off = node("n1");
        off.labels.insert(crate::api::names::MANAGED.into(), "false".into());
        assert!(planned(&[off.clone()], vec![], 0, &[]).actions.is_empty());
        assert_eq!(made(&planned(&[off], vec![], 0, &["n1"])), [("n1", 0)]);
        let away = NodeView { ready: false, ..node("n2") };
        assert!(planned(std::slice::from_ref(&away), vec![], 0, &[]).actions.is_empty(), "a node that is not Ready starts no pod");
        assert_eq!(made(&planned(&[away], vec![], 0, &["n2"])), [("n2", 0)], "one that has just booted soon does");
    }
}

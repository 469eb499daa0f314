//! The limits that hold across NodeOps: one control-plane node at a time, and never while another one is not
//! well.
//!
//! Etcd keeps its quorum with one member of three away. A second one, because another NodeOp runs or because
//! a node is down anyway, would stop the cluster, and with it the operator that could bring it back. And a
//! node that is Ready is not yet a member that votes: after a boot its kubelet may be up long before its etcd
//! has caught up.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::nodeop::Phase,
    plan::model::{
        action::Plan,
        id::Key,
        intent::Intent,
        question::{Answer, Question},
        snapshot::{NodeView, Snapshot},
        time::later,
    },
};

/// How long a control-plane node must have been Ready before another one goes away, if nothing tells of its
/// etcd.
const READY_FOR: SignedDuration = SignedDuration::from_secs(60);
/// The same after we saw it turn Ready, if something does tell: right after a boot, what is told may be older
/// than the boot.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);
/// Between two looks at the pods of a control plane, which no watch tells of.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// The control-plane nodes claimed by NodeOps that cordon or reboot: recorded in a status, or claimed on the
/// node. A claim whose owner is gone counts too: nobody knows any more what it did, and its waiter may still
/// have to end.
pub fn control_planes_under_way(snapshot: &Snapshot) -> Vec<(Key, String)> {
    let mut held = BTreeSet::new();
    for node in snapshot.nodes.values().filter(|node| node.control_plane()) {
        if let Some(of) = &node.claimed_by
            && snapshot.op(of).is_none_or(|op| Intent::of(op).disturbs())
        {
            held.insert((of.key(), node.name.clone()));
        }
        for (key, op) in &snapshot.ops {
            let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(&node.name));
            let recorded =
                entry.is_some_and(|entry| entry.phase == Phase::Running || entry.node_uid.is_some());
            if recorded && Intent::of(op).disturbs() {
                held.insert((key.clone(), node.name.clone()));
            }
        }
    }
    held.into_iter().collect()
}

/// Control-plane nodes other than `node`.
fn others<'a>(snapshot: &'a Snapshot, node: &'a str) -> impl Iterator<Item = &'a NodeView> {
    snapshot
        .nodes
        .values()
        .map(AsRef::as_ref)
        .filter(move |other| other.control_plane() && other.name != node)
}

/// Asks what [`others_not_ready`] has to know of nodes whose distribution does not say on the Node whether
/// their etcd votes. Whether it was not known yet.
pub fn ask(snapshot: &Snapshot, node: &str, plan: &mut Plan) -> bool {
    let silent = others(snapshot, node).filter(|other| other.ready && other.etcd_votes.is_none());
    let open: Vec<Question> = silent
        .map(|other| Question::ControlPlanePods(other.name.clone()))
        .filter(|q| snapshot.answer(q).is_none())
        .collect();
    if open.is_empty() {
        return false;
    }
    plan.questions.extend(open);
    plan.wake(later(snapshot.now, LOOK_EVERY));
    true
}

/// Why a control-plane node other than `node` may not be a member that votes, so that `node` must not go
/// away. What [`ask`] asks has been answered.
pub fn others_not_ready(snapshot: &Snapshot, node: &str, plan: &mut Plan) -> Option<String> {
    others(snapshot, node).find_map(|other| not_ready(snapshot, other, plan))
}

fn not_ready(snapshot: &Snapshot, other: &NodeView, plan: &mut Plan) -> Option<String> {
    let name = &other.name;
    let Some(since) = snapshot.ready_since(other) else {
        return Some(format!("control-plane node {name} is not Ready, and a second one must not go away"));
    };
    let wait = match (other.etcd_votes, snapshot.answer(&Question::ControlPlanePods(name.clone()))) {
        (Some(false), _) => return Some(format!("etcd of control-plane node {name} is not a voting member")),
        (None, Some(Answer::NotReady(pods))) => {
            plan.wake(later(snapshot.now, LOOK_EVERY));
            let pod = pods.first().map(String::as_str).unwrap_or_default();
            return Some(format!("pod kube-system/{pod} of control-plane node {name} is not Ready"));
        }
        (Some(true), _) | (None, Some(Answer::Found)) if since > snapshot.leading_since => SETTLED,
        (Some(true), _) | (None, Some(Answer::Found)) => return None,
        (None, _) => READY_FOR,
    };
    let until = later(since, wait);
    if snapshot.now >= until {
        return None;
    }
    plan.wake(until);
    Some(format!(
        "control-plane node {name} is Ready since {since:.0} only; {} s are waited for",
        wait.as_secs()
    ))
}

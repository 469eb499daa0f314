//! From the nodes' statuses to the NodeOp's: phase, counts, conditions, one sentence, and whether it is worth a write.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{
        names::{condition, reason},
        nodeop::{Counts, NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus},
        text::clipped,
    },
    plan::model::{
        action::{Action, Notice, Plan},
        failing::{self, Troubles},
        id::OpRef,
        intent::Intent,
        snapshot::Snapshot,
        time::later,
    },
};

/// Bytes of what is said about one node, at most, and of what is said about all of them. A preflight may end with 4 KiB of words on
/// each of thousands of nodes, and the server takes an object of 1.5 MiB; beyond that nothing could be recorded any more.
const MAX_MESSAGE: (usize, usize) = (1000, 600_000);
/// So many each of them may have, however many there are: enough for what we say ourselves.
const MIN_MESSAGE: usize = 120;
/// Between two writes that change nothing but messages.
const MESSAGES_EVERY: SignedDuration = SignedDuration::from_secs(1);
/// At most so many nodes are named in a condition.
const NAMED: usize = 10;
/// At most so many names in `counts.current`.
const CURRENT: usize = 3;

/// How the operation as a whole stands, beyond what the nodes say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// Nodes that are finished but not released yet: their slot is taken, and the operation is not over.
    pub unreleased: usize,
    /// Nothing more is started: a node failed under `stopOnFailure`.
    pub stopped: bool,
    /// The NodeOp is being deleted.
    pub deleting: bool,
    /// It cannot go on at all, and why.
    pub refused: Option<String>,
    /// What it wants done or known, and what keeps failing.
    pub troubles: Troubles,
}

/// Counts the nodes.
pub fn count(nodes: &BTreeMap<String, NodeStatus>) -> Counts {
    let mut counts = Counts { total: to_i32(nodes.len()), ..Counts::default() };
    let mut current = Vec::new();
    for (name, node) in nodes {
        match node.phase {
            Phase::Pending | Phase::Preflight => counts.pending += 1,
            Phase::Running => {
                counts.running += 1;
                current.push(name.as_str());
            }
            Phase::Completed => counts.completed += 1,
            Phase::Failed => counts.failed += 1,
        }
    }
    counts.done = format!("{}/{}", counts.completed + counts.failed, counts.total);
    counts.current = current.iter().take(CURRENT).copied().collect::<Vec<_>>().join(",");
    if current.len() > CURRENT {
        counts.current.push_str(",…");
    }
    counts
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The phase that follows from the counts. `Completed` and `Failed` only when nothing is in hand and nothing will be.
fn phase(counts: &Counts, whole: &Whole) -> Phase {
    let open = counts.running > 0 || whole.unreleased > 0;
    let more = counts.pending > 0 && !whole.stopped && !whole.deleting && whole.refused.is_none();
    if !open && whole.refused.is_some() {
        return Phase::Failed;
    }
    match (open || more, counts.failed > 0 || counts.pending > 0) {
        (true, _) => Phase::Running,
        (false, true) => Phase::Failed,
        (false, false) => Phase::Completed,
    }
}

fn sentence(phase: Phase, counts: &Counts, whole: &Whole) -> String {
    let Counts { total, pending, running, completed, failed, .. } = counts;
    if let Some(why) = &whole.refused {
        return why.clone();
    }
    match phase {
        Phase::Completed if *total == 0 => "no node matches the selector: nothing was done".into(),
        Phase::Completed => format!("all {total} nodes completed"),
        Phase::Failed if *pending > 0 => format!("{failed} of {total} nodes failed, {completed} completed, {pending} were not started"),
        Phase::Failed => format!("{failed} of {total} nodes failed, {completed} completed"),
        Phase::Pending | Phase::Preflight | Phase::Running => {
            let mut text = format!("{completed} of {total} nodes completed, {running} in hand");
            if *failed > 0 {
                text.push_str(&format!(", {failed} failed"));
            }
            if whole.stopped {
                text.push_str("; nothing more is started (stopOnFailure)");
            }
            if whole.deleting {
                text.push_str("; being deleted, nodes in hand are released");
            }
            if let Some(trouble) = &whole.troubles.first {
                text.push_str("; ");
                text.push_str(trouble);
            }
            text
        }
    }
}

fn conditions(old: &[Condition], phase: Phase, message: &str, blocked: bool, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let progress = if blocked { reason::BLOCKED } else { reason::ROLLING_OUT };
    let wanted = match phase {
        Phase::Completed => [("False", "Finished"), ("True", "Completed"), ("False", "Completed")],
        Phase::Failed => [("False", "Finished"), ("False", "Failed"), ("True", "Failed")],
        Phase::Pending | Phase::Preflight | Phase::Running => {
            [("True", progress), ("False", reason::ROLLING_OUT), ("False", reason::ROLLING_OUT)]
        }
    };
    let types = [condition::PROGRESSING, condition::COMPLETE, condition::FAILED];
    let mut set: Vec<Condition> = old.iter().filter(|c| !types.contains(&c.type_.as_str())).cloned().collect();
    for (type_, (status, reason)) in types.into_iter().zip(wanted) {
        let since = old.iter().find(|c| c.type_ == type_ && c.status == status).map(|c| c.last_transition_time.clone());
        set.push(Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        });
    }
    set.sort_by(|a, b| a.type_.cmp(&b.type_));
    set
}

/// The status of a NodeOp whose nodes stand like this.
pub fn summarize(op: &NodeOp, nodes: BTreeMap<String, NodeStatus>, whole: &Whole, now: Timestamp) -> NodeOpStatus {
    let counts = count(&nodes);
    let phase = phase(&counts, whole);
    let message = sentence(phase, &counts, whole);
    let old = op.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = conditions(old, phase, &message, whole.troubles.first.is_some(), op.metadata.generation, now);
    if Intent::of(op).upgrade && phase.is_final() {
        conditions.retain(|condition| condition.type_ != condition::VERIFIED);
        conditions.push(verified(&nodes, op.metadata.generation, now));
    }
    NodeOpStatus {
        phase: Some(phase),
        conditions,
        message: Some(message),
        node_statuses: nodes,
        observed_generation: op.metadata.generation,
        counts: Some(counts),
        image: op.status.as_ref().and_then(|status| status.image.clone()),
        images: op.status.as_ref().map(|status| status.images.clone()).unwrap_or_default(),
        last_updated: op.status.as_ref().and_then(|status| status.last_updated.clone()),
    }
}

/// Whether it was proved that the upgraded nodes run what they were upgraded to.
fn verified(nodes: &BTreeMap<String, NodeStatus>, generation: Option<i64>, now: Timestamp) -> Condition {
    let named = |wanted: &dyn Fn(&NodeStatus) -> bool| {
        let names: Vec<&str> = nodes.iter().filter(|(_, node)| wanted(node)).map(|(name, _)| name.as_str()).take(NAMED).collect();
        names.join(", ")
    };
    // What the Go operator finished was never looked at.
    let rebooted = |node: &NodeStatus| node.phase == Phase::Completed && node.reboot_status == Some(RebootStatus::Completed);
    let (unknown, failed) = (named(&|node| rebooted(node) && node.verified != Some(true)), named(&|node| node.phase == Phase::Failed));
    let (status, reason, message) = match (failed.is_empty(), unknown.is_empty()) {
        (false, _) => ("False", "NodesFailed", format!("failed: {failed}")),
        (true, false) => ("Unknown", "NotProved", format!("what these nodes run is not known: {unknown}")),
        (true, true) => ("True", "Proved", "every node that was upgraded runs the image's release".into()),
    };
    Condition {
        type_: condition::VERIFIED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// Writes the status if it differs. A change of messages alone waits until a second after the last write, and until
/// nothing is being asked: the plan that follows the answers is made at once, and says what came of them.
pub fn write(s: &Snapshot, op: &Arc<NodeOp>, mut status: NodeOpStatus, plan: &mut Plan) {
    let now = s.now;
    let old = op.status.as_ref();
    shorten(old, &mut status);
    if old == Some(&status) {
        return;
    }
    let urgent = old.is_none_or(|old| without_messages(old) != without_messages(&status));
    if !urgent && plan.questions.iter().any(|question| failing::of(s, question).is_none()) {
        return;
    }
    // A stamp that lies in the future is of a clock that was wrong, and so an old one.
    let last = old.and_then(|old| old.last_updated.as_ref()).filter(|time| time.0 <= now).map(|time| later(time.0, MESSAGES_EVERY));
    if let Some(at) = last.filter(|at| !urgent && now < *at) {
        plan.wake(at);
        return;
    }
    status.last_updated = Some(Time(now));
    let mut notices = notices(old, &status);
    notices.extend(plan.said.remove(&OpRef::of(op).key()).unwrap_or_default());
    plan.actions.push(Action::Status { op: op.clone(), status: Box::new(status), notices });
}

/// Cuts what is newly said. What stands there already is left: an entry that is final does not change.
fn shorten(old: Option<&NodeOpStatus>, status: &mut NodeOpStatus) {
    let most = (MAX_MESSAGE.1 / status.node_statuses.len().max(1)).clamp(MIN_MESSAGE, MAX_MESSAGE.0);
    for (name, node) in &mut status.node_statuses {
        let said = old.and_then(|old| old.node_statuses.get(name)).and_then(|old| old.message.as_ref());
        if let Some(message) = node.message.as_mut().filter(|message| message.len() > most && Some(&**message) != said) {
            *message = clipped(message, most);
        }
    }
}

fn without_messages(status: &NodeOpStatus) -> NodeOpStatus {
    let mut bare = NodeOpStatus { message: None, ..status.clone() };
    bare.node_statuses.values_mut().for_each(|node| node.message = None);
    bare.conditions.iter_mut().for_each(|condition| condition.message.clear());
    bare
}

/// One Event per transition of the NodeOp and of each node.
fn notices(old: Option<&NodeOpStatus>, new: &NodeOpStatus) -> Vec<Notice> {
    let mut said = Vec::new();
    for (name, node) in &new.node_statuses {
        let before = old.and_then(|old| old.node_statuses.get(name));
        if before.is_some_and(|before| before.phase == node.phase) || node.phase == Phase::Pending {
            continue;
        }
        let message = node.message.clone().unwrap_or_default();
        let (warning, reason, text) = match node.phase {
            Phase::Preflight | Phase::Pending => continue,
            Phase::Running => (false, "NodeStarted", format!("node {name} is taken in hand")),
            Phase::Completed => (false, "NodeCompleted", format!("node {name}: {message}")),
            Phase::Failed => (true, "NodeFailed", format!("node {name}: {message}")),
        };
        said.push(Notice { warning, reason, message: text, node: Some(name.clone()) });
    }
    if old.and_then(|old| old.phase) != new.phase {
        let message = new.message.clone().unwrap_or_default();
        match new.phase {
            Some(Phase::Completed) => said.push(Notice { warning: false, reason: "Completed", message, node: None }),
            Some(Phase::Failed) => said.push(Notice { warning: true, reason: "Failed", message, node: None }),
            Some(Phase::Running) => said.push(Notice { warning: false, reason: "Started", message, node: None }),
            Some(Phase::Pending | Phase::Preflight) | None => {}
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_in_the_future_keeps_no_message_from_being_written() {
        let now = Timestamp::constant(1_000, 0);
        let says = |message: &str, at: i64| NodeOpStatus {
            phase: Some(Phase::Running),
            message: Some(message.into()),
            last_updated: Timestamp::from_second(at).ok().map(Time),
            ..NodeOpStatus::default()
        };
        let written = |at: i64| {
            let op = Arc::new(NodeOp { status: Some(says("old", at)), ..NodeOp::new("op", Default::default()) });
            let mut plan = Plan::default();
            write(&Snapshot { now, ..Snapshot::default() }, &op, says("new", at), &mut plan);
            (plan.actions.len(), plan.wake_at)
        };
        assert_eq!(written(990), (1, None));
        assert_eq!(written(1_000), (0, Timestamp::from_second(1_001).ok()), "it says something every second at most");
        assert_eq!(written(31_537_000), (1, None), "somebody's clock was a year ahead");
    }

    #[test]
    fn whatever_nodes_say_the_status_fits_into_etcd() {
        let op = NodeOp::default();
        let says = |words: usize| NodeStatus { phase: Phase::Failed, message: Some("é".repeat(words)), ..NodeStatus::default() };
        for (count, words) in [(1, 1_000_000), (500, 4096), (5000, 4096)] {
            let nodes = (0..count).map(|n| (format!("node-{n}.example.com"), says(words))).collect();
            let mut status = summarize(&op, nodes, &Whole::default(), Timestamp::UNIX_EPOCH);
            shorten(None, &mut status);
            let bytes = serde_json::to_vec(&status).unwrap().len();
            assert!(bytes < 1_200_000, "{count} nodes: {bytes} bytes");
            let mut again = status.clone();
            shorten(Some(&status), &mut again);
            assert_eq!(again, status, "what is cut stays as it is");
        }
    }
}

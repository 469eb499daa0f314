//! Whether a status is worth a write, and which Events go with it.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::shorten::shorten;
use crate::{
    api::{
        node_statuses::{Change, NodeStatuses},
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
        upgrade::UpgradePhase,
    },
    plan::{
        conditions,
        model::{
            action::{Action, Notice},
            effects::Effects,
            failing,
            snapshot::Snapshot,
            time::Pace,
        },
        rollout::expiry,
    },
};

/// Between two writes that change nothing but messages, at first …
const MESSAGES_EVERY: SignedDuration = SignedDuration::from_secs(2);
/// … growing with the time for which a node stands in its step, up to this: whoever looks on sees why it
/// waits within seconds, and a step that takes hours is not written down every second.
const MAX_MESSAGES_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// Writes the status if it differs, as one of the effects of this pass, and says with it what was to be
/// said. A change of messages alone waits until some seconds after the last write (see [`pace`]), and until
/// nothing is being asked: the plan that follows the answers is made at once, and says what came of them. One
/// that an Event goes with does not wait: by then it may not be so any more, and nobody would be told.
pub fn write(snapshot: &Snapshot, op: &Arc<NodeOp>, mut status: NodeOpStatus, effects: Effects) -> Effects {
    let mut effects = effects;
    let now = snapshot.now;
    let old = op.status.as_ref();
    shorten(old, &mut status);
    if old == Some(&status) {
        return effects;
    }
    let calm = old.filter(|old| effects.notices.is_empty() && differ_in_messages_alone(old, &status));
    if let Some(old) = calm {
        if effects.questions.iter().any(|question| failing::of(snapshot, question).is_none()) {
            return effects;
        }
        if let Some(at) = pace(op, old, &status).waits(old.last_updated.as_ref(), now) {
            effects.add(Effects::wake_at(at));
            return effects;
        }
    }
    status.last_updated = Some(Time(now));
    let mut notices = notices(old, &status);
    notices.extend(expiry::notice(op, &status));
    notices.append(&mut effects.notices);
    effects.add(Action::PatchStatus { op: op.clone(), status: Box::new(status), notices });
    effects
}

/// Whether nothing else changed. Most entries did not change at all, and few are looked at twice.
fn differ_in_messages_alone(old: &NodeOpStatus, new: &NodeOpStatus) -> bool {
    let bare = |status: &NodeOpStatus| {
        let mut bare = NodeOpStatus { message: None, ..status.without_nodes() };
        bare.conditions.iter_mut().for_each(|condition| condition.message.clear());
        bare
    };
    let silent = |node: &NodeStatus| NodeStatus { message: None, ..node.clone() };
    let alike = |old: Option<&NodeStatus>, new: Option<&NodeStatus>| old.map(silent) == new.map(silent);
    bare(old) == bare(new)
        && new.node_statuses.changes(&old.node_statuses).all(|Change { old, new, .. }| alike(old, new))
}

/// How long after the last write messages are due: after as long as the node whose step is the youngest of
/// those that say something else had been in it by then. So the first message of a step waits for nothing,
/// and each further one for longer. A node that was never started waits since its NodeOp was made, and what
/// it says first is said soon; what no node says seldom changes.
fn pace(op: &NodeOp, old: &NodeOpStatus, new: &NodeOpStatus) -> Pace {
    let made = op.metadata.creation_timestamp.as_ref();
    let mut since = None;
    for Change { name: _, old, new } in new.node_statuses.changes(&old.node_statuses) {
        if old.is_none_or(|old| old.message.is_none()) {
            return Pace(MESSAGES_EVERY);
        }
        since = since.max(new.and_then(|new| new.last_updated.as_ref()).or(made));
    }
    let stood =
        old.last_updated.as_ref().zip(since).map(|(written, since)| written.0.duration_since(since.0));
    Pace(stood.unwrap_or(MESSAGES_EVERY).clamp(MESSAGES_EVERY, MAX_MESSAGES_EVERY))
}

/// One Event per transition of the NodeOp and of each node.
fn notices(old: Option<&NodeOpStatus>, new: &NodeOpStatus) -> Vec<Notice> {
    let mut said = Vec::new();
    let none = NodeStatuses::default();
    for Change { name, old: before, new } in
        new.node_statuses.changes(old.map_or(&none, |old| &old.node_statuses))
    {
        let Some(node) = new else { continue };
        if before.is_some_and(|before| before.phase == node.phase) || node.phase == Phase::Pending {
            continue;
        }
        let message = node.message.clone().unwrap_or_default();
        let (warning, reason, text) = match node.phase {
            Phase::Preflight | Phase::Pending => continue,
            Phase::Running => (false, "NodeStarted", format!("node {name} is taken")),
            Phase::Completed => (false, "NodeCompleted", format!("node {name}: {message}")),
            Phase::Failed => (true, "NodeFailed", format!("node {name}: {message}")),
        };
        said.push(Notice { warning, reason, message: text, node: Some(name.clone()) });
    }
    let phase = |status: &NodeOpStatus| status.phase.map(UpgradePhase::from);
    let before = old.map_or((None, [].as_slice()), |old| (phase(old), old.conditions.as_slice()));
    said.extend(conditions::notice(
        before,
        (phase(new), &new.conditions),
        new.message.as_deref().unwrap_or_default(),
    ));
    said
}

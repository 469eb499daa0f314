//! A node that fails untouched in a run of a `Continuous` upgrade says that it was tried before it is said to
//! have failed: only the Node tells the next round so (see `plan::attempts`). So does one whose Node was made
//! anew while the run was at its machine.

use std::sync::Arc;

use crate::{
    api::{
        node_status::NodeReason,
        node_statuses::{Change, NodeStatuses},
        nodeop::Phase,
    },
    plan::{
        attempts,
        model::{
            effects::{Effects, Planned},
            snapshot::NodeView,
        },
        rollout::{
            context::{Rollout, RolloutContext},
            not_taken::NotTaken,
        },
    },
};

/// Leaves the entries of nodes as they were that have ended without a claim, or under another Node object
/// than the one that was claimed, until their nodes say that they were tried. In a later round that is also
/// said of one that needed nothing: whatever made it a node of that round would make it one of the next.
pub fn record(ctx: &RolloutContext<'_>, old: &NodeStatuses, mut rollout: Rollout) -> Planned<Rollout> {
    let RolloutContext { snapshot, op, .. } = ctx;
    let mut effects = Effects::default();
    if !ctx.upgrade.is_some_and(|upgrade| upgrade.spec.is_continuous()) {
        return rollout.into();
    }
    let later = attempts::is_later_round(&op.object);
    let is_tried = |before: Phase, now: Phase| match (before, now) {
        (Phase::Pending | Phase::Preflight, Phase::Failed) => true,
        (Phase::Preflight, Phase::Completed) => later,
        (Phase::Running, Phase::Completed | Phase::Failed) => true,
        _ => false,
    };
    let changed: Vec<(String, _, bool)> = rollout
        .nodes
        .changes(old)
        .filter_map(|Change { name, old, new }| {
            let (before, now) = (old?, new?);
            let to_nothing = now.reason == Some(NodeReason::PreflightNotRun);
            is_tried(before.phase, now.phase).then(|| (name.clone(), before.clone(), to_nothing))
        })
        .collect();
    for (name, mut before, to_nothing) in changed {
        let node = snapshot.nodes.get(&name);
        // Another machine that has joined under the name has not been tried.
        let is_it = |node: &&Arc<NodeView>| before.node_uid.as_ref().is_none_or(|uid| *uid == node.uid);
        let mark =
            node.filter(is_it).and_then(|node| attempts::mark(&op.object, node, to_nothing, snapshot.now));
        let Some(mark) = mark.map(Effects::from) else { continue };
        let error = mark.persistent_failure(&snapshot.failures);
        let why = rollout.progress.failures.complete(NotTaken::Unrecorded.into(), error);
        before.message = Some(why.message.clone());
        rollout.nodes.insert(name.clone(), before);
        rollout.waiting.insert(name, why);
        rollout.progress.is_recording = true;
        effects.add(mark);
    }
    Planned { value: rollout, effects }
}

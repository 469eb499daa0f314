//! Giving nodes back: level-triggered from the nodes themselves, so that nothing depends on who finished,
//! crashed or was deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot
//! stays taken. After a proved reboot the waiter is due nothing, whatever it does: its sentinel names a boot
//! that is over. So nobody waits for it; it gets some time to see that itself and to clean up.

mod failed;
mod orphaned;
mod remnant;
mod unreleased;
mod waiters;

use self::orphaned::orphaned_work;
pub use self::{unreleased::Unreleased, waiters::expire_waiters};
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    plan::{
        attempts,
        model::{
            action::{Action, NodeChange},
            effects::Effects,
            failing,
            id::OpRef,
            intent::Intent,
            question::Question,
            snapshot::{NodeView, Snapshot, Standing},
        },
        node::{
            context::Op,
            cordon::{self, Ending},
            hints, legacy,
        },
    },
};

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn sweep(snapshot: &Snapshot) -> Effects {
    let mut effects = Effects::act(orphaned_work(snapshot));
    let held = snapshot.nodes.that_are(Standing::Held);
    held.for_each(|view| effects.add(node(snapshot, view)));
    effects
}

/// Releases one node from whoever no longer needs it.
pub fn node(snapshot: &Snapshot, node: &NodeView) -> Effects {
    let mut effects = Effects::default();
    for owner in node.holders() {
        // What a finished NodeOp left cordoned, or told autoscalers and load balancers, belongs to the one
        // that has claimed the node, for as long as it has.
        if node.claimed_by.as_ref().is_some_and(|claim| claim != owner) {
            continue;
        }
        effects.add(match snapshot.op(owner) {
            Some(op) => release(snapshot, node, owner, &op),
            None if snapshot.is_gone(&Question::Op(owner.clone())) => orphan(snapshot, node, owner),
            None if failing::change_is_paused(snapshot, node) => Effects::default(),
            None => Question::Op(owner.clone()).into(),
        });
    }
    if let Some(kept) = node.kept_cordon.as_ref().filter(|_| node.claimed_by.is_none()) {
        effects.add(failed::sweep(snapshot, node, kept));
    }
    effects
}

/// Why a node that the NodeOp is done with is not given back yet. Nothing for a node that it has not claimed,
/// or still works on.
pub fn why_not_released(snapshot: &Snapshot, view: &NodeView, op: &Op) -> Option<Unreleased> {
    let status = op.object.status.as_ref().filter(|_| view.claimed_by.as_ref() == Some(&op.id))?;
    let entry = status.node_statuses.get(&view.name);
    if is_in_hand(status, entry) {
        return None;
    }
    if let Some(remnant) = remnant::find(snapshot, view, &op.id, entry).first() {
        return Some(remnant.keeps());
    }
    Some(Unreleased::BeingGivenBack { last_error: node(snapshot, view).keeps_failing(snapshot) })
}

fn is_in_hand(status: &NodeOpStatus, entry: Option<&NodeStatus>) -> bool {
    entry.is_some_and(|entry| entry.phase == Phase::Running || legacy::is_unsettled(status, entry))
}

/// What becomes of the node's cordon.
fn ending(op: &NodeOp, entry: Option<&NodeStatus>) -> Ending {
    let cordons = Intent::of(op).cordon;
    match entry.map(|entry| (entry.phase, entry.job_name.is_some())) {
        Some((Phase::Completed, _)) if cordons => Ending::Uncordon,
        Some((Phase::Failed, true)) if op.spec.uncordon_on_failure.unwrap_or(false) => Ending::Uncordon,
        Some((Phase::Failed, true)) if cordons => Ending::Keep,
        _ => Ending::Undo,
    }
}

/// Gives back all that the NodeOp holds of the node. `None`: it holds nothing.
fn give_back(node: &NodeView, owner: &OpRef, ending: Ending) -> Option<NodeChange> {
    let mut change = cordon::give_back(node, owner, ending).unwrap_or_default();
    hints::give_back(node, owner, &mut change);
    (!change.is_empty()).then_some(change)
}

fn release(snapshot: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp) -> Effects {
    let nothing = Effects::default();
    let Some(status) = &op.status else { return nothing };
    let entry = status.node_statuses.get(&node.name);
    if is_in_hand(status, entry) {
        return nothing;
    }
    let is_final = entry.is_some_and(|entry| entry.phase.is_final());
    let live = Question::Op(owner.clone());
    if !is_final && snapshot.answer(&live).is_none() {
        // What is final stays so, but a node that is not started in an old view may have been started by now.
        return match give_back(node, owner, ending(op, entry)) {
            Some(change) if failing::change_is_paused(snapshot, node) => {
                Action::patch_node(node, change).into()
            }
            _ => live.into(),
        };
    }
    let Some(mut change) = give_back(node, owner, ending(op, entry)) else {
        return nothing;
    };
    if change.claimed_by.is_some()
        && let Some(entry) = entry.filter(|entry| entry.phase == Phase::Completed)
    {
        let done = entry.last_updated.as_ref().map_or(snapshot.now, |time| time.0);
        change.annotations.extend(attempts::record(op, node, Some(done)));
    }
    if node.claimed_by.as_ref() != Some(owner) {
        return Action::patch_node(node, change).into();
    }
    let remnants = remnant::find(snapshot, node, owner, entry);
    let mut effects = Effects::act(remnants.iter().filter_map(|remnant| remnant.end(owner)));
    if remnants.is_empty() {
        effects.add(Action::patch_node(node, change));
    } else if change.kept_cordon.is_some() {
        // At once, whatever still has to end: the NodeOp may be deleted at any time, and with it goes what
        // tells that the node failed.
        let mark = NodeChange { kept_cordon: change.kept_cordon, ..NodeChange::default() };
        effects.add(Action::patch_node(node, mark));
    }
    effects
}

/// The NodeOp is gone, and the garbage collector is at its Jobs and pods: wait for them, then undo what it
/// did.
fn orphan(snapshot: &Snapshot, node: &NodeView, owner: &OpRef) -> Effects {
    let remnants = remnant::find(snapshot, node, owner, None);
    let change = give_back(node, owner, Ending::Undo).filter(|_| remnants.is_empty());
    let ends = remnants.iter().filter_map(|remnant| remnant.end(owner));
    Effects::act(ends.chain(change.map(|change| Action::patch_node(node, change))))
}

#[cfg(test)]
mod tests;

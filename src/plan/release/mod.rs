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

use std::collections::BTreeMap;

use self::{orphaned::orphaned_work, remnant::Remnant};
pub use self::{unreleased::Unreleased, waiters::expire_waiters};
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    plan::{
        attempts,
        model::{
            action::{Action, NodeChange},
            effects::{Effects, Planned},
            failing,
            id::OpRef,
            intent::Intent,
            question::Question,
            snapshot::{NodeView, Snapshot, Standing},
        },
        node::{
            cordon::{self, Ending},
            hints, legacy,
        },
    },
};

/// What is done in this pass to give nodes back, and what keeps each of them.
#[derive(Debug, Default)]
pub struct Releases<'a> {
    orphaned: Vec<Action>,
    nodes: BTreeMap<&'a str, NodeRelease>,
}

/// How far it is with giving one node back.
#[derive(Debug)]
pub struct NodeRelease {
    effects: Effects,
    /// Why the NodeOp that has claimed the node, and is done with it, has not given it back. Nothing if it
    /// still works on the node, or nobody has claimed it.
    pub unreleased: Option<Unreleased>,
    /// What of all this keeps failing.
    pub last_error: Option<String>,
}

impl Releases<'_> {
    /// What is done about one node; nothing about most.
    pub fn of(&self, node: &str) -> Option<&NodeRelease> {
        self.nodes.get(node)
    }

    /// All that is done.
    pub fn into_effects(self) -> Effects {
        let mut effects = Effects::act(self.orphaned);
        self.nodes.into_values().for_each(|node| effects.add(node.effects));
        effects
    }
}

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn find_releases(snapshot: &Snapshot) -> Releases<'_> {
    let held = snapshot.nodes.that_are(Standing::Held);
    let nodes = held.map(|view| (view.name.as_str(), node(snapshot, view))).collect();
    Releases { orphaned: orphaned_work(snapshot), nodes }
}

/// Releases one node from whoever no longer needs it.
fn node(snapshot: &Snapshot, node: &NodeView) -> NodeRelease {
    let (mut effects, mut unreleased) = (Effects::default(), None);
    for owner in node.holders() {
        // What a finished NodeOp left cordoned, or told autoscalers and load balancers, belongs to the one
        // that has claimed the node, for as long as it has.
        if node.claimed_by.as_ref().is_some_and(|claim| claim != owner) {
            continue;
        }
        effects.add(match snapshot.op(owner) {
            Some(op) => {
                let Planned { value, effects } = release(snapshot, node, owner, &op);
                unreleased = unreleased.or(value);
                effects
            }
            None if snapshot.is_gone(&Question::Op(owner.clone())) => orphan(snapshot, node, owner),
            None if failing::change_is_paused(snapshot, node) => Effects::default(),
            None => Question::Op(owner.clone()).into(),
        });
    }
    if let Some(kept) = node.kept_cordon.as_ref().filter(|_| node.claimed_by.is_none()) {
        effects.add(failed::sweep(snapshot, node, kept));
    }
    let error = effects.keeps_failing(&snapshot.failures);
    if let Some(Unreleased::BeingGivenBack { last_error }) = &mut unreleased {
        last_error.clone_from(&error);
    }
    NodeRelease { effects, unreleased, last_error: error }
}

fn is_worked_on(status: &NodeOpStatus, entry: Option<&NodeStatus>) -> bool {
    legacy::is_to_be_adopted(status) || entry.is_some_and(|entry| entry.phase == Phase::Running)
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

/// Gives the node back, and says why that is not done yet if the NodeOp is done with it and has claimed it.
fn release(snapshot: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp) -> Planned<Option<Unreleased>> {
    let Some(status) = &op.status else { return None.into() };
    let entry = status.node_statuses.get(&node.name);
    if is_worked_on(status, entry) {
        return None.into();
    }
    if node.claimed_by.as_ref() != Some(owner) {
        return Planned::from(None).with(end(snapshot, node, owner, op, entry, &[]));
    }
    let remnants = remnant::find(snapshot, node, owner, entry);
    let given_back = Unreleased::BeingGivenBack { last_error: None };
    let why = remnants.first().map_or(given_back, Remnant::keeps);
    Planned::from(Some(why)).with(end(snapshot, node, owner, op, entry, &remnants))
}

/// Ends what remains of the NodeOp on the node, and gives the node back once nothing does.
fn end(
    snapshot: &Snapshot,
    node: &NodeView,
    owner: &OpRef,
    op: &NodeOp,
    entry: Option<&NodeStatus>,
    remnants: &[Remnant<'_>],
) -> Effects {
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
        return Effects::default();
    };
    if change.claimed_by.is_some()
        && let Some(entry) = entry.filter(|entry| entry.phase == Phase::Completed)
    {
        let done = entry.last_updated.as_ref().map_or(snapshot.now, |time| time.0);
        change.annotations.extend(attempts::record(op, node, Some(done)));
    }
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

/// The NodeOp is gone, and the garbage collector deletes its Jobs and pods: wait for them, then undo what it
/// did.
fn orphan(snapshot: &Snapshot, node: &NodeView, owner: &OpRef) -> Effects {
    let remnants = remnant::find(snapshot, node, owner, None);
    let change = give_back(node, owner, Ending::Undo).filter(|_| remnants.is_empty());
    let ends = remnants.iter().filter_map(|remnant| remnant.end(owner));
    Effects::act(ends.chain(change.map(|change| Action::patch_node(node, change))))
}

#[cfg(test)]
mod tests;

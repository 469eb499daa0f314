//! Giving nodes back: level-triggered from the nodes themselves, so that nothing depends on who finished,
//! crashed or was deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot
//! stays taken. After a proved reboot the waiter is due nothing, whatever it does: its sentinel names a boot
//! that is over. So nobody waits for it; it gets some time to see that itself and to clean up.

mod claimants;
mod failed;
mod orphaned;
mod remnant;
mod unreleased;
mod waiters;

use std::collections::BTreeMap;

use self::{
    claimants::{Claimant, Known, Whose},
    orphaned::orphaned_work,
    remnant::Remnant,
};
pub use self::{unreleased::Unreleased, waiters::expire_waiters};
use crate::{
    api::nodeop::{NodeOp, NodeStatus, Phase},
    plan::{
        attempts,
        model::{
            action::{Action, NodeChange},
            effects::{Effects, Planned},
            id::OpRef,
            intent::Intent,
            question::Question,
            snapshot::{NodeClass, NodeView, Snapshot},
        },
        node::{
            cordon::{self, Ending},
            hint_patch,
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
    let held = snapshot.nodes.that_are(NodeClass::Marked);
    let nodes = held.map(|view| (view.name.as_str(), node(snapshot, view))).collect();
    Releases { orphaned: orphaned_work(snapshot), nodes }
}

/// Releases one node from whoever no longer needs it.
fn node(snapshot: &Snapshot, node: &NodeView) -> NodeRelease {
    let claimants = claimants::find(snapshot, node);
    let released = claimants.iter().map(|claimant| release(node, claimant));
    let Planned { value: unreleased, effects: released } = released.collect::<Planned<Vec<_>>>();
    let kept = node.kept_cordon.as_ref().filter(|_| node.claimed_by.is_none());
    let kept = kept.map(|kept| failed::sweep(snapshot, node, kept)).unwrap_or_default();
    let effects = Effects::all([released, kept]);
    let last_error = effects.persistent_failure(&snapshot.failures);
    let unreleased = unreleased.into_iter().flatten().next().map(|why| match why {
        Unreleased::BeingGivenBack { .. } => Unreleased::BeingGivenBack { last_error: last_error.clone() },
        why => why,
    });
    NodeRelease { effects, unreleased, last_error }
}

/// What becomes of the node's cordon.
fn ending(op: &NodeOp, entry: Option<&NodeStatus>) -> Ending {
    let intent = Intent::of(op);
    match entry.map(|entry| (entry.phase, entry.job_name.is_some())) {
        Some((Phase::Completed, _)) if intent.cordon => Ending::Uncordon,
        Some((Phase::Failed, true)) if intent.uncordon_on_failure => Ending::Uncordon,
        Some((Phase::Failed, true)) if intent.cordon => Ending::Keep,
        _ => Ending::Undo,
    }
}

/// Gives back all that the NodeOp holds of the node. `None`: it holds nothing.
fn give_back(node: &NodeView, owner: &OpRef, ending: Ending) -> Option<NodeChange> {
    let mut change = cordon::give_back(node, owner, ending).unwrap_or_default();
    hint_patch::give_back(node, owner, &mut change);
    (!change.is_empty()).then_some(change)
}

/// Gives the node back, and says why that is not done yet if this is who has claimed it.
fn release(node: &NodeView, claimant: &Claimant<'_>) -> Planned<Option<Unreleased>> {
    match &claimant.whose {
        Whose::Known(known) => {
            let given_back = Unreleased::BeingGivenBack { last_error: None };
            let why = || claimant.remnants.first().map_or(given_back, Remnant::keeps);
            Planned::from(claimant.has_claimed.then(why)).with(end(node, claimant, known))
        }
        Whose::Gone => Planned::from(None).with(orphan(node, claimant)),
        Whose::Unknown if claimant.is_paused => None.into(),
        Whose::Unknown => Planned::from(None).with(Question::Op(claimant.id.clone())),
    }
}

/// Ends what remains of the NodeOp on the node, and gives the node back once nothing does.
fn end(node: &NodeView, claimant: &Claimant<'_>, known: &Known) -> Effects {
    let change = give_back(node, claimant.id, ending(&known.op, known.entry.as_ref()));
    if !known.is_final() && !known.is_read_live {
        // What is final stays so, but a node that is not started in an old view may have been started by now.
        return match change {
            Some(change) if claimant.is_paused => Action::patch_node(node, change).into(),
            _ => Question::Op(claimant.id.clone()).into(),
        };
    }
    let Some(mut change) = change else { return Effects::default() };
    if let Some(done) = known.completed.filter(|_| change.claimed_by.is_some()) {
        change.annotations.extend(attempts::record(&known.op, node, Some(done)));
    }
    let ended = Effects::act(claimant.remnants.iter().filter_map(|remnant| remnant.end(claimant.id)));
    let changed = if claimant.remnants.is_empty() {
        Action::patch_node(node, change).into()
    } else if change.kept_cordon.is_some() {
        // At once, whatever still has to end: the NodeOp may be deleted at any time, and with it goes what
        // tells that the node failed.
        let mark = NodeChange { kept_cordon: change.kept_cordon, ..NodeChange::default() };
        Action::patch_node(node, mark).into()
    } else {
        Effects::default()
    };
    Effects::all([ended, changed])
}

/// The NodeOp is gone, and the garbage collector deletes its Jobs and pods: wait for them, then undo what it
/// did.
fn orphan(node: &NodeView, claimant: &Claimant<'_>) -> Effects {
    let change = give_back(node, claimant.id, Ending::Undo).filter(|_| claimant.remnants.is_empty());
    let ends = claimant.remnants.iter().filter_map(|remnant| remnant.end(claimant.id));
    Effects::act(ends.chain(change.map(|change| Action::patch_node(node, change))))
}

#[cfg(test)]
mod tests;

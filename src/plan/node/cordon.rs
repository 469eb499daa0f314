//! Who owns a node's cordon and claim, and the one patch that takes or gives back both.
//!
//! A cordon is ours only if the annotation names our very NodeOp. Whoever else made the node unschedulable
//! keeps it so, and a human who uncordons after the reboot wins. The cordon of a node that failed is marked
//! as such (see `kept_cordon`) and outlives its NodeOp; one that succeeds on the node later ends it.

use crate::plan::model::{
    action::{Action, NodeChange},
    id::OpRef,
    kept_cordon::KeptCordon,
    question::Question,
    snapshot::{NodeView, Snapshot},
};

/// What an annotation's owner is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkOwner {
    /// The asking NodeOp itself.
    Ours,
    /// Another NodeOp that is not finished.
    Live,
    /// Finished, or confirmed to be gone.
    Over,
    /// Not in the cache, which proves nothing.
    Unknown,
}

/// Looks an owner up; the caller asks [`Question::Op`] for an unknown one.
pub fn mark_owner(snapshot: &Snapshot, me: &OpRef, of: &OpRef) -> MarkOwner {
    if of == me {
        return MarkOwner::Ours;
    }
    match snapshot.op(of) {
        Some(op) if op.is_over() => MarkOwner::Over,
        Some(_) => MarkOwner::Live,
        None if snapshot.is_gone(&Question::Op(of.clone())) => MarkOwner::Over,
        None => MarkOwner::Unknown,
    }
}

/// Whose an annotation is as far as this node goes: a NodeOp that waits for somebody to repair the node is
/// over there.
fn mark_owner_here(snapshot: &Snapshot, node: &NodeView, me: &OpRef, of: &OpRef) -> MarkOwner {
    let op = snapshot.op(of);
    let entry =
        op.as_ref().and_then(|op| op.status.as_ref()).and_then(|status| status.node_statuses.get(&node.name));
    let done = entry.is_some_and(|entry| entry.phase.is_final() && entry.node_uid.is_none());
    match mark_owner(snapshot, me, of) {
        MarkOwner::Live if done => MarkOwner::Over,
        other => other,
    }
}

/// What taking a node comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Take {
    /// It is claimed, and cordoned if that was asked.
    InPlace,
    /// This patch takes it.
    Patch(NodeChange),
    /// This has to be known first.
    Ask(Question),
    /// Another NodeOp has claimed it.
    Taken(OpRef),
}

/// Claims `node` for `me`, and cordons it if `cordon`. A claim whose owner is over is not jumped: its waiter
/// may still have to end, and `plan::release` is ending it.
pub fn take(snapshot: &Snapshot, node: &NodeView, me: &OpRef, cordon: bool) -> Take {
    let mut change = NodeChange::default();
    match &node.claimed_by {
        Some(of) if of == me => {}
        Some(of) => return Take::Taken(of.clone()),
        None => change.claimed_by = Some(Some(me.clone())),
    }
    if cordon && !node.unschedulable {
        change.unschedulable = Some(true);
        change.cordoned_by = Some(Some(me.clone()));
    } else if cordon {
        match node.cordoned_by.as_ref().map(|of| (of, mark_owner_here(snapshot, node, me, of))) {
            Some((of, MarkOwner::Unknown)) => return Take::Ask(Question::Op(of.clone())),
            Some((_, MarkOwner::Over)) => change.cordoned_by = Some(Some(me.clone())),
            Some((_, MarkOwner::Ours | MarkOwner::Live)) | None => {}
        }
    }
    if change.is_empty() { Take::InPlace } else { Take::Patch(change) }
}

/// How an operation ended on a node, as far as its cordon is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It succeeded, or its spec does not want the node to stay cordoned: also an older failure is over.
    Uncordon,
    /// It failed, and the node stays cordoned for somebody to look at.
    Keep,
    /// It did not begin, or was cancelled: the node is as it was before.
    Undo,
}

/// Gives back what `me` holds of `node`: the claim, and the cordon as the operation ended. `None`: it holds
/// nothing.
pub fn give_back(node: &NodeView, me: &OpRef, ending: Ending) -> Option<NodeChange> {
    let claimed = node.claimed_by.as_ref() == Some(me);
    let mut change = NodeChange { claimed_by: claimed.then_some(None), ..NodeChange::default() };
    let ours = node.cordoned_by.as_ref() == Some(me);
    let kept = node.kept_cordon.as_ref().filter(|_| claimed);
    if !node.unschedulable && (ours || kept.is_some()) {
        // Somebody uncordoned it meanwhile: the annotation is stale, and nothing else is left to undo.
        change.cordoned_by = Some(None);
    } else if ours || kept.is_some() {
        match ending {
            Ending::Uncordon => (change.unschedulable, change.cordoned_by) = (Some(false), Some(None)),
            Ending::Undo if ours => (change.unschedulable, change.cordoned_by) = (Some(false), Some(None)),
            Ending::Keep if kept.is_none_or(|kept| kept.by != *me) => {
                change.kept_cordon = Some(Box::new(KeptCordon { by: me.clone(), deleted: false }));
            }
            Ending::Keep | Ending::Undo => {}
        }
    }
    (!change.is_empty()).then_some(change)
}

/// Takes the mark of our cordon off a node that somebody has uncordoned after its reboot: that stands, and
/// who cordons it from then on is somebody else, whose cordon is not ours to lift.
pub fn was_lifted(node: &NodeView, me: &OpRef) -> Option<Action> {
    let stale = !node.unschedulable && node.cordoned_by.as_ref() == Some(me);
    stale.then(|| Action::patch_node(node, NodeChange { cordoned_by: Some(None), ..NodeChange::default() }))
}

/// Why a node on which the operation is done stays cordoned, if nothing on it says who did that: a person before
/// the operation came, an older version of the Go operator, or the operation itself, and somebody took its
/// mark off.
pub fn stays(node: &NodeView) -> Option<String> {
    let nobody = node.unschedulable && node.cordoned_by.is_none() && node.kept_cordon.is_none();
    let name = &node.name;
    nobody.then(|| {
        format!(
            "it stays cordoned, since nothing on it says by whom: kubectl uncordon {name}, if that is to end"
        )
    })
}

/// Whether the node is cordoned still because it failed under this NodeOp, and nobody has lifted that.
pub fn is_kept_by(node: &NodeView, me: &OpRef) -> bool {
    node.unschedulable && node.kept_cordon.as_ref().is_some_and(|kept| kept.by == *me)
}

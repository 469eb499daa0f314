//! Who owns a node's cordon and claim, and the one patch that takes or gives back both.
//!
//! A cordon is ours only if the annotation names our very NodeOp. Whoever else made the node unschedulable keeps it so,
//! and a human who uncordons after the reboot wins. A cordon that a *finished* NodeOp left on a failed node is inherited
//! with the claim, so that the NodeOp which repairs the node also ends its cordon.

use crate::plan::model::{
    action::NodeChange,
    id::OpRef,
    question::Question,
    snapshot::{NodeView, Snapshot},
};

/// What an annotation's owner is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
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
pub fn owner(s: &Snapshot, me: &OpRef, of: &OpRef) -> Owner {
    if of == me {
        return Owner::Ours;
    }
    match s.op(of) {
        Some(op) if op.status.as_ref().and_then(|st| st.phase).is_some_and(|p| p.is_final()) => Owner::Over,
        Some(_) => Owner::Live,
        None if s.is_gone(&Question::Op(of.clone())) => Owner::Over,
        None => Owner::Unknown,
    }
}

/// The same as far as this node goes: a NodeOp that waits for somebody to repair the node is over there.
fn owner_here(s: &Snapshot, node: &NodeView, me: &OpRef, of: &OpRef) -> Owner {
    let entry = s.op(of).and_then(|op| op.status.as_ref()).and_then(|status| status.node_statuses.get(&node.name));
    let done = entry.is_some_and(|entry| entry.phase.is_final() && entry.node_uid.is_none());
    match owner(s, me, of) {
        Owner::Live if done => Owner::Over,
        other => other,
    }
}

/// What taking a node comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Take {
    /// It is claimed, and cordoned if that was asked.
    Held,
    /// This patch takes it.
    Patch(NodeChange),
    /// This has to be known first.
    Ask(Question),
    /// Somebody else has it in hand.
    Taken(OpRef),
}

/// Claims `node` for `me`, and cordons it if `cordon`. A claim whose owner is over is not jumped: its waiter may still
/// have to end, and [`super::release`] is at it.
pub fn take(s: &Snapshot, node: &NodeView, me: &OpRef, cordon: bool) -> Take {
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
        match node.cordoned_by.as_ref().map(|of| (of, owner_here(s, node, me, of))) {
            Some((of, Owner::Unknown)) => return Take::Ask(Question::Op(of.clone())),
            Some((_, Owner::Over)) => change.cordoned_by = Some(Some(me.clone())),
            Some((_, Owner::Ours | Owner::Live)) | None => {}
        }
    }
    if change.is_empty() { Take::Held } else { Take::Patch(change) }
}

/// Gives back what `me` holds of `node`: the claim, and with `uncordon` the cordon. `None`: it holds nothing.
pub fn give_back(node: &NodeView, me: &OpRef, uncordon: bool) -> Option<NodeChange> {
    let mut change = NodeChange::default();
    if node.claimed_by.as_ref() == Some(me) {
        change.claimed_by = Some(None);
    }
    if node.cordoned_by.as_ref() == Some(me) {
        if !node.unschedulable {
            // Somebody uncordoned it meanwhile: the annotation is stale, and nothing else is left to undo.
            change.cordoned_by = Some(None);
        } else if uncordon {
            change.unschedulable = Some(false);
            change.cordoned_by = Some(None);
        }
    }
    (!change.is_empty()).then_some(change)
}

//! Who has something of a node to give back, with all that decides about it, found once.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::remnant::{self, Remnant};
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    plan::{
        model::{
            failing,
            id::OpRef,
            question::Question,
            snapshot::{NodeView, Snapshot},
        },
        node::legacy,
    },
};

/// A NodeOp that has something of a node to give back, and does not work on the node.
#[derive(Debug)]
pub struct Claimant<'a> {
    pub id: &'a OpRef,
    pub whose: Whose,
    /// Whether it has claimed the node, and not only left something there.
    pub has_claimed: bool,
    /// What can still act on the node for it.
    pub remnants: Vec<Remnant<'a>>,
    /// A change of the node failed a moment ago.
    pub is_paused: bool,
}

/// What is known of a NodeOp that a node names.
#[derive(Debug)]
pub enum Whose {
    /// A cache shows it.
    Known(Box<Known>),
    /// A live read says that it is gone.
    Gone,
    /// No cache shows it, and nobody has looked.
    Unknown,
}

/// A NodeOp, and what it says of the node.
#[derive(Debug)]
pub struct Known {
    pub op: Arc<NodeOp>,
    pub entry: Option<NodeStatus>,
    /// Since when the node is completed, if it is.
    pub completed: Option<Timestamp>,
    /// A live read has confirmed what the cache shows of it.
    pub is_read_live: bool,
}

impl Known {
    /// Whether nothing more becomes of the node.
    pub fn is_final(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.phase.is_final())
    }
}

/// All that have something of the node to give back, but for those that work on it or have not begun at all.
/// What a finished NodeOp left cordoned, or told autoscalers and load balancers, belongs to the one that has
/// claimed the node, for as long as it has.
pub fn find<'a>(snapshot: &'a Snapshot, node: &'a NodeView) -> Vec<Claimant<'a>> {
    let claim = node.claimed_by.as_ref();
    let named = node.claimants().into_iter().filter(|id| claim.is_none_or(|claim| claim == *id));
    named.filter_map(|id| claimant(snapshot, node, id)).collect()
}

fn claimant<'a>(snapshot: &'a Snapshot, node: &'a NodeView, id: &'a OpRef) -> Option<Claimant<'a>> {
    let has_claimed = node.claimed_by.as_ref() == Some(id);
    let whose = match snapshot.op(id) {
        Some(op) => Whose::Known(known(snapshot, node, id, op)?.into()),
        None if snapshot.is_gone(&Question::Op(id.clone())) => Whose::Gone,
        None => Whose::Unknown,
    };
    let remnants = match &whose {
        Whose::Known(known) if has_claimed => remnant::find(snapshot, node, id, known.entry.as_ref()),
        Whose::Gone => remnant::find(snapshot, node, id, None),
        Whose::Known(_) | Whose::Unknown => Vec::new(),
    };
    Some(Claimant { id, whose, has_claimed, remnants, is_paused: failing::change_is_paused(snapshot, node) })
}

/// What is known of the NodeOp, unless it works on the node or has no record of its nodes yet.
fn known(snapshot: &Snapshot, node: &NodeView, id: &OpRef, op: Arc<NodeOp>) -> Option<Known> {
    let status = op.status.as_ref()?;
    let entry = status.node_statuses.get(&node.name);
    if is_worked_on(status, entry) {
        return None;
    }
    let done = entry.filter(|entry| entry.phase == Phase::Completed);
    let completed = done.map(|entry| entry.last_updated.as_ref().map_or(snapshot.now, |time| time.0));
    let is_read_live = snapshot.answer(&Question::Op(id.clone())).is_some();
    let entry = entry.cloned();
    Some(Known { op, entry, completed, is_read_live })
}

fn is_worked_on(status: &NodeOpStatus, entry: Option<&NodeStatus>) -> bool {
    legacy::is_to_be_adopted(status) || entry.is_some_and(|entry| entry.phase == Phase::Running)
}

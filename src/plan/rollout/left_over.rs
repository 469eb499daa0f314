//! What earlier upgrades left: nodes on which one failed, and that are cordoned for it still; and nodes that
//! went down soon after one was done with them, until they have been Ready for a while.
//!
//! A changed upgrade is a run of its own, and one that is created under another name an upgrade of its own,
//! with slots of its own. But whoever allows one node to be down at a time means the upgrade of the nodes,
//! however often it is changed, or made again with the next release in its name. So such a node holds a slot
//! of the new run. It is the first to be taken, and takes the slot that it holds, since it is down already:
//! the new image may be what helps it. One that another upgrade left keeps no control-plane node waiting.

use std::{cell::LazyCell, collections::BTreeMap};

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::Phase,
        owner,
    },
    plan::{
        attempts,
        model::{
            kept_cordon::KeptCordon,
            snapshot::{NodeClass, NodeView, Snapshot},
        },
        node::context::Op,
        quorum::READY_FOR,
        rollout::out_of_service::OutOfService,
    },
};

/// A node that an earlier upgrade left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    pub why: OutOfService,
    /// It is still to be taken, and can be.
    pub is_next: bool,
}

/// Whose NodeOp failed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    ByThisUpgrade,
    ByAnother,
}

/// Those of the NodeOp's nodes, by name, that it does not work on.
pub fn find(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> BTreeMap<String, LeftOver> {
    let Some(uid) = owner::upgrade_uid(&op.object.metadata).filter(|_| !op.deleting) else {
        return BTreeMap::new();
    };
    let any_come = LazyCell::new(|| {
        nodes.marked([Mark::Pending, Mark::Preflight]).any(|(name, _)| snapshot.is_control_plane_named(name))
    });
    let kept = snapshot.nodes.that_are(NodeClass::Marked).filter_map(|node| {
        let kept = node.kept_cordon.as_ref().filter(|kept| node.unschedulable && kept.by != op.id)?;
        let phase =
            nodes.get(&node.name).map(|entry| entry.phase).filter(|phase| *phase != Phase::Running)?;
        // Control-plane nodes go first, and would wait for it: whoever creates the upgrade that helps is not
        // to uncordon it before.
        if made(snapshot, node, kept, uid)? == Made::ByAnother
            && !snapshot.is_control_plane(node)
            && *any_come
        {
            return None;
        }
        let why = OutOfService::LeftBefore { node: node.name.clone(), op: kept.by.name.clone() };
        Some((node.name.clone(), LeftOver { why, is_next: node.is_fit() && !phase.is_final() }))
    });
    let down = snapshot.nodes.that_are(NodeClass::NotReady);
    let down = down.map(|node| (&**node, OutOfService::WentDown(node.name.clone())));
    let waited = op.intent.min_ready.max(READY_FOR);
    let back = snapshot
        .back_lately(waited)
        .map(|(node, since)| (node, OutOfService::ReadySince { node: node.name.clone(), since, waited }));
    let went = down.chain(back).filter_map(|(node, why)| {
        nodes.get(&node.name).filter(|entry| entry.phase != Phase::Running)?;
        attempts::went_down(snapshot, node).then(|| (node.name.clone(), LeftOver { why, is_next: false }))
    });
    went.chain(kept).collect()
}

/// Which upgrade made the NodeOp that failed on the node, if one did. Where that is gone, the node itself
/// says which upgrades have tried it.
fn made(snapshot: &Snapshot, node: &NodeView, kept: &KeptCordon, upgrade: &str) -> Option<Made> {
    let this = match snapshot.op(&kept.by) {
        Some(op) => owner::upgrade_uid(&op.metadata)? == upgrade,
        None => attempts::has_tried(node, upgrade)?,
    };
    Some(if this { Made::ByThisUpgrade } else { Made::ByAnother })
}

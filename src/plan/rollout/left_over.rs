//! What earlier upgrades left: nodes on which one failed, and that are cordoned for it still; and nodes that
//! went down soon after one was done with them.
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
        let by_another = made(snapshot, node, kept, uid)? == Made::ByAnother;
        // Control-plane nodes go first, and would wait for it: whoever creates the upgrade that helps is not
        // to uncordon it before.
        if by_another && !snapshot.is_control_plane(node) && *any_come {
            return None;
        }
        let why = OutOfService::LeftBefore { node: node.name.clone(), op: kept.by.name.clone() };
        Some((node.name.clone(), LeftOver { why, is_next: node.is_fit() && !phase.is_final() }))
    });
    let down = snapshot.nodes.that_are(NodeClass::NotReady).filter(|node| {
        let entry = nodes.get(&node.name);
        entry.is_some_and(|entry| entry.phase != Phase::Running) && attempts::went_down(snapshot, node)
    });
    let down = down.map(|node| {
        let why = OutOfService::WentDown(node.name.clone());
        (node.name.clone(), LeftOver { why, is_next: false })
    });
    down.chain(kept).collect()
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

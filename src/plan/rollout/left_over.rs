//! What earlier upgrades left: nodes on which one failed, and that are cordoned for it still; and nodes that
//! went down soon after one was done with them.
//!
//! A changed upgrade is a run of its own, and one that is created under another name an upgrade of its own,
//! with slots of its own. But whoever allows one node to be down at a time means the upgrade of the nodes,
//! however often it is changed, or made again with the next release in its name. So such a node holds a slot
//! of the new run. It is the first to be taken, and takes the slot that it holds, since it is down already:
//! the new image may be what helps it.

use std::collections::BTreeMap;

use super::slots::OutOfService;
use crate::{
    api::{names, node_statuses::NodeStatuses, nodeop::Phase, owner},
    plan::{
        attempts,
        model::{
            kept_cordon::KeptCordon,
            snapshot::{NodeView, Snapshot, Standing},
        },
        node::context::Op,
    },
};

/// A node that an earlier upgrade left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    pub why: OutOfService,
    /// It is still to be taken, and can be.
    pub is_next: bool,
}

/// Those of the NodeOp's nodes, by name, that it does not work on.
pub fn find(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> BTreeMap<String, LeftOver> {
    if op.deleting || owner::upgrade_uid(&op.object.metadata).is_none() {
        return BTreeMap::new();
    }
    let kept = snapshot.nodes.that_are(Standing::Held).filter_map(|node| {
        let kept = node.kept_cordon.as_ref().filter(|kept| node.unschedulable && kept.by != op.id)?;
        let phase =
            nodes.get(&node.name).map(|entry| entry.phase).filter(|phase| *phase != Phase::Running)?;
        let why = OutOfService::LeftBefore { node: node.name.clone(), op: kept.by.name.clone() };
        let can_be = node.ready && !node.deleting && !node.labels.on_hold();
        let left = LeftOver { why, is_next: can_be && !phase.is_final() };
        is_of_upgrade(snapshot, node, kept).then(|| (node.name.clone(), left))
    });
    let down = snapshot.nodes.that_are(Standing::Away).filter(|node| {
        let entry = nodes.get(&node.name);
        entry.is_some_and(|entry| entry.phase != Phase::Running) && attempts::went_down(node)
    });
    let down = down.map(|node| {
        let why = OutOfService::WentDown(node.name.clone());
        (node.name.clone(), LeftOver { why, is_next: false })
    });
    down.chain(kept).collect()
}

/// Whether an upgrade made the NodeOp that failed on the node. Where that is gone, the node itself says whether
/// upgrades have tried it.
fn is_of_upgrade(snapshot: &Snapshot, node: &NodeView, kept: &KeptCordon) -> bool {
    match snapshot.op(&kept.by) {
        Some(op) => owner::upgrade_uid(&op.metadata).is_some(),
        None => node.annotations.contains_key(names::ATTEMPTED),
    }
}

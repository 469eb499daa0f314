//! Which upgrade made a NodeOp, and whether it has recorded it.

use std::sync::Arc;

use crate::{
    api::{
        nodeop::NodeOp,
        owner,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    plan::model::snapshot::Snapshot,
};

/// The NodeOpUpgrade that made a NodeOp, if it is there.
pub fn maker<'a>(snapshot: &'a Snapshot, op: &NodeOp) -> Option<&'a Arc<NodeOpUpgrade>> {
    let owner = owner::upgrade(&op.metadata)?;
    let key = (op.metadata.namespace.clone().unwrap_or_default(), owner.name.clone());
    snapshot.upgrades.get(&key).filter(|upgrade| upgrade.metadata.uid.as_ref() == Some(&owner.uid))
}

/// Whether it is this NodeOp that the upgrade has recorded as that of its present run.
pub fn is_recorded(status: Option<&NodeOpUpgradeStatus>, op: &NodeOp) -> bool {
    let recorded = status.and_then(|status| status.node_op_uid.as_ref());
    recorded.is_some() && recorded == op.metadata.uid.as_ref()
}

/// Whether a NodeOp may start: one that a NodeOpUpgrade controls waits until that one's status names it.
pub fn may_start(upgrade: Option<&NodeOpUpgrade>, op: &NodeOp) -> bool {
    owner::upgrade_uid(&op.metadata).is_none()
        || upgrade.is_some_and(|upgrade| is_recorded(upgrade.status.as_ref(), op))
}

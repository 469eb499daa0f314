//! A run that takes no further node, because the NodeOpUpgrade that made it asks for another one by now.
//!
//! That is seen from the two objects, and nothing is written to the NodeOp for it: an edit that is taken back
//! while nodes are still in progress has done nothing.

use crate::{
    api::{
        child,
        nodeop::NodeOp,
        run::{self, Run},
        upgrade::NodeOpUpgrade,
    },
    plan::upgrades::maker::is_recorded,
};

/// The name of the upgrade that made a NodeOp, if it asks for another run.
pub fn superseded(upgrade: &NodeOpUpgrade, op: &NodeOp) -> Option<String> {
    if upgrade.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let hash = hash_of(upgrade, op)?;
    let asked = run::hash(&child::spec(&upgrade.spec));
    let name = upgrade.metadata.name.clone().unwrap_or_default();
    (hash != asked).then_some(name)
}

/// The hash of the run that a NodeOp is, if it can be compared with what the upgrade asks for. An upgrade
/// that was seen last before the run was decided on says nothing about it: a cache may be late.
fn hash_of(upgrade: &NodeOpUpgrade, op: &NodeOp) -> Option<String> {
    let status = upgrade.status.as_ref();
    if is_recorded(status, op) {
        return status.and_then(|status| status.run.clone());
    }
    let decided = Run::of(&op.metadata)?;
    (Some(decided.generation) <= upgrade.metadata.generation).then_some(decided.hash)
}

//! The NodeOp that the Go operator made for a NodeOpUpgrade. It runs a command of that operator's: what that
//! brings nobody can prove, it takes two releases that it does not know for one, and nothing keeps it from
//! running twice. So it takes no further node. Those that it had not begun are a round of the run, by a NodeOp
//! of ours, and no node that it has had is in it: it may have run there, also with `force`.

use crate::api::{
    nodeop::{MAX_NODE_NAMES, NodeOp, NodeOpSpec},
    owner, run,
};

/// The name of the upgrade for which the Go operator made a NodeOp, if it did.
pub fn upgrade_of(op: &NodeOp) -> Option<&str> {
    let upgrade = owner::upgrade(&op.metadata)?;
    // Of one that is over a cache may keep neither.
    (op.spec.upgrade.is_none() && op.spec.command.is_some()).then_some(upgrade.name.as_str())
}

/// Whether an upgrade whose NodeOp would be `asked` still says what the Go operator copied of it into this one:
/// it did nothing about an edit.
pub fn is_as_asked(child: &NodeOpSpec, asked: &NodeOpSpec) -> bool {
    let copied = |spec: &NodeOpSpec| {
        let copied = NodeOpSpec {
            image: spec.image.clone(),
            image_pull_secrets: spec.image_pull_secrets.clone(),
            node_selector: spec.node_selector.clone(),
            ..NodeOpSpec::default()
        };
        (run::hash(&copied), spec.reboot_on_success.unwrap_or(false))
    };
    copied(child) == copied(asked)
}

/// The nodes that such a NodeOp, which is over, has left. `Err`: they are more than another one can name.
pub fn left(child: &NodeOp) -> Result<Vec<String>, usize> {
    let entries = child.status.iter().flat_map(|status| &status.node_statuses);
    let left: Vec<String> =
        entries.filter(|(_, entry)| !entry.phase.is_final()).map(|(name, _)| name.clone()).collect();
    if left.len() > MAX_NODE_NAMES { Err(left.len()) } else { Ok(left) }
}

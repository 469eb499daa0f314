//! The NodeOp that the Go operator made for a NodeOpUpgrade. It runs a command of that operator's: what that
//! brings nobody can prove, it takes two releases that it does not know for one, and nothing keeps it from
//! running twice. So it takes no further node. Those that it had not begun are a round of the run, by a
//! NodeOp of ours, and no node that it has had is in it: it may have run there, also with `force`.

use crate::{
    api::{
        child,
        nodeop::{MAX_NODE_NAMES, NodeOp, NodeOpSpec, Phase},
        owner, run,
        text::listed,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec, NodeOpUpgradeStatus, RunResult, UpgradePhase},
    },
    plan::{
        model::snapshot::Snapshot,
        upgrades::{copy::copy, follow::sentence},
    },
};

/// The name of the upgrade for which the Go operator made a NodeOp, if it did.
pub fn upgrade_of(op: &NodeOp) -> Option<&str> {
    let upgrade = owner::upgrade(&op.metadata)?;
    // Of one that is over a cache may keep neither.
    (op.spec.upgrade.is_none() && op.spec.command.is_some()).then_some(upgrade.name.as_str())
}

/// Whether it has ended in the hands of the Go operator, which had not to be taken over any more.
pub fn has_ended(child: &NodeOp) -> bool {
    child.status.as_ref().is_some_and(|status| status.is_legacy() && status.is_over())
}

/// Shows in the status of its upgrade what such a NodeOp says, which has ended.
pub fn show(status: &mut NodeOpUpgradeStatus, child: &NodeOp) {
    let before = status.phase;
    copy(status, child);
    if status.phase != before {
        status.message = child.status.as_ref().map(|shown| sentence(shown.phase, ""));
    }
}

/// What came of it.
pub fn result(child: &NodeOp) -> RunResult {
    let phase = child.status.as_ref().and_then(|status| status.phase);
    if phase == Some(Phase::Completed) { RunResult::Completed } else { RunResult::Failed }
}

/// Whether an upgrade still says what the Go operator has copied of it into such a NodeOp. It did nothing
/// about an edit.
pub fn is_as_asked(child: &NodeOp, upgrade: &NodeOpUpgradeSpec) -> bool {
    let copied = |spec: &NodeOpSpec| {
        let copied = NodeOpSpec {
            image: spec.image.clone(),
            image_pull_secrets: spec.image_pull_secrets.clone(),
            node_selector: spec.node_selector.clone(),
            ..NodeOpSpec::default()
        };
        (run::hash(&copied), spec.reboot_on_success.unwrap_or(false))
    };
    copied(&child.spec) == copied(&child::spec(upgrade))
}

/// What is to be said of an upgrade that was edited under the Go operator, whose NodeOp has ended.
pub fn never_run(child: &NodeOp, upgrade: &NodeOpUpgradeSpec) -> Option<String> {
    let image = child.spec.image.as_deref().unwrap_or_default();
    (!is_as_asked(child, upgrade)).then(|| {
        format!(
            "Upgrade operation failed: an older operator ran {image}, the spec was edited after that, and what it asks for now \
             was never run: change it once more, or create the upgrade again, to have it run"
        )
    })
}

/// What is to be said of an upgrade that the Go operator has called completed though it had not begun a node:
/// it called complete what was, whether or not the next one could be begun. A node that matched later it
/// would have taken, too; but no older operation takes one that joins.
pub fn left_out(
    snapshot: &Snapshot,
    upgrade: &NodeOpUpgrade,
    status: &NodeOpUpgradeStatus,
) -> Option<String> {
    let (made, nodes) = (upgrade.metadata.creation_timestamp.as_ref()?.0, &status.node_statuses);
    if status.phase != Some(UpgradePhase::Completed) || nodes.is_empty() {
        return None;
    }
    let asked = child::first(upgrade);
    let left =
        snapshot.matching(&asked).filter(|node| node.created <= made && !nodes.contains_key(&node.name));
    let left: Vec<&str> = left.map(|node| node.name.as_str()).collect();
    (!left.is_empty()).then(|| {
        format!(
            "Upgrade operation failed: an older operator called it completed, and never began {}: change the upgrade, or create \
             it again, to have them taken",
            listed(&left)
        )
    })
}

/// The nodes that such a NodeOp, which is over, has left. `Err`: they are more than another one can name.
pub fn left(child: &NodeOp) -> Result<Vec<String>, usize> {
    let entries = child.status.iter().flat_map(|status| &status.node_statuses);
    let left: Vec<String> =
        entries.filter(|(_, entry)| !entry.phase.is_final()).map(|(name, _)| name.clone()).collect();
    if left.len() > MAX_NODE_NAMES { Err(left.len()) } else { Ok(left) }
}

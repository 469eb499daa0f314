//! The status of a NodeOpUpgrade: what it says of itself where there is no NodeOp to copy it from, and when
//! it is worth a write.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use crate::{
    api::{
        names::reason,
        node_statuses::Change,
        nodeop::NodeStatus,
        upgrade::{EarlierRun, NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        conditions::{self, Moment, Standing},
        model::{action::Action, effects::Effects, snapshot::Snapshot, time::Pace},
        upgrades::history,
    },
};

/// Between two writes that only follow the nodes' steps and messages; the NodeOp itself shows them at once.
const DETAILS_EVERY: Pace = Pace(SignedDuration::from_secs(5));

/// The status as it is, for the spec as it is.
pub fn base(upgrade: &NodeOpUpgrade) -> NodeOpUpgradeStatus {
    let mut status = upgrade.status.clone().unwrap_or_default();
    status.observed_generation = upgrade.metadata.generation;
    status.history = history::trimmed(status.history, upgrade.spec.kept_runs());
    status.node_op_name = status.node_op_name.or_else(|| upgrade.metadata.name.clone());
    status
}

/// Writes what there is to say without a NodeOp to copy it from.
pub fn say(
    snapshot: &Snapshot,
    upgrade: &Arc<NodeOpUpgrade>,
    mut status: NodeOpUpgradeStatus,
    reason: &'static str,
    why: String,
) -> Effects {
    let phase = if reason == reason::FAILED { UpgradePhase::Failed } else { UpgradePhase::Initializing };
    (status.phase, status.message) = (Some(phase), Some(why));
    own_conditions(snapshot, &mut status, reason);
    write(snapshot, upgrade, status)
}

/// An upgrade that is over, and of whose spec nothing was changed by which it would run again.
pub fn write_finished(
    snapshot: &Snapshot,
    upgrade: &Arc<NodeOpUpgrade>,
    mut status: NodeOpUpgradeStatus,
) -> Effects {
    // The Go operator wrote none.
    complete_conditions(snapshot, &mut status);
    let generation = status.observed_generation;
    status.conditions.iter_mut().for_each(|condition| condition.observed_generation = generation);
    write(snapshot, upgrade, status)
}

/// Writes the status if it differs: at once if a phase or a condition changed, else at most every few
/// seconds.
pub fn write(snapshot: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, mut status: NodeOpUpgradeStatus) -> Effects {
    let old = upgrade.status.as_ref();
    if old == Some(&status) {
        return Effects::default();
    }
    let urgent = old.is_none_or(|old| shown(old) != shown(&status) || differ_in_phases(old, &status));
    let last = old.and_then(|old| old.last_updated.as_ref());
    if let Some(at) = DETAILS_EVERY.waits(last, snapshot.now).filter(|_| !urgent) {
        return Effects::wake_at(at);
    }
    let was_over =
        old.is_some_and(|old| old.phase == status.phase) && status.phase.is_some_and(UpgradePhase::is_final);
    // When it was over is what the stamp says of one that is over.
    if !was_over {
        status.last_updated = Some(Time(snapshot.now));
    }
    let before = old.map_or((None, [].as_slice()), |old| (old.phase, old.conditions.as_slice()));
    let notices = conditions::notice(
        before,
        (status.phase, &status.conditions),
        status.message.as_deref().unwrap_or_default(),
    );
    let notices = notices.into_iter().collect();
    Action::PatchUpgradeStatus { upgrade: upgrade.clone(), status: Box::new(status), notices }.into()
}

/// What is shown at once, as the phases of the nodes are: the upgrade's own phase, what the conditions say
/// besides their messages, and of which run and spec all of that is said.
#[derive(PartialEq)]
struct Shown<'a> {
    phase: Option<UpgradePhase>,
    generation: Option<i64>,
    node_op: [Option<&'a String>; 2],
    run: Option<&'a String>,
    history: &'a [EarlierRun],
    /// Type, status and reason.
    conditions: Vec<[&'a str; 3]>,
}

fn shown(status: &NodeOpUpgradeStatus) -> Shown<'_> {
    let conditions =
        status.conditions.iter().map(|condition| [&*condition.type_, &*condition.status, &*condition.reason]);
    Shown {
        phase: status.phase,
        generation: status.observed_generation,
        node_op: [status.node_op_name.as_ref(), status.node_op_uid.as_ref()],
        run: status.run.as_ref(),
        history: &status.history,
        conditions: conditions.collect(),
    }
}

/// Whether a node is in another phase, or is there in one of the two alone.
fn differ_in_phases(old: &NodeOpUpgradeStatus, new: &NodeOpUpgradeStatus) -> bool {
    let phase = |entry: Option<&NodeStatus>| entry.map(|entry| entry.phase);
    let mut changes = new.node_statuses.changes(&old.node_statuses);
    changes.any(|Change { old, new, .. }| phase(old) != phase(new))
}

/// Sets the conditions of an upgrade that has no NodeOp to copy them from.
pub fn own_conditions(snapshot: &Snapshot, status: &mut NodeOpUpgradeStatus, reason: &'static str) {
    let blocked =
        reason == reason::BLOCKED && conditions::is_blocked_for_long(&status.conditions, snapshot.now);
    let standing = match reason {
        reason::FAILED => Standing::Failed,
        _ => Standing::Open { reason, stalled: blocked || reason == reason::NAME_TAKEN },
    };
    set(snapshot, status, standing);
}

/// Conditions of an upgrade that is over and has none.
pub fn complete_conditions(snapshot: &Snapshot, status: &mut NodeOpUpgradeStatus) {
    let standing = match status.phase {
        Some(UpgradePhase::Completed) => Standing::Completed,
        Some(UpgradePhase::Failed) => Standing::Failed,
        Some(UpgradePhase::Initializing | UpgradePhase::Pending | UpgradePhase::Running) | None => return,
    };
    if status.conditions.is_empty() {
        set(snapshot, status, standing);
    }
}

fn set(snapshot: &Snapshot, status: &mut NodeOpUpgradeStatus, standing: Standing) {
    let at = Moment { generation: status.observed_generation, now: snapshot.now };
    conditions::set(&mut status.conditions, standing, status.message.as_deref().unwrap_or_default(), at);
}

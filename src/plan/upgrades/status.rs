//! The status of a NodeOpUpgrade: what it says of itself where there is no NodeOp to copy it from, and when
//! it is worth a write.

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{
        names::reason,
        node_statuses::{Change, NodeStatuses},
        nodeop::{NodeStatus, Phase},
        upgrade::{EarlierRun, NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        conditions::{self, Moment, Standing},
        model::{action::Action, effects::Effects, snapshot::Snapshot, time::Pace},
        upgrades::history,
    },
};

/// How long the numbers of nodes may lag behind those of the NodeOp, which shows them at once, if nothing else is
/// written meanwhile: a node that is done and the next one that is taken instead take one write.
const COUNTS_WITHIN: Pace = Pace(SignedDuration::from_secs(2));
/// How long anything else may lag that is said of the whole, above all the sentence that says what it waits for.
const WHOLE_WITHIN: Pace = Pace(SignedDuration::from_secs(5));
/// Of no more nodes than this nothing lags longer: people watch each step of each node, and a write is small.
const FEW_NODES: usize = 10;
/// How long the step and the message of a node that is worked on may lag, if there are more.
const STEPS_WITHIN: Pace = Pace(SignedDuration::from_secs(30));
/// How long it may lag what nodes say that wait, or are looked at ahead of their turn.
const WAITING_WITHIN: Pace = Pace(SignedDuration::from_secs(120));

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

/// Writes the status if it differs: at once if what is shown of the whole changed or a node failed, else after
/// a while.
pub fn write(snapshot: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, mut status: NodeOpUpgradeStatus) -> Effects {
    let old = upgrade.status.as_ref();
    if old == Some(&status) {
        return Effects::default();
    }
    if let Some(old) = old.filter(|old| shown(old) == shown(&status))
        && let Some(at) = due(old, &status, snapshot.now)
    {
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

/// When a status is written of which nothing is shown at once, if that is still to come: after the last write,
/// and after the first of the nodes came to where it is to be shown. What follows in the time that it waits
/// takes no write of its own.
fn due(old: &NodeOpUpgradeStatus, new: &NodeOpUpgradeStatus, now: Timestamp) -> Option<Timestamp> {
    let is_counted = |change: &Change<'_>| counted(change.old) != counted(change.new);
    let is_working = |change: &Change<'_>| counted(change.new) != Some(Phase::Pending);
    let changes = || new.node_statuses.changes(&old.node_statuses);
    let (counts, works) = (old.counts != new.counts, changes().any(|change| is_working(&change)));
    let pace = match (counts, without_nodes(old) != without_nodes(new), works) {
        (true, _, _) => COUNTS_WITHIN,
        (false, true, _) => WHOLE_WITHIN,
        (false, false, _) if new.node_statuses.len() <= FEW_NODES => WHOLE_WITHIN,
        (false, false, true) => STEPS_WITHIN,
        (false, false, false) => WAITING_WITHIN,
    };
    let shown = changes().filter(|change| if counts { is_counted(change) } else { is_working(change) });
    let since = shown.filter_map(|change| change.new?.last_updated.as_ref()).min();
    pace.waits(since.max(old.last_updated.as_ref()), now)
}

fn without_nodes(status: &NodeOpUpgradeStatus) -> NodeOpUpgradeStatus {
    NodeOpUpgradeStatus { node_statuses: NodeStatuses::default(), ..status.clone() }
}

/// As what a node is counted: one that is looked at ahead of its turn waits.
fn counted(entry: Option<&NodeStatus>) -> Option<Phase> {
    match entry?.phase {
        Phase::Preflight => Some(Phase::Pending),
        phase => Some(phase),
    }
}

/// What is shown at once: the upgrade's own phase, how many nodes failed, what the conditions say besides their
/// messages, and of which run and spec all of that is said.
#[derive(PartialEq)]
struct Shown<'a> {
    phase: Option<UpgradePhase>,
    generation: Option<i64>,
    node_op: [Option<&'a String>; 2],
    run: Option<&'a String>,
    history: &'a [EarlierRun],
    failed: Option<i32>,
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
        failed: status.counts.as_ref().map(|counts| counts.failed),
        conditions: conditions.collect(),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(1_000_000 + second).unwrap())
    }

    /// After how many seconds the upgrade shows that a node went on to step Job, one second after its last write.
    fn shows_step_after(nodes: usize) -> i64 {
        let of = |step: &str, since: i64| {
            let mut entries: serde_json::Map<_, _> =
                (1..nodes).map(|n| (format!("n{n}"), json!({"phase": "Pending"}))).collect();
            let works = json!({"phase": "Running", "step": step, "lastUpdated": at(since)});
            entries.insert("n0".into(), works);
            json!({"phase": "Running", "nodeStatuses": entries, "lastUpdated": at(0)})
        };
        let old: NodeOpUpgradeStatus = serde_json::from_value(of("Drain", 0)).unwrap();
        let new: NodeOpUpgradeStatus = serde_json::from_value(of("Job", 1)).unwrap();
        due(&old, &new, at(1).0).map_or(0, |due| due.as_second() - at(1).0.as_second())
    }

    /// People watch the steps of a few nodes; of a fleet each step would be a write.
    #[test]
    fn steps_of_a_few_nodes_are_shown_within_seconds_and_of_a_fleet_within_half_a_minute() {
        assert_eq!([3, 10, 11, 1000].map(shows_step_after), [5, 5, 30, 30]);
    }
}

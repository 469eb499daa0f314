//! Earlier runs: what stands of them in status, and how long their NodeOps are kept.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        ended::ended,
        nodeop::NodeOp,
        run::Run,
        upgrade::{EarlierRun, NodeOpUpgrade, NodeOpUpgradeStatus, RunResult, UpgradePhase},
    },
    plan::{
        conditions,
        model::{action::Action, effects::Effects, id::OpRef},
        upgrades::{copy::copy, maker::is_recorded},
    },
};

/// What came of the run that this status shows, as of which it goes into the history.
pub fn entry(status: &NodeOpUpgradeStatus, node_op: String, result: RunResult) -> EarlierRun {
    let counts = status.counts.clone().unwrap_or_default();
    let by_conditions = ended(&status.conditions).map(Time);
    EarlierRun {
        node_op,
        image: status.image.clone(),
        result,
        finished_at: by_conditions.or_else(|| status.last_updated.clone()),
        done: counts.done,
        failed: counts.failed,
        skipped: counts.skipped,
    }
}

/// What came of the run of an earlier NodeOp, where the status that told of it was lost. Nothing of one that
/// never began.
pub fn entry_of(op: &NodeOp) -> Option<EarlierRun> {
    let shown = op.status.as_ref()?;
    let mut status = NodeOpUpgradeStatus {
        conditions: shown.conditions.clone(),
        last_updated: shown.last_updated.clone(),
        ..NodeOpUpgradeStatus::default()
    };
    copy(&mut status, op);
    Some(entry(&status, op.metadata.name.clone()?, result(&status)))
}

/// What came of the run that this status shows, which is over.
pub fn result(status: &NodeOpUpgradeStatus) -> RunResult {
    match status.phase {
        // It had done what it was to do before its nodes drifted.
        _ if conditions::is_drifted(&status.conditions) => RunResult::Completed,
        _ if conditions::is_superseded(&status.conditions) => RunResult::Superseded,
        _ if conditions::is_expired(&status.conditions) => RunResult::Expired,
        Some(UpgradePhase::Completed) => RunResult::Completed,
        _ => RunResult::Failed,
    }
}

/// The runs that are kept, of those that are told of with the latest first: the oldest goes first, and one
/// that failed goes after all others but the latest, since somebody may have still to look at it.
pub fn trimmed(mut history: Vec<EarlierRun>, limit: usize) -> Vec<EarlierRun> {
    while history.len() > limit {
        let (_, older) = history.split_at(1.min(limit));
        let good = older.iter().rposition(|run| run.result != RunResult::Failed && run.failed == 0);
        let at = good.map_or(history.len() - 1, |at| at + 1.min(limit));
        history.remove(at);
    }
    history
}

/// Deletes the NodeOps of earlier runs that are not kept: those that are over and have nothing to release,
/// and those that were announced and never begun. Only what is older than the present run is judged: a cache
/// may be late, and not show that a later one was recorded.
pub fn sweep(upgrade: &NodeOpUpgrade, made: &[&Arc<NodeOp>]) -> Effects {
    let status = upgrade.status.as_ref();
    let Some(present) = made.iter().find(|op| is_recorded(status, op)) else { return Effects::default() };
    let decided = |op: &NodeOp| Run::order(&op.metadata);
    let is_kept = |op: &NodeOp| {
        let name = op.metadata.name.as_deref();
        status.iter().flat_map(|status| &status.history).any(|run| Some(run.node_op.as_str()) == name)
    };
    let unwanted = made.iter().filter(|op| {
        decided(op) < decided(present)
            && is_idle(op)
            && !is_kept(op)
            && op.metadata.deletion_timestamp.is_none()
    });
    Effects::act(unwanted.map(|op| Action::DeleteOp { op: OpRef::of(op) }))
}

/// Whether nothing is going on for it, and nothing will.
fn is_idle(op: &NodeOp) -> bool {
    !op.has_our_finalizer() && (op.status.is_none() || op.is_over())
}

//! When a NodeOp starts nothing more, whatever slots are free: a node failed under `stopOnFailure`, its
//! upgrade asks for another run, its time is over, or the Go operator made it for an upgrade.

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        model::effects::Effects,
        node::context::Op,
        rollout::{context::RolloutContext, not_taken::Stopped},
        upgrades,
    },
};

/// Why nothing more is started, whatever slots are free.
pub fn why_stopped(ctx: &RolloutContext<'_>, nodes: &NodeStatuses) -> Option<Stopped> {
    let RolloutContext { snapshot, op, .. } = ctx;
    let superseded = || {
        let upgrade = upgrades::superseded(ctx.upgrade?, &op.object)?;
        Some(Stopped::Superseded { upgrade })
    };
    let expired = || op.intent.not_after.filter(|at| *at <= snapshot.now).map(Stopped::Expired);
    let older = || {
        let upgrade = upgrades::made_by_go_operator(&op.object)?.to_owned();
        Some(Stopped::Superseded { upgrade })
    };
    failed_under_stop_on_failure(op, nodes).or_else(superseded).or_else(expired).or_else(older)
}

/// When an operation that has nodes to take starts nothing more.
pub fn wake_at_expiry(op: &Op) -> Effects {
    op.intent.not_after.map(Effects::wake_at).unwrap_or_default()
}

/// Under `stopOnFailure`: a node failed, or what an upgraded one runs is not proved. A canary that proves
/// nothing has not passed. What a Job of the Go operator brought nobody can prove, so there the first node of
/// the NodeOp that follows is the canary.
pub fn failed_under_stop_on_failure(op: &Op, nodes: &NodeStatuses) -> Option<Stopped> {
    if !op.intent.stop_on_failure {
        return None;
    }
    if let Some((name, _)) = nodes.marked([Mark::Failed]).next() {
        return Some(Stopped::NodeFailed(name.clone()));
    }
    // A status of many nodes leaves out the name of our Job (`compact`), and never that of another.
    let of_ours =
        |name: &str, node: &NodeStatus| node.job_name.as_ref().is_none_or(|job| op.is_job_name(name, job));
    let unproved = |name: &str, node: &NodeStatus| node.phase == Phase::Completed && of_ours(name, node);
    let (name, _) = nodes.marked([Mark::Unproved]).find(|(name, node)| unproved(name, node))?;
    Some(Stopped::NodeNotProved(name.clone()))
}

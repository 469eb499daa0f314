//! One node that an operation works on: from its status and what the cluster shows to its next status, and
//! what to do for it.
//!
//! ```text
//!   Pending ─▶ Claim ─▶ Drain ─▶ Job ─▶ Reboot ─▶ Verify ─▶ Completed
//!                 └───────┴───────┴───────┴─────────┴──────▶ Failed
//! ```
//!
//! That is the outline; [`stage::TRANSITIONS`] is the whole table.
//!
//! Two rules make a crash harmless. A fact that an action relies on is in status before the action: the Job
//! is made *suspended* and may run only once its UID stands in status, so a Job that is missing then has run
//! or been deleted, and one that is missing before has never run. And every action is one that may be
//! repeated.

pub mod cancel;
mod claim;
pub mod context;
pub mod cordon;
pub mod drain;
#[cfg(test)]
mod fixtures;
mod give_up;
mod hold;
mod job;
pub mod legacy;
mod prepare;
mod reboot;
pub mod stage;
pub mod verify;
pub mod waiter;

use k8s_openapi::jiff::Timestamp;

use self::context::{Decision, Next, NodeContext, Op, Verdict, finish};
use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus, Step},
    plan::model::{
        action::Plan,
        question::Question,
        snapshot::{JobState, NodeView, Snapshot},
    },
};

/// Advances a node that is worked on.
pub fn advance(snapshot: &Snapshot, op: &Op, name: &str, status: &NodeStatus, plan: &mut Plan) -> Next {
    // Nothing is decided by the absence before that time, so nobody is asked whether it is one.
    if !snapshot.nodes.contains_key(name)
        && let Some(until) = awaited_until(snapshot, op, status)
    {
        plan.wake(until);
        return Next::Wait(format!(
            "the Node object was deleted while the node reboots; it may come back until {until:.0}"
        ));
    }
    let node = match snapshot.nodes.get(name) {
        Some(node) if status.node_uid.as_ref().is_none_or(|uid| *uid == node.uid) => node.clone(),
        Some(node)
            if snapshot.answer(&Question::Node(name.into())).is_some() && is_same_machine(status, node) =>
        {
            // Cloud controllers delete the Node of a machine that is away. It is back, under another UID.
            let status = NodeStatus { node_uid: Some(node.uid.clone()), ..status.clone() };
            return Next::Become(Box::new(status));
        }
        Some(node) if snapshot.answer(&Question::Node(name.into())).is_some() => {
            let why = "another machine has joined under the node's name while the operation worked on it";
            return lost(snapshot, op, name, node.ready, status, why, plan);
        }
        None if snapshot.is_gone(&Question::Node(name.into())) => {
            let why = "the node was deleted while the operation worked on it";
            return lost(snapshot, op, name, false, status, why, plan);
        }
        // A cache that is older than the status may show an earlier machine of that name.
        Some(_) | None => {
            plan.questions.insert(Question::Node(name.into()));
            return Next::Wait("checking whether the node still exists".into());
        }
    };
    // What a step wants done is its own until it has decided: who gives up does nothing else.
    let mut effects = Plan::default();
    let mut ctx = NodeContext { snapshot, op, node: &node, status, plan: &mut effects };
    let decided = match give_up::recorded(status) {
        Some(verdict) => give_up::carry_out(&mut ctx, &verdict),
        None => step(&mut ctx),
    };
    let decided = match decided {
        Decision::GiveUp(verdict) => give_up::begin(&mut ctx, verdict),
        decided => decided,
    };
    let next = match decided {
        Decision::Record(status) => Next::Become(legacy::remark(&ctx, status)),
        Decision::Wait(why) | Decision::GiveUp(Verdict { reason: why, untouched: _ }) => Next::Wait(why),
    };
    plan.absorb(effects);
    next
}

fn step(ctx: &mut NodeContext<'_>) -> Decision {
    match ctx.status.step {
        Some(Step::Claim) | None => claim::advance(ctx),
        Some(Step::Drain) => prepare::advance(ctx),
        Some(Step::Job) => job::advance(ctx),
        Some(Step::Reboot) => reboot::advance(ctx),
        Some(Step::Verify) => verify::advance(ctx),
        Some(Step::Preflight) => Decision::Wait("its preflight runs".into()),
    }
}

/// Whether a Node under another UID is the machine that was about to reboot: by its own id, which outlives
/// the Node object.
fn is_same_machine(status: &NodeStatus, node: &NodeView) -> bool {
    let reboots = matches!(status.step, Some(Step::Reboot | Step::Verify));
    reboots && !node.machine_id.is_empty() && status.machine_id.as_ref() == Some(&node.machine_id)
}

/// Until when a node whose object was deleted while it reboots may join again, if it may. A NodeOp that is
/// deleted meanwhile does not wait for it, unless it is of the control plane: nothing else would tell that
/// this machine is away.
fn awaited_until(snapshot: &Snapshot, op: &Op, status: &NodeStatus) -> Option<Timestamp> {
    let reboots = matches!(status.step, Some(Step::Reboot | Step::Verify))
        && status.machine_id.is_some()
        && (!op.deleting || status.control_plane == Some(true));
    let deadline = status.deadline.as_ref().map(|time| time.0)?;
    (reboots && snapshot.now < deadline).then_some(deadline)
}

/// The machine is gone. Its Job goes first: on another machine of the same name it would run again.
fn lost(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    ready: bool,
    status: &NodeStatus,
    message: &str,
    plan: &mut Plan,
) -> Next {
    if let Some(job) = &status.job_name
        && let Some(waiting) = cancel::job(snapshot, op, job, plan)
    {
        return Next::Wait(format!("{message}; {waiting}"));
    }
    let may_reboot = op.intent.reboot && status.job_uid.is_some();
    if may_reboot
        && let Some(waiting) = cancel::waiter(snapshot, op, name, ready, status.attempt.unwrap_or(0), plan)
    {
        return Next::Wait(format!("{message}; {waiting}"));
    }
    let job = context::recorded_job(snapshot, op, status);
    let succeeded = job.is_some_and(|job| job.state == JobState::Complete);
    let reboot = match status.step {
        _ if !op.intent.reboot => RebootStatus::NotRequested,
        Some(Step::Verify) => RebootStatus::Completed,
        // The machine may have rebooted, or may yet: nobody knows. Its waiter acts as soon as the Job is complete,
        // whether or not we have seen that.
        Some(Step::Reboot) => RebootStatus::Pending,
        Some(Step::Job) if succeeded => RebootStatus::Pending,
        _ => RebootStatus::Cancelled,
    };
    // Its claim and cordon went with it: nothing is to be given back.
    let status = NodeStatus { node_uid: None, ..status.clone() };
    finish(snapshot.now, &status, Phase::Failed, Some(reboot), message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::fixtures::{World, at};
    use crate::{
        api::nodeop::{NodeOp, Phase},
        plan::quorum,
    };

    /// A node reboots, its Node object is deleted meanwhile, and then its NodeOp is.
    fn deleted_while_the_node_is_away(control_plane: bool) -> World {
        let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju",
            "rebootStatus": "pending", "boot": "b1", "machineId": "m1", "controlPlane": control_plane,
            "deadline": Time(at(1800)), "lastUpdated": Time(at(0))});
        let mut world = World::new(entry);
        let mut op = NodeOp::clone(&world.snapshot.ops[&world.me.key()]);
        op.metadata.deletion_timestamp = Some(Time(at(10)));
        world.snapshot.ops.insert(world.me.key(), Arc::new(op));
        world.snapshot.nodes.clear();
        world
    }

    #[test]
    fn a_control_plane_machine_that_is_away_counts_also_if_its_nodeop_is_deleted() {
        let mut world = deleted_while_the_node_is_away(true);
        world.pass(20);
        assert_eq!(world.entry().phase, Phase::Running);
        assert_eq!(quorum::control_planes_under_way(&world.snapshot).len(), 1);
        world.pass(1801);
        assert_eq!(world.entry().phase, Phase::Failed, "it is not awaited for ever");
        let mut worker = deleted_while_the_node_is_away(false);
        worker.pass(20);
        assert_eq!(worker.entry().phase, Phase::Failed, "a worker is not awaited");
    }
}

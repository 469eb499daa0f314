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
pub mod failure;
#[cfg(test)]
mod fixtures;
pub mod give_up;
mod hold;
pub mod job;
pub mod legacy;
mod prepare;
mod reboot;
pub mod stage;
pub mod verify;
pub mod waiter;
pub mod waiting;

use k8s_openapi::jiff::Timestamp;

use self::{
    context::{Decision, Next, NodeContext, Op, finish},
    waiting::Waiting,
};
use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus, Step},
    plan::model::{
        effects::{Effects, Planned},
        question::Question,
        snapshot::{JobState, NodeView, Snapshot},
    },
};

/// Advances a node that is worked on.
pub fn advance(snapshot: &Snapshot, op: &Op, name: &str, status: &NodeStatus) -> Planned<Next> {
    let wait = |why: Waiting| Planned::from(Next::Wait(why.to_string()));
    // Nothing is decided by the absence before that time, so nobody is asked whether it is one.
    if !snapshot.nodes.contains_key(name)
        && let Some(until) = awaited_until(snapshot, op, status)
    {
        return wait(Waiting::NodeDeleted { until }).with(Effects::wake_at(until));
    }
    let live = Question::Node(name.into());
    let node = match snapshot.nodes.get(name) {
        Some(node) if status.node_uid.as_ref().is_none_or(|uid| *uid == node.uid) => node,
        Some(node) if snapshot.answer(&live).is_some() && is_same_machine(status, node) => {
            // Cloud controllers delete the Node of a machine that is away. It is back, under another UID.
            let status = NodeStatus { node_uid: Some(node.uid.clone()), ..status.clone() };
            return Next::Become(Box::new(status)).into();
        }
        Some(node) if snapshot.answer(&live).is_some() => {
            let why = "another machine has joined under the node's name while the operation worked on it";
            return lost(snapshot, op, name, node.ready, status, why);
        }
        None if snapshot.is_gone(&live) => {
            let why = "the node was deleted while the operation worked on it";
            return lost(snapshot, op, name, false, status, why);
        }
        // A cache that is older than the status may show an earlier machine of that name.
        Some(_) | None => return wait(Waiting::NodeUnconfirmed).with(live),
    };
    let ctx = NodeContext { snapshot, op, node, status };
    let mut planned = match give_up::recorded(status) {
        Some(verdict) => give_up::carry_out(&ctx, &verdict),
        None => step(&ctx),
    };
    // Whoever gives up does nothing else: what the step wanted done goes with its decision.
    if let Decision::GiveUp(verdict) = planned.value {
        planned = give_up::begin(&ctx, verdict);
    }
    planned.map(|decision| match decision {
        Decision::Record(status) => Next::Become(legacy::remark(&ctx, status)),
        Decision::Wait(why) => Next::Wait(why.to_string()),
        Decision::GiveUp(verdict) => Next::Wait(verdict.reason),
    })
}

fn step(ctx: &NodeContext<'_>) -> Planned<Decision> {
    match ctx.status.step {
        Some(Step::Claim) | None => claim::advance(ctx),
        Some(Step::Drain) => prepare::advance(ctx),
        Some(Step::Job) => job::advance(ctx),
        Some(Step::Reboot) => reboot::advance(ctx),
        Some(Step::Verify) => verify::advance(ctx),
        Some(Step::Preflight) => Waiting::PreflightRuns.into(),
    }
}

/// Whether a Node under another UID is the machine that was about to reboot: by its own id, which outlives
/// the Node object.
fn is_same_machine(status: &NodeStatus, node: &NodeView) -> bool {
    let reboots = matches!(status.step, Some(Step::Reboot | Step::Verify));
    reboots && !node.machine_id.is_empty() && status.machine_id.as_ref() == Some(&node.machine_id)
}

/// Until when a node whose object was deleted while it reboots may join again, if it may.
fn awaited_until(snapshot: &Snapshot, op: &Op, status: &NodeStatus) -> Option<Timestamp> {
    let reboots = matches!(status.step, Some(Step::Reboot | Step::Verify))
        && status.machine_id.is_some()
        && !op.deleting;
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
) -> Planned<Next> {
    let ending = |open| Next::Wait(Waiting::Ending { reason: message.to_owned(), open }.to_string());
    let mut effects = Effects::default();
    if let Some(job) = &status.job_name
        && let Some(open) = effects.take(cancel::job(snapshot, op, job))
    {
        return Planned { value: ending(open), effects };
    }
    let may_reboot = op.intent.reboot && status.job_uid.is_some();
    let attempt = status.attempt.unwrap_or(0);
    if may_reboot && let Some(open) = effects.take(cancel::waiter(snapshot, op, name, ready, attempt)) {
        return Planned { value: ending(open), effects };
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
    Planned { value: finish(snapshot.now, &status, Phase::Failed, Some(reboot), message), effects }
}

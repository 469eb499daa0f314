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
pub mod fixtures;
mod give_up;
pub mod hints;
mod hold;
mod job;
pub mod legacy;
mod prepare;
mod reboot;
pub mod stage;
#[cfg(test)]
mod stamps;
pub mod state;
mod traffic;
pub mod verify;
pub mod waiter;
pub mod waiting;

use k8s_openapi::jiff::Timestamp;

use self::{
    context::{Decision, Next, NodeContext, Op},
    failure::Failure,
    state::{At, Begun, Entry, Over, State, Tampered, Working},
    waiting::Waiting,
};
use crate::{
    api::nodeop::{NodeStatus, RebootStatus},
    plan::model::{
        effects::{Effects, Planned},
        question::Question,
        snapshot::{NodeView, Snapshot},
        time::later,
        why::{WaitReason, Why},
    },
};

/// Advances a node that is worked on.
pub fn advance_node(snapshot: &Snapshot, op: &Op, name: &str, status: &NodeStatus) -> Planned<Next> {
    let (entry, missing) = match Entry::parse(status) {
        Ok(entry) => (entry, None),
        Err(Tampered { missing, rest }) => (*rest, Some(missing)),
    };
    let State::Working(work) = &entry.state else { return Next::Become(Box::new(status.clone())).into() };
    let wait = |why: Waiting| Planned::from(Next::Wait(why.into()));
    // Nothing is decided by the absence before that time, so nobody is asked whether it is one.
    let there = snapshot.nodes.get(name);
    if there.is_none()
        && let Some(until) = awaited_until(snapshot, op, &entry, work)
    {
        return wait(Waiting::NodeDeleted { until }).with(Effects::wake_at(until));
    }
    let live = Question::Node(name.into());
    let node = match there {
        Some(node) if entry.node_uid.as_ref().is_none_or(|uid| *uid == node.uid) => node,
        Some(node) if snapshot.answer(&live).is_some() && is_same_machine(snapshot, work, node) => {
            // Cloud controllers delete the Node of a machine that is away. It is back, under another UID.
            let entry = Entry { node_uid: Some(node.uid.clone()), ..entry };
            return Next::Become(Box::new(entry.record())).into();
        }
        // Somebody else than its kubelet has made it again, and that has not reported yet: nobody knows which
        // machine it is.
        Some(node) if node.machine_id.is_none() && snapshot.answer(&live).is_some() => {
            if let Some(until) = awaited_until(snapshot, op, &entry, work) {
                return wait(Waiting::NodeUnreported { until }).with(Effects::wake_at(until));
            }
            let why = "the node was deleted while the operation worked on it, and its kubelet has not reported since";
            return lost(snapshot, op, name, node.ready, work, why);
        }
        Some(node) if snapshot.answer(&live).is_some() => {
            let why = "another machine has joined under the node's name while the operation worked on it";
            return lost(snapshot, op, name, node.ready, work, why);
        }
        None if snapshot.is_gone(&live) => {
            let why = "the node was deleted while the operation worked on it";
            return lost(snapshot, op, name, false, work, why);
        }
        // A cache that is older than the status may show an earlier machine of that name.
        Some(_) | None => return wait(Waiting::NodeUnconfirmed).with(live),
    };
    let ctx = NodeContext { snapshot, op, node, entry: &entry, work };
    let mut planned = match (&work.given_up, missing) {
        (Some(verdict), _) => give_up::carry_out(&ctx, verdict),
        (None, Some(missing)) => Failure::Tampered { missing }.into(),
        (None, None) => step(&ctx),
    };
    // Whoever gives up does nothing else: what the step wanted done goes with its decision.
    if let Decision::GiveUp(verdict) = planned.value {
        planned = give_up::begin(&ctx, verdict);
    }
    planned.map(|decision| match decision {
        Decision::Record(entry) => Next::Become(Box::new(remark(&ctx, *entry).record())),
        Decision::Wait(why) => Next::Wait(why.into()),
        Decision::GiveUp(verdict) => Next::Wait(Why { reason: WaitReason::Ending, message: verdict.reason }),
    })
}

/// Says of a node that is done that it stays cordoned, if it does.
fn remark(ctx: &NodeContext<'_>, mut entry: Entry) -> Entry {
    let completed = matches!(entry.state, State::Over(Over { succeeded: true, .. }));
    if let Some(why) = cordon::stays(ctx.node).filter(|_| completed && ctx.op.intent.cordon) {
        entry.message = entry.message.map(|said| format!("{said}; {why}"));
    }
    entry
}

fn step(ctx: &NodeContext<'_>) -> Planned<Decision> {
    match &ctx.work.at {
        At::Claim { passed_in } => claim::advance(ctx, passed_in.as_deref()),
        At::Drain(drain) => prepare::advance(ctx, drain),
        At::Job { refused_since, .. } => drain::keep_clear(ctx, job::advance(ctx, *refused_since)),
        At::Reboot(reboot) => reboot::advance(ctx, reboot),
        At::Verify(verify) => verify::advance(ctx, verify),
    }
}

/// Whether a Node under another UID is the machine that was about to reboot: by its own id, which outlives
/// the Node object. One that other nodes have too, because all were made from one disk image, says nothing.
fn is_same_machine(snapshot: &Snapshot, work: &Working, node: &NodeView) -> bool {
    work.machine_id().is_some()
        && work.machine_id() == node.machine_id.as_deref()
        && snapshot.nodes.has_own_machine_id(node)
}

/// Until when a node whose object was deleted while it reboots may join again, if it may. A NodeOp that is
/// deleted meanwhile does not wait for it, unless it is of the control plane: nothing else would tell that
/// this machine is away.
fn awaited_until(snapshot: &Snapshot, op: &Op, entry: &Entry, work: &Working) -> Option<Timestamp> {
    let known = work.machine_id().is_some() && (!op.deleting || work.is_control_plane());
    let deadline = match &work.at {
        At::Reboot(_) => context::deadline(snapshot, entry, work, op.intent.reboot_timeout)?,
        // It is away, as one that is not Ready.
        At::Verify(_) => later(snapshot.begun_at(entry.since?), verify::may_settle_for(&op.intent)),
        At::Claim { .. } | At::Drain(_) | At::Job { .. } => return None,
    };
    Some(deadline).filter(|deadline| known && snapshot.now < *deadline)
}

/// The machine is gone. Its Job goes first: on another machine of the same name it would run again.
fn lost(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    ready: bool,
    work: &Working,
    message: &str,
) -> Planned<Next> {
    let ending = |open| Next::Wait(Waiting::Ending { reason: message.to_owned(), open }.into());
    let mut effects = Effects::default();
    if let Some(job) = &work.job
        && let Some(open) = effects.absorb(cancel::job(snapshot, op, &job.name))
    {
        return Planned { value: ending(open), effects };
    }
    let may_reboot = op.intent.reboot && work.job_uid().is_some();
    let attempt = work.waiter.number();
    if may_reboot && let Some(open) = effects.absorb(cancel::waiter(snapshot, op, name, ready, attempt)) {
        return Planned { value: ending(open), effects };
    }
    let job = context::recorded_job(snapshot, op, work);
    let failed = job.is_some_and(|job| job.state.is_failure());
    let reboot = match &work.at {
        _ if !op.intent.reboot => RebootStatus::NotRequested,
        At::Verify(_) => RebootStatus::Completed,
        // The machine may have rebooted, or may yet: nobody knows. Its waiter acts as soon as the Job is
        // complete, whether or not we have seen that, and a Job that was deleted meanwhile tells nobody any
        // more.
        At::Reboot(_) => RebootStatus::Pending,
        At::Job { .. } if work.job_uid().is_some() && !failed => RebootStatus::Pending,
        At::Claim { .. } | At::Drain(_) | At::Job { .. } => RebootStatus::Cancelled,
    };
    let untouched = work.given_up.as_ref().is_some_and(|verdict| verdict.begun == Begun::No);
    let job_name = context::ran(work).filter(|_| !untouched);
    // Another machine of the name is not this one, and its Node has no record of what this one was tried
    // with.
    let machine_id = work.machine_id().map(str::to_owned);
    let over = Over { reboot: Some(reboot), job_name, machine_id, ..Over::of(work) };
    // Its claim and cordon went with it: nothing is to be given back.
    let entry = Entry {
        message: Some(message.to_owned()),
        since: Some(snapshot.now.into()),
        node_uid: None,
        state: State::Over(over),
    };
    Planned { value: Next::Become(Box::new(entry.record())), effects }
}

#[cfg(test)]
mod tests;

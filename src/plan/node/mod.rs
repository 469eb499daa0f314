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
mod enforce;
pub mod failure;
#[cfg(test)]
pub mod fixtures;
mod give_up;
pub mod hint_patch;
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

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use self::{
    context::{Decision, EntryPlan, NodeContext, Op},
    failure::Failure,
    state::{At, Entry, Over, State, Tampered, Touched, Working},
    waiting::{Open, Waiting},
};
use crate::{
    api::nodeop::{NodeStatus, RebootStatus},
    plan::model::{
        effects::{Effects, Planned},
        manual::Section,
        question::Question,
        snapshot::{JobState, NodeView, PodView, RETURNS_WITHIN, Snapshot},
        time::later,
        why::{WaitReason, Why},
    },
};

/// Advances a node that is worked on.
pub fn advance_node(snapshot: &Snapshot, op: &Op, name: &str, status: &NodeStatus) -> Planned<EntryPlan> {
    let (mut entry, missing) = match Entry::parse(status) {
        Ok(entry) => (entry, None),
        Err(Tampered { missing, rest }) => (*rest, Some(missing)),
    };
    let there = snapshot.nodes.get(name);
    let taken = there.filter(|node| entry.node_uid.as_ref().is_none_or(|uid| *uid == node.uid));
    if let (State::Working(work), Some(node)) = (&mut entry.state, taken) {
        work.machine.note(snapshot, node);
    }
    let State::Working(work) = &entry.state else {
        return EntryPlan::Record(Box::new(status.clone())).into();
    };
    let Some(node) = taken else { return gone(snapshot, op, name, &entry, work) };
    let ctx = NodeContext { snapshot, op, node, entry: &entry, work };
    let mut planned = match (&work.given_up, missing) {
        (Some(given_up), _) => give_up::carry_out(&ctx, given_up),
        (None, Some(missing)) => Failure::Tampered { missing }.into(),
        (None, None) => step(&ctx),
    };
    // Whoever gives up does nothing else: what the step wanted done goes with its decision.
    if let Decision::GiveUp(given_up) = planned.value {
        planned = give_up::begin(&ctx, given_up);
    }
    planned.map(|decision| match decision {
        Decision::Record(entry) => EntryPlan::Record(Box::new(remark(&ctx, *entry).record())),
        Decision::Wait(why) => EntryPlan::Wait(why.into()),
        Decision::GiveUp(given_up) => {
            EntryPlan::Wait(Why { reason: WaitReason::Ending, message: given_up.reason })
        }
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

/// The Node object that was taken is gone, and perhaps there is another one of its name.
fn gone(snapshot: &Snapshot, op: &Op, name: &str, entry: &Entry, work: &Working) -> Planned<EntryPlan> {
    let wait = |why: Waiting| Planned::from(EntryPlan::Wait(why.into()));
    let (there, live) = (snapshot.nodes.get(name).map(AsRef::as_ref), Question::Node(name.into()));
    let (is_read, until) = (snapshot.answer(&live).is_some(), awaited_until(snapshot, op, name, entry, work));
    let lost = |why| lost(snapshot, op, name, there, work, why);
    match (there, until) {
        // Nothing is decided by the absence before that time, so nobody is asked whether it is one.
        (None, Some(until)) => wait(Waiting::NodeDeleted { until }).with(Effects::wake_at(until)),
        (None, None) if snapshot.is_gone(&live) => {
            lost("the node was deleted while the operation worked on it")
        }
        (Some(node), _) if is_read && is_same_machine(snapshot, work, node) => {
            // Cloud controllers delete the Node of a machine that is away. It is back, under another UID.
            let entry = Entry { node_uid: Some(node.uid.clone()), ..entry.clone() };
            EntryPlan::Record(Box::new(entry.record())).into()
        }
        // Somebody else than its kubelet has made it again, and that has not reported yet: nobody knows which
        // machine it is.
        (Some(node), Some(until)) if is_read && node.machine_id.is_none() => {
            wait(Waiting::NodeUnreported { until }).with(Effects::wake_at(until))
        }
        (Some(node), None) if is_read && node.machine_id.is_none() => lost(
            "the node was deleted while the operation worked on it, and its kubelet has not reported since",
        ),
        (Some(_), _) if is_read => {
            lost("another machine has joined under the node's name while the operation worked on it")
        }
        // A cache that is older than the status may show an earlier machine of that name.
        (Some(_) | None, _) => wait(Waiting::NodeUnconfirmed).with(live),
    }
}

/// Whether a Node under another UID is the machine that was taken: by its own id, which outlives the Node
/// object. One that other nodes have too, because all were made from one disk image, says nothing.
fn is_same_machine(snapshot: &Snapshot, work: &Working, node: &NodeView) -> bool {
    work.machine.id.is_some() && work.machine.id == node.machine_id && snapshot.nodes.has_own_machine_id(node)
}

/// Until when a node whose object was deleted may join again, if it may. A NodeOp that is deleted meanwhile
/// does not wait for it, unless it is of the control plane: nothing else would tell that this machine is
/// away.
fn awaited_until(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    entry: &Entry,
    work: &Working,
) -> Option<Timestamp> {
    let known = work.machine.id.is_some() && (!op.deleting || work.machine.control_plane);
    let gone = || snapshot.gone_since(&op.id, name);
    let deadline = match &work.at {
        // One whose reboot is kept from coming has none.
        At::Reboot(_) => context::deadline(snapshot, entry, work, op.intent.reboot_timeout)
            .unwrap_or_else(|| later(gone(), RETURNS_WITHIN)),
        // It is away, as one that is not Ready.
        At::Verify(_) => later(snapshot.begun_at(entry.since?), verify::stays_ready_within(&op.intent)),
        At::Claim { .. } | At::Drain(_) | At::Job { .. } if work.given_up.is_some() => return None,
        At::Claim { .. } | At::Drain(_) | At::Job { .. } => {
            // The waiter reboots the machine as soon as its Job is complete, whether or not we have seen that.
            let job = context::recorded_job(snapshot, op, work);
            let reboots = op.intent.reboot && job.is_some_and(|job| job.state == JobState::Complete);
            let reboot = if reboots { op.intent.reboot_timeout } else { RETURNS_WITHIN };
            later(snapshot.gone_since(&op.id, name), reboot.max(RETURNS_WITHIN))
        }
    };
    Some(deadline).filter(|deadline| known && snapshot.now < *deadline)
}

/// The machine is gone. Its Job goes first: on another machine of the same name it would run again.
fn lost(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    there: Option<&NodeView>,
    work: &Working,
    message: &str,
) -> Planned<EntryPlan> {
    let ready = there.is_some_and(|node| node.ready);
    let ending = |open| EntryPlan::Wait(Waiting::Ending { reason: message.to_owned(), open }.into());
    let mut effects = Effects::default();
    if let Some(job) = &work.job
        && let Some(open) = effects.absorb(cancel::job(snapshot, op, &job.name))
    {
        return Planned { value: ending(open), effects };
    }
    // Where the node is there, its kubelet ends them, and an agent has its time for that.
    let ends = |pod: &Arc<PodView>| pod.node == name && !pod.is_terminated_or_fenced(ready);
    if let (Some(job), Some(uid)) = (&work.job, work.job_uid())
        && snapshot.pods_of_job(&op.id.namespace, &job.name, uid).any(ends)
    {
        return Planned { value: ending(Open::JobPodsEnd), effects };
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
    let untouched = work.given_up.as_ref().is_some_and(|given_up| given_up.touched == Touched::No);
    let job_name = context::ran(work).filter(|_| !untouched);
    // Another machine of the name is not this one, and its Node has no record of what this one was tried
    // with.
    let machine_id = work.machine.id.clone().filter(|_| job_name.is_some());
    let over = Over { reboot: Some(reboot), job_name, machine_id, ..Over::of(work) };
    // Its claim and cordon went with it, and nothing is to be given back; unless somebody has made the Node
    // again as it was.
    let marked = there.filter(|node| node.marked_by().any(|of| *of == op.id));
    let entry = Entry {
        message: Some(format!("{message}{}", Section::NodeLost)),
        since: Some(snapshot.now.into()),
        node_uid: marked.map(|node| node.uid.clone()),
        state: State::Over(over),
    };
    Planned { value: EntryPlan::Record(Box::new(entry.record())), effects }
}

#[cfg(test)]
mod tests;

//! Giving a node up: the reason is recorded, then what could still act is ended, and only when its end is
//! seen has the node failed.
//!
//! Ending a Job or a waiter takes passes, and a crash may come between them. A reason that stood nowhere
//! meanwhile would be forgotten while it is carried out: the end of a waiter that was given up looks like the
//! loss of one, and another would be made. So the reason stands in status first. Where nothing is left that
//! could act, the node fails at once, in one write.
//!
//! What succeeds before its end is seen has succeeded, whatever was decided about it: a Job that completes
//! goes on to its reboot, and a node that comes back in a new boot has rebooted.

use std::fmt;

use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus, Step},
    plan::{
        model::{
            effects::{Effects, Planned},
            question::Question,
            snapshot::{JobState, JobView},
        },
        node::{
            cancel,
            context::{Decision, NodeContext, Verdict, finished, recorded_job},
            legacy, reboot, waiter,
            waiting::Waiting,
        },
    },
};

/// The verdict that stands in an entry whose node is being given up.
pub fn recorded(status: &NodeStatus) -> Option<Verdict> {
    let before =
        || status.message.clone().filter(|_| status.step == Some(Step::Job) && status.deadline.is_some());
    // Until 0.1 a Job that was given up had a deadline, and the reason stood in the message.
    let reason = status.given_up.clone().or_else(before)?;
    Some(Verdict { reason, untouched: status.untouched == Some(true) })
}

/// What may still act on a node that is given up, or whose end is not proved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    JobUnconfirmed,
    JobDeleted,
    JobPodsEnd,
    WaiterUnconfirmed,
    WaiterEnds,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JobUnconfirmed => "checking whether its Job still exists",
            Self::JobDeleted => "its Job is being deleted",
            Self::JobPodsEnd => "the pods of its Job are ending",
            Self::WaiterUnconfirmed => "checking whether its reboot waiter still exists",
            Self::WaiterEnds => "its reboot waiter is being ended",
        })
    }
}

/// Gives the node up.
pub fn begin(ctx: &NodeContext<'_>, verdict: Verdict) -> Planned<Decision> {
    let Planned { value, effects } = end(ctx);
    let Verdict { reason, untouched } = verdict;
    let Some(open) = value else {
        return fail(ctx, &Verdict { reason, untouched }).with(effects);
    };
    if effects.actions.is_empty() && !effects.questions.is_empty() {
        // Nothing is to be ended as far as one sees, and that is being asked.
        return Waiting::Ending { reason, open }.with(effects);
    }
    // The reason is recorded first, and what it leads to is done in the next plan.
    let recorded = ctx.record(|status| {
        status.message = Some(reason.clone());
        status.given_up = Some(reason);
        status.untouched = untouched.then_some(true);
    });
    recorded.into()
}

/// Ends what could still act, until nothing can.
pub fn carry_out(ctx: &NodeContext<'_>, verdict: &Verdict) -> Planned<Decision> {
    if let Some(next) = succeeded_after_all(ctx) {
        return next;
    }
    if verdict.untouched && has_begun(ctx) {
        return ctx.record(|status| status.untouched = Some(false)).into();
    }
    end(ctx).map(|open| match open {
        Some(open) => Decision::Wait(Waiting::Ending { reason: verdict.reason.clone(), open }),
        None => fail(ctx, verdict),
    })
}

fn fail(ctx: &NodeContext<'_>, verdict: &Verdict) -> Decision {
    let reboot = ctx.status.reboot_status.map(|_| called_off(ctx)).filter(|_| ctx.op.intent.reboot);
    // A node whose operation was called off did not fail of itself: it names no Job, and its cordon does not
    // stay. A command that was stopped ends badly, which says nothing about the node.
    let failed = job(ctx)
        .is_some_and(|job| matches!(job.state, JobState::Failed(_) | JobState::Failing(_)) && !job.deleting);
    let called_off = ctx.op.deleting && !failed;
    let status =
        NodeStatus { untouched: (verdict.untouched || called_off).then_some(true), ..ctx.status.clone() };
    let reboot = reboot.or(Some(RebootStatus::NotRequested));
    Decision::Record(Box::new(finished(
        ctx.snapshot.now,
        &status,
        Phase::Failed,
        reboot,
        verdict.reason.clone(),
    )))
}

/// What is said of a reboot that is given up: that it was called off only where the node is seen in the boot
/// that it was to leave. One that went away may come back in another boot, and where nothing tells which boot
/// it was to leave, nobody knows whether it did.
fn called_off(ctx: &NodeContext<'_>) -> RebootStatus {
    let stays = ctx.node.ready && ctx.status.boot.as_ref() == Some(&ctx.node.boot_id);
    match ctx.status.step {
        Some(Step::Verify) => RebootStatus::Completed,
        Some(Step::Reboot) if !stays => RebootStatus::Pending,
        _ => RebootStatus::Cancelled,
    }
}

/// What was given up has succeeded before its end was seen: its step goes on.
fn succeeded_after_all(ctx: &NodeContext<'_>) -> Option<Planned<Decision>> {
    let goes_on = || {
        let recorded = ctx.record(|status| {
            (status.given_up, status.untouched) = (None, None);
            // The mark of older records, see `recorded`; in other steps it is a deadline that stands.
            status.deadline = status.deadline.take().filter(|_| status.step != Some(Step::Job));
        });
        Planned::from(recorded)
    };
    match ctx.status.step {
        Some(Step::Job) => {
            // A Job that was given up because it had not begun. What was found wrong with one that is
            // complete stays wrong.
            let awaited = ctx.status.untouched.is_some() || ctx.status.given_up.is_none();
            let complete = awaited && job(ctx).is_some_and(|job| job.state == JobState::Complete);
            // A waiter that goes on has seen the Job complete before it went.
            let gone = job(ctx).is_none()
                && ctx.op.intent.reboot
                && !legacy::is_adopted(ctx)
                && waiter::went_on(ctx).is_some();
            (ctx.status.job_uid.is_some() && (complete || gone)).then(goes_on)
        }
        Some(Step::Reboot) => match reboot::arrival(ctx) {
            reboot::Arrival::Proved => Some(goes_on()),
            reboot::Arrival::Unconfirmed(question) => Some(Waiting::BootUnconfirmed.with(question)),
            reboot::Arrival::No => None,
        },
        Some(Step::Preflight | Step::Claim | Step::Drain | Step::Verify) | None => None,
    }
}

/// The node's Job as a cache shows it, if it is the recorded one.
fn job<'a>(ctx: &NodeContext<'a>) -> Option<&'a JobView> {
    recorded_job(ctx.snapshot, ctx.op, ctx.status)
}

/// Whether a container of the operation has begun.
fn has_begun(ctx: &NodeContext<'_>) -> bool {
    let uid = ctx.status.job_uid.as_deref();
    uid.is_some_and(|uid| ctx.job_pods(uid).any(|pod| pod.has_begun()))
}

/// Sees to it that nothing of the operation can act on the node any more. `Some`: not yet.
fn end(ctx: &NodeContext<'_>) -> Planned<Option<Open>> {
    let (node, attempt) = (&ctx.node.name, ctx.status.attempt.unwrap_or(0));
    let mut effects = Effects::default();
    if let Some(name) = &ctx.status.job_name
        && let Some(open) = effects.take(cancel::job(ctx.snapshot, ctx.op, name))
    {
        return Planned { value: Some(open), effects };
    }
    let failed = job(ctx).is_some_and(|job| matches!(job.state, JobState::Failed(_) | JobState::Failing(_)));
    if let Some(uid) = ctx.status.job_uid.as_deref().filter(|_| !failed)
        && ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready))
    {
        return Planned { value: Some(Open::JobPodsEnd), effects };
    }
    // Nothing was made for a node that is only about to be claimed; a waiter that was made ahead of its turn
    // is ended with its release.
    let waits = ctx.op.intent.reboot && !matches!(ctx.status.step, Some(Step::Claim) | None);
    // The waiter of a Job that failed removes the sentinel and ends by itself, or is ended when its node is
    // released: no reboot can follow. One that was just made, and that no cache shows, has to be seen first.
    let key = (ctx.op.id.namespace.clone(), ctx.op.object_name(node, "reboot", attempt));
    let is_over = || {
        failed
            && ctx.snapshot.pods.contains_key(&key)
            && ctx.snapshot.answer(&Question::Pod(key.clone())).is_none()
    };
    if !waits || is_over() {
        return Planned { value: None, effects };
    }
    cancel::waiter(ctx.snapshot, ctx.op, node, ctx.node.ready, attempt).with(effects)
}

#[cfg(test)]
mod tests;

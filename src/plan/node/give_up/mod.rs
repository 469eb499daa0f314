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

use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus, Step},
    plan::{
        model::{
            action::Plan,
            question::Question,
            snapshot::{JobState, JobView},
        },
        node::{
            cancel,
            context::{Decision, NodeContext, Verdict, finished, recorded_job},
            legacy, reboot, waiter,
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

/// Gives the node up, whatever its step had planned for it in this pass.
pub fn begin(ctx: &mut NodeContext<'_>, verdict: Verdict) -> Decision {
    *ctx.plan = Plan::default();
    let Some(open) = end(ctx) else { return fail(ctx, &verdict) };
    if ctx.plan.actions.is_empty() && !ctx.plan.questions.is_empty() {
        // Nothing is to be ended as far as one sees, and that is being asked.
        return Decision::Wait(format!("{}; {open}", verdict.reason));
    }
    *ctx.plan = Plan::default();
    let Verdict { reason, untouched } = verdict;
    ctx.record(|status| {
        status.message = Some(reason.clone());
        status.given_up = Some(reason);
        status.untouched = untouched.then_some(true);
    })
}

/// Ends what could still act, until nothing can.
pub fn carry_out(ctx: &mut NodeContext<'_>, verdict: &Verdict) -> Decision {
    if let Some(next) = succeeded_after_all(ctx) {
        return next;
    }
    if verdict.untouched && has_begun(ctx) {
        return ctx.record(|status| status.untouched = Some(false));
    }
    match end(ctx) {
        Some(open) => Decision::Wait(format!("{}; {open}", verdict.reason)),
        None => fail(ctx, verdict),
    }
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
fn succeeded_after_all(ctx: &mut NodeContext<'_>) -> Option<Decision> {
    let goes_on = |ctx: &NodeContext<'_>| {
        ctx.record(|status| {
            (status.given_up, status.untouched) = (None, None);
            // The mark of older records, see `recorded`; in other steps it is a deadline that stands.
            status.deadline = status.deadline.take().filter(|_| status.step != Some(Step::Job));
        })
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
            (ctx.status.job_uid.is_some() && (complete || gone)).then(|| goes_on(ctx))
        }
        Some(Step::Reboot) => match reboot::arrival(ctx) {
            reboot::Arrival::Proved => Some(goes_on(ctx)),
            reboot::Arrival::Unconfirmed(question) => {
                ctx.ask(question);
                Some(Decision::Wait(reboot::CONFIRMS.into()))
            }
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

/// Sees to it that nothing of the operation can act on the node any more. `Some`: not yet, and why.
fn end(ctx: &mut NodeContext<'_>) -> Option<String> {
    let (node, attempt) = (&ctx.node.name, ctx.status.attempt.unwrap_or(0));
    if let Some(name) = &ctx.status.job_name
        && let Some(open) = cancel::job(ctx.snapshot, ctx.op, name, ctx.plan)
    {
        return Some(open);
    }
    let failed = job(ctx).is_some_and(|job| matches!(job.state, JobState::Failed(_) | JobState::Failing(_)));
    if let Some(uid) = ctx.status.job_uid.as_deref().filter(|_| !failed)
        && ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready))
    {
        return Some("the pods of its Job are ending".into());
    }
    // Nothing was made for a node that is only about to be claimed; a waiter that was made ahead of its turn
    // is ended with its release.
    let waits = ctx.op.intent.reboot && !matches!(ctx.status.step, Some(Step::Claim) | None);
    if !waits {
        return None;
    }
    // The waiter of a Job that failed removes the sentinel and ends by itself, or is ended when its node is
    // released: no reboot can follow. One that was just made, and that no cache shows, has to be seen first.
    let key = (ctx.op.id.namespace.clone(), ctx.op.object_name(node, "reboot", attempt));
    if failed && ctx.snapshot.pods.contains_key(&key) && ctx.snapshot.answer(&Question::Pod(key)).is_none() {
        return None;
    }
    cancel::waiter(ctx.snapshot, ctx.op, node, ctx.node.ready, attempt, ctx.plan)
}

#[cfg(test)]
mod tests;

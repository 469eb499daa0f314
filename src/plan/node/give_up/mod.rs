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

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::nodeop::RebootStatus,
    plan::{
        model::{
            effects::{Effects, Planned},
            manual::{self, Section},
            question::Question,
            snapshot::{JobState, JobView},
            time::later,
        },
        node::{
            cancel,
            context::{Decision, NodeContext},
            failure::UNRECORDED,
            job, reboot,
            state::{At, Entry, GivenUp, Over, State, Touched, Working},
            waiter,
            waiting::{Open, Waiting},
        },
    },
};

/// How long after a reboot was asked for the node may still be seen Ready: the kubelet is stopped within
/// seconds, and the control plane waits 40 to 50 for its next sign of life.
const DOWN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// Gives the node up.
pub fn begin(ctx: &NodeContext<'_>, given_up: GivenUp) -> Planned<Decision> {
    let given_up = explained(ctx, given_up);
    let Planned { value, effects } = end(ctx, &given_up);
    let Some(open) = value else { return fail(ctx, &given_up).with(effects) };
    if effects.actions.is_empty() && effects.is_asking() {
        // Nothing is to be ended as far as one sees, and that is being asked.
        return Waiting::Ending { reason: given_up.reason, open }.with(effects);
    }
    // The reason is recorded first, and what it leads to is done in the next plan.
    let message = Some(given_up.reason.clone());
    let state = State::Working(Box::new(Working { given_up: Some(given_up), ..ctx.work.clone() }));
    Decision::Record(Box::new(Entry { message, state, ..ctx.entry.clone() })).into()
}

/// What a node is given up for: it is not as it was if its command may have begun, or has succeeded, whatever
/// became of the Job that was to record that.
fn explained(ctx: &NodeContext<'_>, given_up: GivenUp) -> GivenUp {
    let succeeded = ctx.work.succeeded_in().is_some();
    let is_touched = given_up.touched == Touched::No && (succeeded || job::may_have_begun(ctx));
    let touched = if is_touched { Touched::Perhaps } else { given_up.touched };
    if !succeeded {
        return GivenUp { touched, ..given_up };
    }
    let reason = manual::explained_in(Section::NotRecorded, &format!("{UNRECORDED}: {}", given_up.reason));
    GivenUp { reason, touched }
}

/// Ends what could still act, until nothing can.
pub fn carry_out(ctx: &NodeContext<'_>, given_up: &GivenUp) -> Planned<Decision> {
    if let Some(next) = succeeded_after_all(ctx, given_up) {
        return next;
    }
    if given_up.touched == Touched::No && job::may_have_begun(ctx) {
        // The watch of Jobs may be ahead of that of pods, which tell that nothing has begun.
        if let Some(question) = unread(ctx) {
            let reason = given_up.reason.clone();
            return Waiting::Ending { reason, open: Open::JobUnconfirmed }.with(question);
        }
        let meanwhile = GivenUp { touched: Touched::Perhaps, ..given_up.clone() };
        return ctx.record(|work| work.given_up = Some(meanwhile)).into();
    }
    end(ctx, given_up).map(|open| match open {
        Some(open) => Decision::Wait(Waiting::Ending { reason: given_up.reason.clone(), open }),
        None => fail(ctx, given_up),
    })
}

/// What reads the node's Job and its pods, unless that was done for this very plan.
fn unread(ctx: &NodeContext<'_>) -> Option<Question> {
    let job = ctx.recorded_job()?;
    let question = Question::Job((job.namespace.clone(), job.name.clone()));
    ctx.snapshot.answer(&question).is_none().then_some(question)
}

fn fail(ctx: &NodeContext<'_>, given_up: &GivenUp) -> Decision {
    // A node whose operation was cancelled did not fail of itself: it names no Job, and its cordon does not
    // stay. A command that was stopped ends badly, which says nothing about the node.
    let failed = ctx.recorded_job().is_some_and(|job| has_failed(ctx, job) && !job.deleting);
    let reboot =
        ctx.work.reboot.map(|_| final_reboot_status(ctx, given_up, failed)).filter(|_| ctx.op.intent.reboot);
    let cancelled = ctx.op.deleting && !failed;
    let job_name = ctx.work.ran().filter(|_| given_up.touched != Touched::No && !cancelled);
    let reboot = reboot.or(Some(RebootStatus::NotRequested));
    let over = Over { reboot, job_name, ..Over::of(ctx.work) };
    ctx.moves(State::Over(over), &given_up.reason)
}

/// Whether a waiter of the node may have asked for its reboot, which nobody can cancel then: its Job has
/// succeeded, which it sees before we do, and it was not seen to end without a word of a reboot.
fn may_still_reboot(ctx: &NodeContext<'_>) -> bool {
    let succeeded = match &ctx.work.at {
        At::Reboot(_) => true,
        At::Job(_) => ctx.recorded_job().is_some_and(|job| job.state == JobState::Complete),
        At::Claim { .. } | At::Drain(_) | At::Verify(_) => false,
    };
    ctx.op.intent.reboot && succeeded && !waiter::ended_without_asking(ctx)
}

/// What is said of a reboot that is given up: that it was cancelled only where the node is seen in the boot
/// that it was to leave. One that went away may come back in another boot, and where nothing tells which boot
/// it was to leave, nobody knows whether it did.
fn final_reboot_status(ctx: &NodeContext<'_>, given_up: &GivenUp, failed: bool) -> RebootStatus {
    let stays = ctx.node.ready && ctx.work.boot_to_leave() == Some(&ctx.node.boot_id);
    // Not seen in the boot in which the Job was let run, as far as that is recorded.
    let is_away = !ctx.node.ready || ctx.work.job_boot().is_some_and(|boot| *boot != ctx.node.boot_id);
    let untold = ctx.work.job_boot().is_none() && may_still_reboot(ctx);
    let may_have_gone = (is_away || untold) && ctx.work.job_uid().is_some() && !failed;
    match &ctx.work.at {
        At::Verify(_) => RebootStatus::Completed,
        At::Reboot(_) if !stays || given_up.touched == Touched::Perhaps => RebootStatus::Pending,
        // It may have succeeded, and its waiter, which is gone too, or cannot be asked, have gone on.
        At::Job(_) if may_have_gone || given_up.touched == Touched::Perhaps => RebootStatus::Pending,
        At::Claim { .. } | At::Drain(_) | At::Job(_) | At::Reboot(_) => RebootStatus::Cancelled,
    }
}

/// What was given up has succeeded before its end was seen: its step goes on.
fn succeeded_after_all(ctx: &NodeContext<'_>, given_up: &GivenUp) -> Option<Planned<Decision>> {
    let goes_on = || Planned::from(ctx.record(|work| work.given_up = None));
    match &ctx.work.at {
        At::Job(_) => {
            // A Job that was given up because it had not begun. What was found wrong with one that is
            // complete stays wrong.
            let awaited = given_up.touched != Touched::NotTheReason;
            let job = ctx.recorded_job();
            let complete = awaited && job.is_some_and(|job| job.state == JobState::Complete);
            // A waiter that goes on has seen the Job complete before it went.
            let went_on = ctx.op.intent.reboot && !ctx.is_adopted() && waiter::went_on(ctx).is_some();
            let gone = awaited && job.is_none() && went_on;
            (ctx.work.job_uid().is_some() && (complete || gone)).then(goes_on)
        }
        At::Reboot(reboot) => match reboot::arrival(ctx, reboot) {
            reboot::Arrival::Proved => Some(goes_on()),
            reboot::Arrival::Unconfirmed(question) => Some(Waiting::BootUnconfirmed.with(question)),
            reboot::Arrival::No => None,
        },
        At::Claim { .. } | At::Drain(_) | At::Verify(_) => None,
    }
}

/// Whether the operation has failed with its Job: not if its reboot was due all the same.
fn has_failed(ctx: &NodeContext<'_>, job: &JobView) -> bool {
    job.state.is_failure() && ctx.work.boot_to_leave().is_none()
}

/// Sees to it that nothing of the operation can act on the node any more. `Some`: not yet.
fn end(ctx: &NodeContext<'_>, given_up: &GivenUp) -> Planned<Option<Open>> {
    let (node, attempt) = (&ctx.node.name, ctx.work.waiter.number());
    let mut effects = Effects::default();
    // Whatever the Job still comes to, it is not taken for a success, and its waiter would take it for one.
    let ends_waiters = || match given_up.touched {
        Touched::NotTheReason => cancel::end_waiters(ctx.snapshot, ctx.op, node),
        Touched::No | Touched::Perhaps => Effects::default(),
    };
    if let Some(job) = &ctx.work.job
        && let Some(open) = effects.absorb(cancel::job(ctx.snapshot, ctx.op, &job.name))
    {
        return Planned { value: Some(open), effects }.with(ends_waiters());
    }
    let job = ctx.recorded_job();
    let failed = job.is_some_and(|job| has_failed(ctx, job));
    if let Some(uid) = ctx.work.job_uid().filter(|_| !failed)
        && ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready))
    {
        return Planned { value: Some(Open::JobPodsEnd), effects }.with(ends_waiters());
    }
    // For a node that is only about to be claimed a waiter is made where it is drained next; one that was
    // made ahead of its turn is ended with its release.
    let waits =
        ctx.op.intent.reboot && (ctx.op.intent.drain.is_some() || !matches!(ctx.work.at, At::Claim { .. }));
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
    let open = effects.absorb(cancel::waiter(ctx.snapshot, ctx.op, node, ctx.node.ready, attempt));
    if open.is_none()
        && let Some(until) = reboot_may_come_until(ctx)
    {
        effects.add(Effects::wake_at(until));
        return Planned { value: Some(Open::RebootMayCome), effects };
    }
    Planned { value: open, effects }
}

/// A waiter that is gone, and whose last state nobody has read, may have asked for the reboot: a machine
/// takes a while to go down, and looks Ready meanwhile. Until then its node is neither free for others nor
/// said to stay in its boot.
fn reboot_may_come_until(ctx: &NodeContext<'_>) -> Option<Timestamp> {
    let leaves = ctx.work.boot_to_leave().or_else(|| ctx.work.job_boot());
    let may_come = ctx.node.ready && leaves == Some(&ctx.node.boot_id) && may_still_reboot(ctx);
    let until = later(ctx.snapshot.unwatched_since(&ctx.op.id, &ctx.node.name), DOWN_WITHIN);
    Some(until).filter(|until| may_come && ctx.snapshot.now < *until)
}

#[cfg(test)]
mod tests;

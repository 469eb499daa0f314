//! The operation itself: a Job on the node, allowed to run once its UID is recorded, and what came of it.
//!
//! `make` is the Job before it runs, `run` while it does, and `outcome`, `failed` and `unrecorded` are what
//! follows from its end. `pods` is what its pods tell, read once for all of them. `adopted` is all that is
//! different with a Job of the Go operator's; the other files are not about those.

mod adopted;
mod failed;
mod halted;
mod make;
mod outcome;
mod pods;
mod remake;
mod run;
mod start;
#[cfg(test)]
mod tests;
mod unrecorded;

pub use self::outcome::late_sentinel;
use crate::plan::{
    model::{
        effects::Planned,
        question::{Answer, Question},
    },
    node::{
        context::{Decision, NodeContext},
        state::{At, ImageRecord, JobRecord, JobStep, Working},
        waiting::Waiting,
    },
};

/// Advances a node in step `Job`.
pub fn advance(ctx: &NodeContext<'_>, step: &JobStep) -> Planned<Decision> {
    let JobRecord { name, uid } = ctx.work.job.clone().unwrap_or_else(|| record_of(ctx));
    let key = (ctx.op.id.namespace.clone(), name.clone());
    match (uid, ctx.snapshot.jobs.get(&key)) {
        (None, None) => make::make(ctx, name, step),
        (None, Some(job)) => make::made(ctx, job),
        (Some(uid), Some(job)) if job.uid == uid && ctx.is_adopted() => adopted::advance(ctx, job),
        (Some(uid), Some(job)) if job.uid == uid => run::advance(ctx, job),
        // An old view may show a Job that the recorded one replaced; a live read that still shows another one
        // is final.
        (Some(uid), found) => match (ctx.snapshot.answer(&Question::Job(key.clone())), found) {
            (Some(Answer::NotFound), _) | (Some(_), Some(_)) => outcome::vanished(ctx, &uid),
            (Some(_), None) => Waiting::JobUnconfirmed { name }.into(),
            (None, _) => Waiting::JobUnconfirmed { name }.with(Question::Job(key)),
        },
    }
}

/// Whether the operation may have begun in the node's Job. Of one that is gone its pods tell.
pub fn may_have_begun(ctx: &NodeContext<'_>) -> bool {
    let Some(uid) = ctx.work.job_uid() else { return false };
    let job = ctx.recorded_job();
    job.is_some_and(|job| ctx.snapshot.may_have_begun(job)) || ctx.job_pods(uid).any(|pod| pod.has_begun())
}

/// The operation is next, on a node that was prepared for it. Its Job is made at once if its name stands in
/// status, as it does since the preparations began; they are over with the write that records the Job's UID.
pub fn begin(ctx: &NodeContext<'_>) -> Planned<Decision> {
    if ctx.work.job.is_some() {
        advance(ctx, &JobStep::default())
    } else {
        start_job(ctx, ctx.work.found.clone()).into()
    }
}

/// The operation is next: its Job's name is recorded before the Job is made, and with it what is known of its
/// image.
pub fn start_job(ctx: &NodeContext<'_>, found: ImageRecord) -> Decision {
    let at = At::Job(JobStep::default());
    let reboot = Some(ctx.reboot_asked());
    let work = Working { at, job: Some(record_of(ctx)), reboot, found, ..ctx.work.clone() };
    ctx.move_to(work, Waiting::JobMade)
}

/// A Job that is not made yet.
pub fn record_of(ctx: &NodeContext<'_>) -> JobRecord {
    JobRecord { name: ctx.op.object_name(&ctx.node.name, "", 0), uid: None }
}

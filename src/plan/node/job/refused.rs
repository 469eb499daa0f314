//! A Job that failed before anything of it had begun, since the node's kubelet refused each of its pods: the
//! node is full, or short of disk. That passes, whatever `backoffLimit` says, which counts tries of the
//! operation: the Job is made again, with pauses, for as long as a pod may take to start.
//!
//! First the status forgets the Job's UID, and then the Job, which has failed and can run nothing any more,
//! is deleted. Another one of its name is made when it is gone.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use crate::plan::{
    model::{
        snapshot::{JobState, JobView, PodView},
        time::later,
    },
    node::{
        cancel,
        context::{Decision, NodeContext},
        legacy,
    },
};

/// The pause before the Job is made again, at first …
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// … growing with the time that the node has refused its pods already, up to this.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(120);

/// How a message begins while the Job's pod cannot start.
pub const NOT_STARTED: &str = "the Job's pod cannot start yet: ";

/// What follows from the failure of a Job none of whose pods was taken in; nothing of any other.
pub fn again(ctx: &NodeContext<'_>, job: &JobView) -> Option<Decision> {
    let mut pods: Vec<&PodView> = ctx.job_pods(&job.uid).map(AsRef::as_ref).collect();
    pods.sort_by_key(|pod| (pod.created, &pod.name));
    if legacy::is_adopted(ctx) || !ctx.snapshot.was_refused(job, &pods) {
        return None;
    }
    let obstacle = pods.last()?.obstacle()?;
    if obstacle.permanent {
        return Some(ctx.fail_untouched(format!("the Job's pod cannot start: {}", obstacle.text)));
    }
    let (now, limit) = (ctx.snapshot.now, ctx.op.intent.pull_timeout);
    if now >= later(begun(ctx), limit) {
        let after = limit.as_secs();
        return Some(
            ctx.fail_untouched(format!("the Job's pod could not start in {after} s: {}", obstacle.text)),
        );
    }
    Some(ctx.record(|status| {
        (status.job_uid, status.since) = (None, Some(Time(now)));
        status.message = Some(format!("{NOT_STARTED}{}", obstacle.text));
    }))
}

/// A Job that has failed and is recorded no more: it makes room for the next one.
pub fn over(ctx: &mut NodeContext<'_>, job: &JobView) -> Option<Decision> {
    if !matches!(job.state, JobState::Failed(_)) {
        return None;
    }
    if !job.deleting {
        ctx.act(cancel::delete(&ctx.op.id, job, "the node refused its pods, it is made again"));
    }
    let told = ctx.status.message.clone().filter(|told| told.starts_with(NOT_STARTED));
    Some(Decision::Wait(told.unwrap_or_else(|| "the Job is made again".into())))
}

/// Why the Job is not made yet. A moment that lies in the future is of another leader's clock, and past.
pub fn pause(ctx: &mut NodeContext<'_>) -> Option<Decision> {
    let (now, begun) = (ctx.snapshot.now, begun(ctx));
    let told = ctx.status.message.clone().filter(|told| told.starts_with(NOT_STARTED))?;
    let lost = ctx.status.since.as_ref().map(|since| since.0).filter(|lost| *lost <= now)?;
    let refused_for = lost.duration_since(begun) / 4;
    let pause = refused_for.clamp(PAUSE, MAX_PAUSE);
    // The last try is made when the time is over.
    let at = later(lost, pause).min(later(begun, ctx.op.intent.pull_timeout)).max(later(lost, PAUSE));
    if now >= at {
        return None;
    }
    ctx.plan.wake(at);
    Some(Decision::Wait(told))
}

/// When the step began.
fn begun(ctx: &NodeContext<'_>) -> k8s_openapi::jiff::Timestamp {
    let begun = ctx.status.last_updated.as_ref().map(|time| time.0);
    begun.filter(|begun| *begun <= ctx.snapshot.now).unwrap_or(ctx.snapshot.now)
}

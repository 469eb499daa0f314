//! A Job that failed before anything of it had begun: the node's kubelet refused each of its pods, being full
//! or short of disk, or the container runtime could not start a container. That passes, whatever
//! `backoffLimit` says, which counts tries of the operation: the Job is made again, with pauses, for as long
//! as a pod may take to start.
//!
//! First the status forgets the Job's UID, and then the Job, which has failed and can run nothing any more,
//! is deleted. Another one of its name is made when it is gone.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::{
    model::{
        effects::{Effects, Planned},
        snapshot::{JobView, PodView},
        time::later,
    },
    node::{
        cancel,
        context::{Decision, NodeContext},
        failure::Failure,
        legacy,
        state::{At, Entry, JobRecord, State, WaiterRecord, Working},
        waiting::{NotBegun, Waiting},
    },
};

/// The pause before the Job is made again, at first …
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// … growing with the time for which none could start already, up to this.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(120);

/// What follows from the failure of a Job of which nothing has begun; nothing of any other.
pub fn again(ctx: &NodeContext<'_>, job: &JobView) -> Option<Decision> {
    let pods: Vec<&PodView> = ctx.job_pods(&job.uid).map(AsRef::as_ref).collect();
    if legacy::is_adopted(ctx) || !ctx.snapshot.never_began(job, &pods) {
        return None;
    }
    let obstacle = pods.iter().max_by_key(|pod| (pod.created, &pod.name))?.obstacle()?;
    if obstacle.permanent {
        return Some(Failure::JobCannotStart { why: obstacle.text }.gives_up_untouched());
    }
    let (now, limit) = (ctx.snapshot.now, ctx.op.intent.pull_timeout);
    let why = NotBegun::Pod(obstacle.text);
    if now >= later(ctx.begun_at(ctx.entry.since), limit) {
        return Some(Failure::JobLate { seconds: limit.as_secs(), why }.gives_up_untouched());
    }
    let refused_since = if let At::Job { refused_since, .. } = ctx.work.at { refused_since } else { None };
    let work = Working {
        at: At::Job { refused_since: refused_since.or(Some(now)), let_go_in: None },
        job: Some(JobRecord { name: job.name.clone(), uid: None }),
        waiter: WaiterRecord { lost_at: Some(now), ..ctx.work.waiter },
        ..ctx.work.clone()
    };
    let (message, state) = (Some(Waiting::JobNotBegun(why).to_string()), State::Working(work.into()));
    Some(Decision::Record(Box::new(Entry { message, state, ..ctx.entry.clone() })))
}

/// A Job that has failed and is recorded no more makes room for the next one.
pub fn make_room(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let why = "no pod of it could start, it is made again";
    let delete = (!job.deleting).then(|| cancel::delete(&ctx.op.id, job, why));
    told(ctx).with(Effects::act(delete))
}

/// Waits before the Job is made again, if it is too early. A moment that lies in the future is of another
/// leader's clock, and past.
pub fn pause(ctx: &NodeContext<'_>, refused_since: Timestamp) -> Option<Planned<Decision>> {
    let now = ctx.snapshot.now;
    let lost = ctx.work.waiter.lost_at.filter(|lost| *lost <= now)?;
    let pause = (lost.duration_since(refused_since) / 4).clamp(PAUSE, MAX_PAUSE);
    // The last try is made when the time is over.
    let end = later(ctx.begun_at(ctx.entry.since), ctx.op.intent.pull_timeout);
    let at = later(lost, pause).min(end).max(later(lost, PAUSE));
    (now < at).then(|| told(ctx).with(Effects::wake_at(at)))
}

/// What was said of the last pod, which is gone, still stands.
fn told(ctx: &NodeContext<'_>) -> Waiting {
    ctx.entry.message.clone().map_or(Waiting::JobMade, Waiting::AsTold)
}

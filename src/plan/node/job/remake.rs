//! A Job that is made again, since nothing of the one before it had begun (see `failed`), or only to record its
//! success (see `unrecorded`): when that one is gone, after a pause.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::{
    model::{
        effects::{Effects, Planned},
        snapshot::JobView,
        time::later,
    },
    node::{
        cancel,
        context::{Decision, NodeContext},
        state::{At, Entry, JobRecord, JobStep, Remade, State, WaiterRecord, Working},
        waiting::Waiting,
    },
};

/// The pause before the Job is made again, at first. It grows with the time for which none could start.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// The pause before the Job is made again, at most.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(120);

/// The status forgets the UID of a Job that has failed: it makes room for another one of its name, for which
/// that is why.
pub fn another(ctx: &NodeContext<'_>, job: &JobView, remade: Remade, why: &Waiting) -> Decision {
    let work = Working {
        at: At::Job(JobStep { let_go_in: None, remade: Some(remade) }),
        job: Some(JobRecord { name: job.name.clone(), uid: None }),
        waiter: WaiterRecord { lost_at: Some(ctx.snapshot.now.into()), ..ctx.work.waiter },
        ..ctx.work.clone()
    };
    let (message, state) = (Some(why.to_string()), State::Working(work.into()));
    Decision::Record(Box::new(Entry { message, state, ..ctx.entry.clone() }))
}

/// A Job that has failed and is recorded no more makes room for the next one.
pub fn make_room(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let why = "it has failed, and is made again";
    let delete = (!job.deleting).then(|| cancel::delete(&ctx.op.id, job, why));
    told(ctx).with(Effects::act(delete))
}

/// Waits before the Job is made again, if it is too early.
pub fn pause(ctx: &NodeContext<'_>, step: &JobStep) -> Planned<Option<Decision>> {
    let (Some(since), Some(lost)) = (step.remade_since(), ctx.work.waiter.lost_at) else {
        return None.into();
    };
    let (since, lost) = (ctx.snapshot.begun_at(since), ctx.snapshot.begun_at(lost));
    let pause = (lost.duration_since(since) / 4).clamp(PAUSE, MAX_PAUSE);
    // The last try is made when the time is over.
    let end = match ctx.work.succeeded_in() {
        Some(_) => record_until(ctx, since),
        None => later(ctx.begun_at(ctx.entry.since), ctx.op.intent.pull_timeout),
    };
    let at = later(lost, pause).min(end).max(later(lost, PAUSE));
    if ctx.snapshot.now >= at {
        return None.into();
    }
    told(ctx).with(Effects::wake_at(at)).map(Some)
}

/// Until when it is tried to record a success: as long as a pod may take to start.
pub fn record_until(ctx: &NodeContext<'_>, since: Timestamp) -> Timestamp {
    later(since, ctx.op.intent.pull_timeout)
}

/// What was said of the last pod, which is gone, still stands.
fn told(ctx: &NodeContext<'_>) -> Waiting {
    ctx.entry.message.clone().map_or(Waiting::JobMade, Waiting::AsTold)
}

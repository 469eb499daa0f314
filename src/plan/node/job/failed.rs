//! What follows from a Job's failure: the node has failed, unless the operation has succeeded, as the record
//! of the Job's own pod says, or beside a container of somebody else that failed; or the Job is made again
//! since nothing of it had begun. The node's kubelet refused each of its pods then, being full or short of
//! disk, or evicted one that still waited, or the container runtime could not start a container. That passes,
//! whatever `backoffLimit` says, which counts tries of the operation: the Job is made again, with pauses, for
//! as long as a pod may take to start. If its deadline ran out meanwhile, the node is given back as it was.
//!
//! First the status forgets the Job's UID, and then the Job, which has failed and can run nothing any more,
//! is deleted. Another one of its name is made when it is gone (see `remake`).

use k8s_openapi::jiff::SignedDuration;

use super::{outcome, pods::JobPods, remake, unrecorded};
use crate::{
    contract::{BadEnd, Sentinel},
    plan::{
        model::{
            effects::{Effects, Planned},
            question::Question,
            snapshot::{ContainerView, JobState, JobView, Obstacle, PodView},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::{Failure, JobEnd, NextPod},
            state::{At, Remade},
            waiting::{NotBegun, Waiting},
        },
    },
};

/// Within this time after a Job's failure the cache shows the end of those of its pods that are still there.
const PODS_SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// The reason of the Job controller when `activeDeadlineSeconds` has passed.
const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// Whether a Job with this reason has failed because its time was over.
pub fn ran_out(why: &str) -> bool {
    why.starts_with(DEADLINE_EXCEEDED)
}

/// The Job fails once its pods have ended. One that has recorded its success, and was deleted, is gone as
/// soon as its end is counted, so that is taken at once. A node that is away may never end them.
pub fn failing(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>, why: &str) -> Planned<Decision> {
    if ctx.node.ready && recorded_after_all(ctx, pods).is_none() {
        return Waiting::JobFailing { why: why.to_owned() }.into();
    }
    failed(ctx, job, pods, why)
}

/// The Job has failed, and this is why.
pub fn failed(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>, why: &str) -> Planned<Decision> {
    // Jobs and pods come by two watches, and the pods know why. One that the cache shows still at work says
    // nothing yet.
    let until = later(ctx.snapshot.failed_since(job), PODS_SEEN_WITHIN);
    let unseen = i32::try_from(pods.count_failed()).is_ok_and(|ended| ended < job.failed);
    if unseen && ctx.snapshot.now < until {
        return Waiting::JobPodsUnread { why: why.to_owned() }.with(Effects::wake_at(until));
    }
    // It was failed by a container of somebody else. Its waiter takes it for a failure and ends; the next one
    // is told that the operation has succeeded.
    if let Some(beside) = pods.succeeded_beside(&job.state) {
        if let Some(next) = outcome::another_content(ctx, pods) {
            return next.into();
        }
        return outcome::succeeded_beside(ctx, pods, &beside);
    }
    // Its deadline ran out while nobody could tell that its pod was done. Its waiter takes that for a
    // failure, too.
    if let Some(found) = recorded_after_all(ctx, pods) {
        return outcome::another_content(ctx, pods)
            .unwrap_or_else(|| outcome::follow_sentinel(ctx, pods, found))
            .into();
    }
    heard_later(ctx, job, pods, why)
        .or_else(|| unrecorded::recorded_again(ctx, job, pods))
        .or_else(|| not_begun(ctx, job, pods, why))
        .unwrap_or_else(|| Failure::JobFailed { why: why.to_owned(), end: end(ctx, job, pods, why) }.into())
}

/// What the pods of a Job that has failed tell.
fn end(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>, why: &str) -> JobEnd {
    if ended_at_its_deadline(ctx, job, pods, why) {
        return JobEnd::AtItsDeadline;
    }
    let Some(said) = pods.last_message() else {
        let gone = job.failed > 0 && pods.all.is_empty();
        return if gone { JobEnd::PodsGone } else { JobEnd::Untold };
    };
    if ctx.op.intent.reboot && pods.succeeded_unrecorded() {
        return JobEnd::Unrecorded(said);
    }
    match pods.bad_end(ctx.op.intent.upgrade) {
        Some(BadEnd::NotRecorded) => JobEnd::NotRecorded(said),
        Some(BadEnd::Replaced | BadEnd::Interrupted | BadEnd::CutOff) => {
            JobEnd::Interrupted { said, before: pods.failure_before() }
        }
        None => JobEnd::Said(said),
    }
}

/// How a container ends that its kubelet kills: its grace is over.
const KILLED: i32 = 128 + 9;

/// Whether an upgrade was ended at its deadline, and no pod says how its agent came to an end. One that
/// writes is left to end in the grace of its pod, and is killed after that; the pod goes once it is counted.
fn ended_at_its_deadline(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>, why: &str) -> bool {
    let untold = || {
        let told = i32::try_from(pods.count_failed()).is_ok_and(|ended| ended >= job.failed);
        !told || pods.are_open() || pods.ended_with() == Some(KILLED)
    };
    ctx.op.intent.upgrade && ran_out(why) && ctx.snapshot.may_have_begun(job) && untold()
}

/// Waits for what a pod on a node that is away has to say. Its command goes on there without the API server,
/// and so does the record of its success, by which a reboot is due; and the slot is held for as long as the
/// node is away in any case.
fn heard_later(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    why: &str,
) -> Planned<Option<Decision>> {
    let until = later(ctx.snapshot.failed_since(job), ctx.op.intent.reboot_timeout);
    let may_record = ctx.op.intent.reboot && !ctx.op.deleting && pods.are_open();
    let waits = !ctx.node.ready && may_record && ctx.snapshot.now < until;
    if !waits {
        return None.into();
    }
    Waiting::JobFailing { why: why.to_owned() }.on(ctx.node).with(Effects::wake_at(until)).map(Some)
}

/// What the Job recorded of its success, where a reboot was to follow.
fn recorded_after_all(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Option<Sentinel> {
    pods.recorded_after_all().filter(|_| ctx.op.intent.reboot)
}

/// What follows from the end of a Job of which nothing had begun, whatever kept its pods from starting;
/// nothing of any other. The node is as it was. A deadline of the user's is over then, since it counts from
/// when the Job may run; otherwise it is made again for as long as a pod may take to start.
fn not_begun(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    why: &str,
) -> Planned<Option<Decision>> {
    let ran = || ctx.work.succeeded_in().is_some() || ctx.snapshot.may_have_begun(job);
    if !matches!(job.state, JobState::Failed(_)) || ran() {
        return None.into();
    }
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if ctx.snapshot.answer(&live).is_none() {
        return Waiting::JobPodsUnread { why: why.to_owned() }.with(live).map(Some);
    }
    let seen = pods.newest().and_then(PodView::obstacle).or_else(|| ctx.snapshot.last_obstacle(job).cloned());
    let lasts = |obstacle: &&Obstacle| obstacle.permanent || pods.newest().is_some_and(brought_nothing);
    if let Some(obstacle) = seen.as_ref().filter(lasts) {
        let why = obstacle.text.clone();
        return Some(Failure::JobCannotStart { why, pod: NextPod::First }.gives_up()).into();
    }
    let why_not = NotBegun::Pod(seen.map_or_else(|| why.to_owned(), |obstacle| obstacle.text));
    if ran_out(why) {
        let seconds = ctx.op.intent.job_deadline;
        return Some(Failure::JobLate { seconds, why: why_not, pod: NextPod::First }.gives_up()).into();
    }
    (!ctx.op.deleting).then(|| made_again(ctx, job, why_not)).into()
}

/// Whether a container of ours that comes before the operation has failed as often as the Job may try it. The
/// one that holds the node's lock never does: it ends with its pod, or with the node.
fn brought_nothing(pod: &PodView) -> bool {
    let bad = |it: &ContainerView| it.ended().is_some_and(|ended| ended.code != 0);
    let failed = |it: &ContainerView| it.is_ours() && !it.holds_lock() && bad(it);
    pod.reason.is_empty() && !pod.failed_to_start() && pod.containers.iter().any(failed)
}

fn made_again(ctx: &NodeContext<'_>, job: &JobView, why: NotBegun) -> Decision {
    let (now, limit) = (ctx.snapshot.now, ctx.op.intent.pull_timeout);
    let refused_since = if let At::Job(step) = &ctx.work.at { step.remade_since() } else { None };
    // Not since the step began, in which the Job may have waited for another node.
    let since = ctx.begun_at(refused_since);
    if now >= later(since, limit) {
        return Failure::JobLate { seconds: limit.as_secs(), why, pod: NextPod::First }.gives_up();
    }
    let remade = Remade::Refused { since: refused_since.unwrap_or_else(|| now.into()) };
    remake::another(ctx, job, remade, &Waiting::JobNotBegun(why))
}

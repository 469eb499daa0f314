//! A Job that is recorded, as it stands: let go, running, being ended, or over.

use k8s_openapi::jiff::SignedDuration;

use super::{failed, halted, make, outcome, pods::JobPods, start};
use crate::plan::{
    model::{
        action::{Action, Target},
        effects::{Effects, Planned},
        question::Question,
        snapshot::{JobState, JobView, PodPhase},
        time::later,
    },
    node::{
        cancel,
        context::{Decision, NodeContext},
        enforce::{self, claim_and_cordon},
        waiting::Waiting,
    },
};

/// Seconds after a Job was let go in which it may have a pod that no cache shows yet.
const POD_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Seconds by which the deadline of a Job is put off whose pod has succeeded.
const TIME_TO_COUNT: i64 = 60;

/// The Job that is recorded, as it stands.
pub fn advance(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let pods = JobPods::of(ctx, &job.uid);
    if let Some(wait) = unless_settled(ctx, job) {
        return wait;
    }
    match &job.state {
        JobState::Complete => {
            let next = outcome::another_content(ctx, &pods);
            // What the success leads to is recorded, and its waiter does not wait for that.
            let held_back = enforce::reboot(ctx, true).effects;
            next.map_or_else(|| outcome::succeeded(ctx, &pods), Into::into).with(held_back)
        }
        JobState::Failed(why) => failed::failed(ctx, job, &pods, why),
        JobState::Failing(why) => failed::failing(ctx, job, &pods, why),
        JobState::Active if job.deleting => Waiting::JobDeleted.into(),
        JobState::Active if ctx.op.deleting => cancel(ctx, job, pods.are_open()),
        JobState::Active if job.suspended => make::resume(ctx, job, &pods),
        JobState::Active => running(ctx, job, &pods),
    }
}

/// A Job says that it is settled: its operation has succeeded, and it must not run again. That was recorded
/// in the NodeOp before, which may not be seen yet, since the two come by two watches. So the NodeOp is read.
/// If it says nothing of a success, then the Job says so by somebody else's hand, and proves nothing.
fn unless_settled(ctx: &NodeContext<'_>, job: &JobView) -> Option<Planned<Decision>> {
    let live = Question::Op(ctx.op.id.clone());
    let unread =
        job.state == JobState::Active && job.settled_in.is_some() && ctx.snapshot.answer(&live).is_none();
    unread.then(|| Waiting::SuccessUnconfirmed.with(live))
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than
/// waiting. Its waiter does not wait with us: it sees the Job complete before we do, and would reboot the
/// node after all. `started`: whether it has a pod that may still run, as far as one sees.
pub fn cancel(ctx: &NodeContext<'_>, job: &JobView, started: bool) -> Planned<Decision> {
    if let Some(wait) = make::unseen_start(ctx, job) {
        return wait;
    }
    let until = later(ctx.snapshot.let_go_since(job), POD_VISIBLE_WITHIN);
    let unseen = Some(until).filter(|until| !job.suspended && ctx.snapshot.now < *until);
    if ctx.op.intent.upgrade && (started || unseen.is_some()) {
        let waiter = cancel::end_waiters(ctx.snapshot, ctx.op, &ctx.node.name);
        return Waiting::UpgradeLeftToEnd.with(unseen.map(Effects::wake_at).unwrap_or_default()).with(waiter);
    }
    Waiting::JobStopped.with(cancel::delete(&ctx.op.id, job, "its NodeOp was deleted"))
}

fn running(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Decision> {
    let mut effects = Effects::default();
    if let Some(next) = effects.absorb(claim_and_cordon(ctx)) {
        return next.with(effects);
    }
    match outcome::another_content(ctx, pods) {
        Some(_) if ctx.op.intent.upgrade => {
            effects.add(cancel::end_waiters(ctx.snapshot, ctx.op, &ctx.node.name));
        }
        Some(next) => return next.into(),
        None => {}
    }
    // The next waiter is made once the Job has succeeded, and the others are well.
    effects.add(enforce::reboot(ctx, true).effects);
    effects.add(Effects::act(extend_after_success(ctx, job, pods)));
    let why = "the operation has failed in it, and a container that is not ours still runs";
    let kept = pods.failed_but_open();
    effects.add(Effects::act(kept.map(|pod| Action::DeletePod { pod: Target::of(pod), why })));
    if let Some(beside) = pods.succeeded_beside(&job.state) {
        return outcome::succeeded_beside(ctx, pods, &beside).with(effects);
    }
    if let Some(next) = effects.absorb(halted::after_a_boot(ctx, job, pods)) {
        return next.with(effects);
    }
    start::began_or_waits(ctx, job, pods).with(effects)
}

/// A Job whose pod has succeeded must not fail of its deadline. The Job controller counts ended pods up to a
/// second after they ended, and a deadline that passes in between makes a failure of a success. So it is put
/// off, once. That also spares the node that second: a Job whose spec was changed is looked at without delay
/// (`syncJobBatchPeriod` of the controller is for changes of pods and of status).
fn extend_after_success(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Option<Action> {
    let given = ctx.op.intent.job_deadline;
    let succeeded = pods.all.iter().any(|pod| pod.phase == PodPhase::Succeeded);
    let deadline_seconds = given.checked_add(TIME_TO_COUNT)?;
    (succeeded && job.deadline_seconds == Some(given))
        .then(|| Action::ExtendJob { job: Target::of_job(job), deadline_seconds })
}

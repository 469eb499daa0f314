//! The operation itself: a Job on the node, allowed to run once its UID is recorded, and what came of it.

mod deadline;
mod injected;
mod message;
mod refused;
mod sentinel;
mod start;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

pub use self::sentinel::late_sentinel;
use self::{
    message::{RUNNING, termination_message, tries},
    sentinel::sentinel,
};
use crate::{
    api::nodeop::{RebootStatus, Step},
    contract::{Sentinel, reboot_state},
    plan::{
        image,
        model::{
            action::{Action, Notice, Target},
            failing,
            question::Question,
            snapshot::{JobState, JobView},
            time::later,
        },
        node::{
            cancel,
            context::{Decision, NodeContext},
            hold::hold,
            legacy,
            waiter::{self, Room, Waiter},
        },
    },
};

/// Seconds after a Job was let go in which it may have a pod that no cache shows yet.
const POD_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Advances a node in step `Job`.
pub fn advance(ctx: &mut NodeContext<'_>) -> Decision {
    let Some(name) = ctx.status.job_name.clone() else {
        return ctx.fail(
            "the status names no Job for this node; it was changed by somebody else. Create the NodeOp again",
        );
    };
    let key = (ctx.op.id.namespace.clone(), name.clone());
    match (ctx.status.job_uid.clone(), ctx.snapshot.jobs.get(&key).cloned()) {
        (None, None) => make(ctx, name),
        (None, Some(job)) => made(ctx, &job),
        (Some(uid), Some(job)) if job.uid == uid => recorded(ctx, &job),
        // An old view may show a Job that the recorded one replaced; a live read that still shows another one
        // is final.
        (Some(uid), _) if ctx.snapshot.answer(&Question::Job(key.clone())).is_some() => vanished(ctx, &uid),
        (Some(_), _) => {
            ctx.ask(Question::Job(key));
            Decision::Wait(format!("checking whether Job {name} still exists"))
        }
    }
}

/// The operation is next: its Job's name is recorded before the Job is made.
pub fn start_job(ctx: &NodeContext<'_>) -> Decision {
    let mut next = ctx.moved_to(Step::Job, "making the Job");
    next.job_name = Some(ctx.op.object_name(&ctx.node.name, "", 0));
    next.deadline = None;
    next.reboot_status =
        Some(if ctx.op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested });
    Decision::Record(Box::new(next))
}

fn make(ctx: &mut NodeContext<'_>, name: String) -> Decision {
    if ctx.op.deleting {
        return ctx.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(ctx).or_else(|| refused::pause(ctx)).or_else(|| waiter_gone(ctx, &name)) {
        return next;
    }
    let (op, node) = (ctx.op.object.clone(), ctx.node.name.clone());
    let make = Action::CreateJob { op, node, name };
    if let Some(next) = refused(ctx, &make) {
        return next;
    }
    ctx.act(make);
    Decision::Wait("making the Job".into())
}

/// A Job that cannot be made, or let go, keeps its node cordoned for nothing: after as long as a pod may take
/// to start, the node is failed, untouched by the operation.
fn refused(ctx: &mut NodeContext<'_>, action: &Action) -> Option<Decision> {
    let trouble = failing::of(ctx.snapshot, action)?;
    let deadline = later(ctx.begun_at(ctx.status.last_updated.as_ref()), ctx.op.intent.pull_timeout);
    if ctx.snapshot.now < deadline {
        ctx.plan.wake(deadline);
        return None;
    }
    Some(ctx.fail(format!(
        "the operation was not started in {} s: {trouble}",
        ctx.op.intent.pull_timeout.as_secs()
    )))
}

/// The waiter must stand at the moment at which the Job is made and let go, not only some time before.
fn waiter_gone(ctx: &mut NodeContext<'_>, job: &str) -> Option<Decision> {
    match waiter::ensure(ctx, job, Room::Made) {
        Waiter::NotAsked | Waiter::Ready => None,
        Waiter::Starting(why) => Some(Decision::Wait(format!("waiting for the reboot waiter: {why}"))),
        Waiter::Lost(next) | Waiter::Overdue(next) => Some(next),
    }
}

/// The Job is there and its UID is not in status yet: it has not run.
fn made(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    if !job.is_of(&ctx.op.id) {
        let taken = format!("a Job {}/{} exists that is not ours", job.namespace, job.name);
        let next = refused::next(ctx, &taken);
        return next.unwrap_or_else(|| ctx.fail(format!("{taken}; delete it and create the NodeOp again")));
    }
    if job.deleting {
        return Decision::Wait("an older Job of the same name is being deleted".into());
    }
    if ctx.op.deleting {
        return ctx.fail("the NodeOp was deleted before the operation started");
    }
    let uid = job.uid.clone();
    ctx.record(|status| (status.job_uid, status.message) = (Some(uid), Some(RUNNING.into())))
}

/// The Job that is recorded, as it stands.
fn recorded(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    match &job.state {
        JobState::Complete => succeeded(ctx, job),
        JobState::Failed(why) => failed(ctx, job, why),
        JobState::Failing(why) if !ctx.node.ready => failed(ctx, job, why),
        JobState::Failing(why) => Decision::Wait(format!("the Job has failed, its pods are ending: {why}")),
        JobState::Active if job.deleting => Decision::Wait("the Job is being deleted".into()),
        JobState::Active if ctx.op.deleting => cancel(ctx, job),
        JobState::Active if job.suspended => resume(ctx, job),
        JobState::Active => running(ctx, job),
    }
}

fn resume(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    if let Some(next) = hold(ctx).or_else(|| waiter_gone(ctx, &job.name)) {
        let ends = matches!(next, Decision::GiveUp(_));
        return if ends { unseen_start(ctx, job).unwrap_or(next) } else { next };
    }
    let resume = Action::ResumeJob { job: Target::of_job(job) };
    if let Some(next) = refused(ctx, &resume) {
        return unseen_start(ctx, job).unwrap_or(next);
    }
    if let Some(wait) = another_machine(ctx) {
        return wait;
    }
    ctx.act(resume);
    // It is made without a pod: one that has had any was resumed before.
    if ctx.job_pods(&job.uid).next().is_none() {
        return Decision::Wait(RUNNING.into());
    }
    let message = resumed_again(&job.name);
    // Said with the status that says it first.
    if ctx.status.message.as_ref() != Some(&message) {
        let name = &ctx.node.name;
        let said = format!("node {name}: {message}");
        ctx.say(Notice { warning: true, reason: "JobSuspended", message: said, node: None });
    }
    Decision::Wait(message)
}

/// A queue for Jobs, or a person, suspends what we have resumed, and the Job controller ends its pods for that.
fn resumed_again(job: &str) -> String {
    format!(
        "somebody suspended Job {job}, which ended its pods; it is resumed, and the operation begins anew"
    )
}

/// Before the operation starts, a live read of its node: in an old view a machine that has joined under the
/// same name since is not seen, which is neither claimed nor drained.
fn another_machine(ctx: &mut NodeContext<'_>) -> Option<Decision> {
    let question = Question::Node(ctx.node.name.clone());
    if ctx.snapshot.answer(&question).is_some() {
        return None;
    }
    ctx.ask(question);
    Some(Decision::Wait("checking that the node is still the same machine".into()))
}

/// Before a Job is ended as one that never ran, a live read: we may have let it go, and the cache not show it
/// yet.
fn unseen_start(ctx: &mut NodeContext<'_>, job: &JobView) -> Option<Decision> {
    let question = Question::Job((job.namespace.clone(), job.name.clone()));
    if !job.suspended || ctx.snapshot.answer(&question).is_some() {
        return None;
    }
    ctx.ask(question);
    Some(Decision::Wait(format!("checking whether Job {} has started", job.name)))
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than
/// waiting.
fn cancel(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    if let Some(wait) = unseen_start(ctx, job) {
        return wait;
    }
    // The pods of an adopted Job are not seen.
    let started = legacy::is_adopted(ctx) || ctx.job_pods(&job.uid).any(|pod| !pod.phase.is_final());
    let until = later(ctx.snapshot.let_go_since(job), POD_VISIBLE_WITHIN);
    let unseen = Some(until).filter(|until| !job.suspended && ctx.snapshot.now < *until);
    if ctx.op.intent.upgrade && (started || unseen.is_some()) {
        if let Some(until) = unseen {
            ctx.plan.wake(until);
        }
        return Decision::Wait("the NodeOp was deleted; the upgrade under way is left to end".into());
    }
    ctx.act(cancel::delete(&ctx.op.id, job, "its NodeOp was deleted"));
    Decision::Wait("the NodeOp was deleted; its Job is being deleted".into())
}

fn running(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    if let Some(next) = hold(ctx) {
        return next;
    }
    if let Some(next) = another_content(ctx, job).filter(|_| !ctx.op.intent.upgrade) {
        return next;
    }
    deadline::extend_after_success(ctx, job);
    injected::end_failed_tries(ctx, job);
    let others = injected::running_on(ctx, job);
    if !others.is_empty() {
        return succeeded_beside(ctx, job, &others);
    }
    let obstacle = start::obstacle(ctx, job);
    if legacy::is_adopted(ctx) || ctx.job_pods(&job.uid).any(|pod| pod.has_begun()) {
        return Decision::Wait(
            obstacle.map_or_else(|| tries(ctx, job), |obstacle| format!("{RUNNING}: {}", obstacle.text)),
        );
    }
    start::awaited(ctx, job, obstacle)
}

/// The operation has succeeded, and containers of somebody else keep its Job from completing.
fn succeeded_beside(ctx: &mut NodeContext<'_>, job: &JobView, others: &[String]) -> Decision {
    let others = others.join(", ");
    let said = || termination_message(ctx, job).map(|said| format!(": {said}")).unwrap_or_default();
    if !ctx.op.intent.reboot {
        let message = format!(
            "Job completed successfully{}; container {others}, which is not ours, still ran and is ended with it",
            said()
        );
        return ctx.complete(RebootStatus::NotRequested, message);
    }
    match sentinel(ctx, &job.uid) {
        Ok(found) if found.boot.is_empty() => {
            let message = format!(
                "nothing had to be changed{}; container {others}, which is not ours, is ended with the Job",
                said()
            );
            ctx.complete(RebootStatus::NotRequested, message)
        }
        Ok(found) => other_target(ctx, &found).unwrap_or_else(|| to_reboot(ctx, Some(found))),
        Err(_) => Decision::Wait(format!("{RUNNING}: the command has ended, container {others} has not")),
    }
}

/// The Job runs another content than the first node of the architecture did. Without a preflight nobody
/// knows before a pod of the Job has the image. An upgrade is left to end all the same: killing the agent
/// midway is worse.
fn another_content(ctx: &NodeContext<'_>, job: &JobView) -> Option<Decision> {
    if legacy::is_adopted(ctx) {
        return None;
    }
    let mut pods = ctx.job_pods(&job.uid);
    let why = pods.find_map(|pod| image::mismatch(ctx.snapshot, &ctx.op.object, pod))?;
    Some(ctx.fail(format!("the Job was stopped, or its result is not taken: {why}")))
}

fn succeeded(ctx: &mut NodeContext<'_>, job: &JobView) -> Decision {
    if let Some(next) = another_content(ctx, job) {
        return next;
    }
    if !ctx.op.intent.reboot {
        let message = termination_message(ctx, job).map_or_else(
            || "Job completed successfully".into(),
            |message| format!("Job completed successfully: {message}"),
        );
        return ctx.complete(RebootStatus::NotRequested, message);
    }
    if legacy::is_adopted(ctx) {
        let boot = legacy::succeeded(ctx);
        return boot
            .map_or_else(|next| next, |boot| to_reboot(ctx, Some(Sentinel { boot, ..Sentinel::default() })));
    }
    let found = match sentinel(ctx, &job.uid) {
        Ok(found) if found.boot.is_empty() => {
            let message = termination_message(ctx, job).unwrap_or_else(|| "nothing had to be changed".into());
            return ctx.complete(RebootStatus::NotRequested, message);
        }
        Ok(found) => match other_target(ctx, &found) {
            Some(next) => return next,
            None => Some(found),
        },
        Err(Some(why)) => return Decision::Wait(why.into()),
        // The Job's pod is gone. The waiter still knows the boot from the sentinel file, and its word is a
        // proof.
        Err(None) => None,
    };
    to_reboot(ctx, found)
}

/// A record that says another target than the image has, as its preflight read it, is not of this operation:
/// nothing is proved by it.
fn other_target(ctx: &NodeContext<'_>, found: &Sentinel) -> Option<Decision> {
    let (known, said) = (ctx.status.target.as_ref()?, found.target.as_ref()?);
    let message = || {
        format!(
            "the Job says that it installed {said}, and the image brings {known}: its word is not taken. Look at the node"
        )
    };
    (known != said).then(|| ctx.fail(message()))
}

fn to_reboot(ctx: &NodeContext<'_>, found: Option<Sentinel>) -> Decision {
    let mut next = ctx.moved_to(Step::Reboot, "Job completed, the node reboots");
    (next.boot, next.before, next.target) =
        found.map_or((None, None, None), |found| (Some(found.boot), found.before, found.target));
    next.reboot_status = Some(RebootStatus::Pending);
    next.machine_id = Some(ctx.node.machine_id.clone()).filter(|id| !id.is_empty());
    next.control_plane = ctx.node.control_plane().then_some(true);
    next.deadline = Some(Time(later(ctx.snapshot.now, ctx.op.intent.reboot_timeout)));
    (next.new_boot, next.since) = (None, None);
    Decision::Record(Box::new(next))
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
fn vanished(ctx: &mut NodeContext<'_>, uid: &str) -> Decision {
    if ctx.op.intent.reboot
        && !legacy::is_adopted(ctx)
        && matches!(waiter::went_on(ctx), Some(reboot_state::REBOOTING | reboot_state::COMPLETED))
    {
        return to_reboot(ctx, None);
    }
    if ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready)) {
        return Decision::Wait("the Job was deleted, its pods are ending".into());
    }
    if ctx.op.deleting {
        return ctx.fail("the NodeOp was deleted while the operation ran; its Job was stopped");
    }
    ctx.fail("Job not found: it was deleted before its outcome was known. Look at the node, then create the NodeOp again")
}

fn failed(ctx: &mut NodeContext<'_>, job: &JobView, why: &str) -> Decision {
    if let Some(next) = refused::begin_again(ctx, job, why) {
        return next;
    }
    let message = termination_message(ctx, job).map(|message| format!(": {message}")).unwrap_or_default();
    ctx.fail(format!("Job failed ({why}){message}"))
}

#[cfg(test)]
mod tests;

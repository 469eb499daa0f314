//! The operation itself: a Job on the node, allowed to run once its UID is recorded, and what came of it.

mod deadline;
mod injected;
mod message;
mod refused;
mod sentinel;
mod start;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use self::sentinel::late_sentinel;
use self::{
    message::{termination_message, tries},
    sentinel::{Record, sentinel},
};
use crate::{
    api::nodeop::RebootStatus,
    contract::{Sentinel, reboot_state},
    plan::{
        image,
        model::{
            action::{Action, Notice, Target},
            effects::{Effects, Planned},
            failing, object_name,
            question::Question,
            snapshot::{JobState, JobView},
            time::later,
        },
        node::{
            cancel,
            context::{Decision, NodeContext},
            failure::Failure,
            hold::hold,
            legacy,
            state::{At, Entry, Found, JobRecord, Reboot, State, WaiterRecord, Working},
            waiter::{self, Room, Waiter},
            waiting::Waiting,
        },
    },
};

/// Seconds after a Job was let go in which it may have a pod that no cache shows yet.
const POD_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Within this time after a Job's failure the cache shows those of its pods that are still there.
const PODS_SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Advances a node in step `Job`.
pub fn advance(ctx: &NodeContext<'_>, refused_since: Option<Timestamp>) -> Planned<Decision> {
    let JobRecord { name, uid } = ctx.work.job.clone().unwrap_or_else(|| record_of(ctx));
    let key = (ctx.op.id.namespace.clone(), name.clone());
    match (uid, ctx.snapshot.jobs.get(&key)) {
        (None, None) => make(ctx, name, refused_since),
        (None, Some(job)) => made(ctx, job),
        (Some(uid), Some(job)) if job.uid == uid => recorded(ctx, job),
        // An old view may show a Job that the recorded one replaced; a live read that still shows another one
        // is final.
        (Some(uid), _) if ctx.snapshot.answer(&Question::Job(key.clone())).is_some() => vanished(ctx, &uid),
        (Some(_), _) => Waiting::JobUnconfirmed { name }.with(Question::Job(key)),
    }
}

/// The operation is next: its Job's name is recorded before the Job is made.
pub fn start_job(ctx: &NodeContext<'_>) -> Decision {
    let reboot = if ctx.op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested };
    let work = Working {
        at: At::Job { refused_since: None },
        job: Some(record_of(ctx)),
        reboot: Some(reboot),
        ..ctx.work.clone()
    };
    ctx.move_to(work, Waiting::JobMade)
}

/// A Job that is not made yet.
fn record_of(ctx: &NodeContext<'_>) -> JobRecord {
    JobRecord { name: ctx.op.object_name(&ctx.node.name, "", 0), uid: None }
}

fn make(ctx: &NodeContext<'_>, name: String, refused_since: Option<Timestamp>) -> Planned<Decision> {
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    let mut effects = Effects::default();
    if let Some(next) = effects.take(held(ctx, &name)) {
        return next.with(effects);
    }
    if let Some(wait) = refused_since.and_then(|since| refused::pause(ctx, since)) {
        return wait.with(effects);
    }
    let (op, node) = (ctx.op.object.clone(), ctx.node.name.clone());
    let make = Action::CreateJob { op, node, name };
    if let Some(next) = effects.take(kept_failing(ctx, &make)) {
        return next.into();
    }
    Waiting::JobMade.with(effects).with(make)
}

/// A Job that cannot be made, or let go, keeps its node cordoned for nothing: after as long as a pod may take
/// to start, the node is failed, untouched by the operation.
fn kept_failing(ctx: &NodeContext<'_>, action: &Action) -> Planned<Option<Decision>> {
    let Some(trouble) = failing::of(ctx.snapshot, action) else { return None.into() };
    let deadline = later(ctx.begun_at(ctx.entry.since), ctx.op.intent.pull_timeout);
    if ctx.snapshot.now < deadline {
        return Planned::from(None).with(Effects::wake_at(deadline));
    }
    let seconds = ctx.op.intent.pull_timeout.as_secs();
    Some(Failure::JobNotStarted { seconds, trouble }.gives_up()).into()
}

/// What must hold at the moment at which the Job is made and let go, not only some time before: the node is
/// ours, and its waiter stands.
fn held(ctx: &NodeContext<'_>, job: &str) -> Planned<Option<Decision>> {
    let mut effects = Effects::default();
    if let Some(next) = effects.take(hold(ctx)) {
        return next.with(effects).map(Some);
    }
    let next = match effects.take(waiter::ensure(ctx, job, Room::Made)) {
        Waiter::NotAsked | Waiter::Ready => None,
        Waiter::Starting(why) => Some(Decision::Wait(Waiting::Waiter(why))),
        Waiter::Decided(next) => Some(next),
    };
    Planned { value: next, effects }
}

/// The Job is there and its UID is not in status yet: it has not run.
fn made(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if !job.is_of(&ctx.op.id) {
        return foreign(ctx, job);
    }
    if job.deleting {
        return Waiting::OldJobDeleted.into();
    }
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    if let JobState::Failed(_) = job.state {
        return refused::make_room(ctx, job);
    }
    let record = JobRecord { name: job.name.clone(), uid: Some(job.uid.clone()) };
    let state = State::Working(Box::new(Working { job: Some(record), ..ctx.work.clone() }));
    let message = Some(Waiting::JobRuns.to_string());
    Decision::Record(Box::new(Entry { message, state, ..ctx.entry.clone() })).into()
}

/// Somebody else's Job has the name, and nothing else: the next name is ours, and so is the waiter that watches
/// the Job of that name.
fn foreign(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let (node, of) = (&ctx.node.name, &ctx.op.id);
    let taken = Failure::ForeignJob { namespace: job.namespace.clone(), name: job.name.clone() };
    let next = object_name::job_attempt((&of.name, &of.uid), node, &job.name).map(|attempt| attempt + 1);
    let Some(next) = next.filter(|next| *next < object_name::MAX_JOBS && !ctx.op.deleting) else {
        return taken.into();
    };
    let mut effects = Effects::default();
    let number = ctx.work.waiter.number();
    if ctx.op.intent.reboot
        && let Some(open) = effects.take(cancel::waiter(ctx.snapshot, ctx.op, node, ctx.node.ready, number))
    {
        return Waiting::Ending { reason: taken.to_string(), open }.with(effects);
    }
    let now = ctx.snapshot.now;
    let attempt = if ctx.op.intent.reboot { Some(number.saturating_add(1)) } else { ctx.work.waiter.attempt };
    let recorded = ctx.record(|work| {
        work.job = Some(JobRecord { name: ctx.op.object_name(node, "", next), uid: None });
        work.waiter = WaiterRecord { attempt, lost_at: Some(now), wanted_since: Some(now) };
    });
    recorded.with(effects)
}

/// The Job that is recorded, as it stands.
fn recorded(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    match &job.state {
        JobState::Complete => succeeded(ctx, job),
        JobState::Failed(why) => failed(ctx, job, why),
        JobState::Failing(why) if !ctx.node.ready => failed(ctx, job, why),
        JobState::Failing(why) => Waiting::JobFailing { why: why.clone() }.into(),
        JobState::Active if job.deleting => Waiting::JobDeleted.into(),
        JobState::Active if ctx.op.deleting => cancel(ctx, job),
        JobState::Active if job.suspended => resume(ctx, job),
        JobState::Active => running(ctx, job),
    }
}

fn resume(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let mut effects = Effects::default();
    let resume = Action::ResumeJob { job: Target::of_job(job) };
    let next = effects.take(held(ctx, &job.name)).or_else(|| effects.take(kept_failing(ctx, &resume)));
    match next {
        Some(ends @ Decision::GiveUp(_)) => {
            return unseen_start(ctx, job).map_or_else(|| ends.into(), |wait| wait.with(effects));
        }
        Some(next) => return next.with(effects),
        None => {}
    }
    let question = Question::Node(ctx.node.name.clone());
    if ctx.snapshot.answer(&question).is_none() {
        // In an old view a machine that has joined under the same name since is not seen, which is neither
        // claimed nor drained.
        return Waiting::SameMachine.with(effects).with(question);
    }
    // It is made without a pod: one that has had any was resumed before. A queue for Jobs, or a person,
    // suspended it, and the Job controller ends its pods for that.
    if ctx.job_pods(&job.uid).next().is_none() {
        return Waiting::JobRuns.with(effects).with(resume);
    }
    let why = Waiting::JobResumed { name: job.name.clone() };
    // Said with the status that says it first.
    if ctx.entry.message.as_ref() != Some(&why.to_string()) {
        let message = format!("node {}: {why}", ctx.node.name);
        effects.add(Notice { warning: true, reason: "JobSuspended", message, node: None });
    }
    why.with(effects).with(resume)
}

/// Before a Job is ended as one that never ran, a live read: we may have let it go, and the cache not show it
/// yet.
fn unseen_start(ctx: &NodeContext<'_>, job: &JobView) -> Option<Planned<Decision>> {
    let question = Question::Job((job.namespace.clone(), job.name.clone()));
    let unseen = job.suspended && ctx.snapshot.answer(&question).is_none();
    unseen.then(|| Waiting::JobStart { name: job.name.clone() }.with(question))
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than
/// waiting.
fn cancel(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if let Some(wait) = unseen_start(ctx, job) {
        return wait;
    }
    // The pods of an adopted Job are not seen.
    let started = legacy::is_adopted(ctx) || ctx.job_pods(&job.uid).any(|pod| !pod.phase.is_final());
    let until = later(ctx.snapshot.let_go_since(job), POD_VISIBLE_WITHIN);
    let unseen = Some(until).filter(|until| !job.suspended && ctx.snapshot.now < *until);
    if ctx.op.intent.upgrade && (started || unseen.is_some()) {
        return Waiting::UpgradeLeftToEnd.with(unseen.map(Effects::wake_at).unwrap_or_default());
    }
    Waiting::JobStopped.with(cancel::delete(&ctx.op.id, job, "its NodeOp was deleted"))
}

fn running(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let mut effects = Effects::default();
    if let Some(next) = effects.take(hold(ctx)) {
        return next.with(effects);
    }
    if let Some(next) = another_content(ctx, job).filter(|_| !ctx.op.intent.upgrade) {
        return next.into();
    }
    effects.add(Effects::act(deadline::extend_after_success(ctx, job)));
    effects.add(injected::end_failed_tries(ctx, job));
    let others = injected::running_on(ctx, job);
    if !others.is_empty() {
        return succeeded_beside(ctx, job, others).with(effects);
    }
    let obstacle = effects.take(start::obstacle(ctx, job));
    if legacy::is_adopted(ctx) || ctx.job_pods(&job.uid).any(|pod| pod.has_begun()) {
        let why =
            obstacle.map_or_else(|| tries(ctx, job), |obstacle| Waiting::JobHeldUp { why: obstacle.text });
        return why.on(ctx.node).with(effects);
    }
    start::awaited(ctx, job, obstacle).with(effects)
}

/// The operation has succeeded, and containers of somebody else keep its Job from completing.
fn succeeded_beside(ctx: &NodeContext<'_>, job: &JobView, others: Vec<String>) -> Planned<Decision> {
    let names = others.join(", ");
    let said = || termination_message(ctx, job).map(|said| format!(": {said}")).unwrap_or_default();
    if !ctx.op.intent.reboot {
        let message = format!(
            "Job completed successfully{}; container {names}, which is not ours, still ran and is ended with it",
            said()
        );
        return ctx.complete(RebootStatus::NotRequested, message).into();
    }
    match sentinel(ctx, &job.uid) {
        Record::Found(found) if found.boot.is_empty() => {
            let message = format!(
                "nothing had to be changed{}; container {names}, which is not ours, is ended with the Job",
                said()
            );
            ctx.complete(RebootStatus::NotRequested, message).into()
        }
        Record::Found(found) => reboot_due(ctx, found).into(),
        Record::Lags | Record::Gone => Waiting::OtherContainers { names }.into(),
    }
}

/// The Job runs another content than the first node of the architecture did. Without a preflight nobody knows
/// before a pod of the Job has the image. An upgrade is left to end all the same: killing the agent midway is
/// worse.
fn another_content(ctx: &NodeContext<'_>, job: &JobView) -> Option<Decision> {
    if legacy::is_adopted(ctx) {
        return None;
    }
    let mut pods = ctx.job_pods(&job.uid);
    let why = pods.find_map(|pod| image::mismatch(ctx.snapshot, &ctx.op.object, pod))?;
    Some(Failure::OtherContent { why }.gives_up())
}

fn succeeded(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if let Some(next) = another_content(ctx, job) {
        return next.into();
    }
    if !ctx.op.intent.reboot {
        let message = termination_message(ctx, job).map_or_else(
            || "Job completed successfully".into(),
            |message| format!("Job completed successfully: {message}"),
        );
        return ctx.complete(RebootStatus::NotRequested, message).into();
    }
    if legacy::is_adopted(ctx) {
        let Planned { value, effects } = legacy::boot_to_leave(ctx);
        return match value {
            Some(boot) => to_reboot(ctx, Some(Sentinel { boot, ..Sentinel::default() })).into(),
            None if effects.questions.is_empty() => Failure::RebootNotProved.into(),
            None => Waiting::BootBeforeReboot.with(effects),
        };
    }
    match sentinel(ctx, &job.uid) {
        Record::Found(found) if found.boot.is_empty() => {
            let message = termination_message(ctx, job).unwrap_or_else(|| "nothing had to be changed".into());
            ctx.complete(RebootStatus::NotRequested, message).into()
        }
        Record::Found(found) => reboot_due(ctx, found).into(),
        Record::Lags => Waiting::JobPodLags.into(),
        // The waiter still knows the boot from the sentinel file, and its word is a proof.
        Record::Gone => to_reboot(ctx, None).into(),
    }
}

/// The operation has succeeded in the boot that the record names. One that names another target than the image
/// has, as its preflight read it, is not of this operation: nothing is proved by it.
fn reboot_due(ctx: &NodeContext<'_>, found: Sentinel) -> Decision {
    match (&ctx.work.found.target, &found.target) {
        (Some(known), Some(said)) if known != said => {
            Failure::OtherTarget { known: known.clone(), said: said.clone() }.gives_up()
        }
        _ => to_reboot(ctx, Some(found)),
    }
}

/// The operation has succeeded, in the boot that its record names if there is one.
fn to_reboot(ctx: &NodeContext<'_>, sentinel: Option<Sentinel>) -> Decision {
    let (left, before, target) =
        sentinel.map_or((None, None, None), |found| (Some(found.boot), found.before, found.target));
    let reboot = Reboot {
        left,
        deadline: later(ctx.snapshot.now, ctx.op.intent.reboot_timeout),
        machine_id: Some(ctx.node.machine_id.clone()).filter(|id| !id.is_empty()),
        control_plane: ctx.node.control_plane(),
        seen: None,
    };
    let work = Working {
        at: At::Reboot(reboot),
        found: Found { before, target, ..ctx.work.found.clone() },
        waiter: WaiterRecord { lost_at: None, ..ctx.work.waiter },
        reboot: Some(RebootStatus::Pending),
        ..ctx.work.clone()
    };
    ctx.move_to(work, Waiting::Reboot)
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
fn vanished(ctx: &NodeContext<'_>, uid: &str) -> Planned<Decision> {
    if ctx.op.intent.reboot
        && !legacy::is_adopted(ctx)
        && matches!(waiter::went_on(ctx), Some(reboot_state::REBOOTING | reboot_state::COMPLETED))
    {
        return to_reboot(ctx, None).into();
    }
    if ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready)) {
        return Waiting::JobPodsEnd.into();
    }
    if ctx.op.deleting { Failure::DeletedWhileRunning.into() } else { Failure::JobVanished.into() }
}

fn failed(ctx: &NodeContext<'_>, job: &JobView, why: &str) -> Planned<Decision> {
    // Jobs and pods come by two watches, and the pods know why.
    let until = later(ctx.snapshot.failed_since(job), PODS_SEEN_WITHIN);
    let unseen = i32::try_from(ctx.job_pods(&job.uid).count()).is_ok_and(|seen| seen < job.failed);
    if unseen && ctx.snapshot.now < until && !legacy::is_adopted(ctx) {
        return Waiting::JobPodsUnread { why: why.to_owned() }.with(Effects::wake_at(until));
    }
    if let Some(next) = refused::again(ctx, job).filter(|_| !ctx.op.deleting) {
        return next.into();
    }
    let message = termination_message(ctx, job).or_else(|| {
        let gone = job.failed > 0 && ctx.job_pods(&job.uid).next().is_none() && !legacy::is_adopted(ctx);
        gone.then(|| "none of its pods is left to say why, as when somebody deletes them".to_owned())
    });
    Failure::JobFailed { why: why.to_owned(), message }.into()
}

#[cfg(test)]
mod tests;

//! A Job that has not run: it is made suspended, and let go once its UID is recorded.

use super::{pods::JobPods, remake};
use crate::plan::{
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
        enforce,
        failure::Failure,
        state::{At, Entry, GivenUp, JobRecord, JobStep, State, Touched, WaiterRecord, Working},
        waiter::{self, Room, Waiter},
        waiting::Waiting,
    },
};

pub fn make(ctx: &NodeContext<'_>, name: String, step: &JobStep) -> Planned<Decision> {
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    let guards = preconditions(ctx, &name).or_else(|| remake::pause(ctx, step));
    let (op, node) = (ctx.op.object.clone(), ctx.node.name.clone());
    let make = Action::CreateJob { op, node, locks: ctx.node.native_sidecars, name };
    guards.or_else(|| kept_failing(ctx, &make)).unwrap_or_else(|| {
        // It is there in a moment, and what was told of the preparations stands until then.
        let told = ctx.entry.message.clone().filter(|_| matches!(ctx.work.at, At::Drain(_)));
        let told = told.filter(|_| failing::of(ctx.snapshot, &make).is_none());
        told.map_or(Waiting::JobMade, Waiting::AsTold).with(make)
    })
}

/// A Job that cannot be made, or let go, keeps its node cordoned for nothing: after as long as a pod may take
/// to start, the node is failed, untouched by the operation.
fn kept_failing(ctx: &NodeContext<'_>, action: &Action) -> Planned<Option<Decision>> {
    let Some(error) = failing::of(ctx.snapshot, action) else { return None.into() };
    // Not since the step began, in which the Job may have waited for another node.
    let since = failing::since(ctx.snapshot, action).unwrap_or(ctx.snapshot.now);
    let deadline = later(since.max(ctx.begun_at(ctx.entry.since)), ctx.op.intent.pull_timeout);
    if ctx.snapshot.now < deadline {
        return Planned::from(None).with(Effects::wake_at(deadline));
    }
    let seconds = ctx.op.intent.pull_timeout.as_secs();
    Some(Failure::JobNotStarted { seconds, error }.gives_up()).into()
}

/// What must hold at the moment at which the Job is made and let go, not only some time before: the node is
/// ours, the other control-plane nodes are well if it is one of them, and its waiter stands.
fn preconditions(ctx: &NodeContext<'_>, job: &str) -> Planned<Option<Decision>> {
    let waiter = || {
        waiter::ensure(ctx, job, Room::Made).map(|waiter| match waiter {
            Waiter::NotAsked | Waiter::Ready => None,
            Waiter::Starting(why) => Some(Decision::Wait(Waiting::Waiter(why))),
            Waiter::Decided(next) => Some(next),
        })
    };
    enforce::claim_and_cordon(ctx)
        .or_else(|| enforce::taken_over(ctx).into())
        .or_else(|| enforce::quorum(ctx))
        .or_else(waiter)
}

/// The Job is there and its UID is not in status yet: it has not run.
pub fn made(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
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
        return remake::make_room(ctx, job);
    }
    let record = Some(JobRecord { name: job.name.clone(), uid: Some(job.uid.clone()) });
    let boot = Some(ctx.node.boot_id.clone()).filter(|boot| !boot.is_empty());
    if let At::Job(step) = ctx.work.at.clone() {
        let at = At::Job(JobStep { let_go_in: boot, ..step });
        let state = State::Working(Box::new(Working { at, job: record, ..ctx.work.clone() }));
        let message = Some(Waiting::JobRuns.to_string());
        return Decision::Record(Box::new(Entry { message, state, ..ctx.entry.clone() })).into();
    }
    let at = At::Job(JobStep { let_go_in: boot, ..JobStep::default() });
    let work = Working { at, job: record, reboot: Some(ctx.reboot_asked()), ..ctx.work.clone() };
    ctx.move_to(work, Waiting::JobRuns).into()
}

/// Somebody else's Job has the name, and nothing else: the next name is ours, and so is the waiter that
/// watches the Job of that name.
fn foreign(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    let (node, of) = (&ctx.node.name, &ctx.op.id);
    let taken = Failure::ForeignJob { namespace: job.namespace.clone(), name: job.name.clone() };
    let next = object_name::attempt((&of.name, &of.uid), node, "", &job.name).map(|attempt| attempt + 1);
    let Some(next) = next.filter(|next| *next < object_name::MAX_ATTEMPTS && !ctx.op.deleting) else {
        return taken.into();
    };
    let mut effects = Effects::default();
    let number = ctx.work.waiter.number();
    if ctx.op.intent.reboot
        && let Some(open) = effects.absorb(cancel::waiter(ctx.snapshot, ctx.op, node, ctx.node.ready, number))
    {
        return Waiting::Ending { reason: taken.to_string(), open }.with(effects);
    }
    let now = ctx.snapshot.now;
    let attempt = if ctx.op.intent.reboot { Some(number.saturating_add(1)) } else { ctx.work.waiter.attempt };
    let recorded = ctx.record(|work| {
        work.job = Some(JobRecord { name: ctx.op.object_name(node, "", next), uid: None });
        work.waiter = WaiterRecord { attempt, lost_at: Some(now.into()), wanted_since: Some(now.into()) };
    });
    recorded.with(effects)
}

pub fn resume(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Decision> {
    let (target, resource_version) = (Target::of_job(job), job.resource_version.clone());
    // It is made without a pod: one that has had any was resumed before. A queue for Jobs, or a person,
    // suspended it, and the Job controller ends its pods for that.
    let halted = (!pods.all.is_empty()).then(|| Waiting::JobResumed { name: job.name.clone() });
    let notice = halted.as_ref().map(|why| {
        let message = format!("node {}: {why}", ctx.node.name);
        Box::new(Notice { warning: true, reason: "JobSuspended", message, node: None })
    });
    let resume = Action::ResumeJob { job: target, resource_version, op: ctx.op.object.clone(), notice };
    let Planned { value, effects } = preconditions(ctx, &job.name).or_else(|| kept_failing(ctx, &resume));
    match value {
        Some(Decision::GiveUp(given_up)) => {
            // Its UID is recorded, and it was not let go. Whether it had run before somebody suspended it,
            // `give_up` asks.
            let untouched = GivenUp { touched: Touched::No, ..given_up };
            return unseen_start(ctx, job)
                .unwrap_or_else(|| Decision::GiveUp(untouched).into())
                .with(effects);
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
    if !ctx.snapshot.may_have_begun(job)
        && let Some(recorded) = in_this_boot(ctx)
    {
        return Planned::from(recorded).with(effects);
    }
    halted.unwrap_or(Waiting::JobRuns).with(effects).with(resume)
}

/// Records that the Job is let go in the boot that the node is in now, if that is another one than when its
/// UID was recorded: it may have waited for hours, for another control-plane node, say.
fn in_this_boot(ctx: &NodeContext<'_>) -> Option<Decision> {
    let here = Some(&ctx.node.boot_id).filter(|boot| !boot.is_empty())?;
    let At::Job(step) = &ctx.work.at else { return None };
    let is_new = step.let_go_in.as_ref() != Some(here);
    let step = JobStep { let_go_in: Some(here.clone()), ..step.clone() };
    is_new.then(|| ctx.record(|work| work.at = At::Job(step)))
}

/// Before a Job is ended as one that never ran, a live read: we may have let it go, and the cache not show it
/// yet.
pub fn unseen_start(ctx: &NodeContext<'_>, job: &JobView) -> Option<Planned<Decision>> {
    let question = Question::Job((job.namespace.clone(), job.name.clone()));
    let unseen = job.suspended && ctx.snapshot.answer(&question).is_none();
    unseen.then(|| Waiting::JobStart { name: job.name.clone() }.with(question))
}

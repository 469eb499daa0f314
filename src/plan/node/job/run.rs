//! A Job that is recorded, as it stands: let go, running, being ended, or over.

use k8s_openapi::jiff::SignedDuration;

use super::{
    deadline, injected, make,
    message::{termination_message, tries},
    outcome,
    sentinel::{Record, sentinel},
    start,
};
use crate::{
    api::nodeop::RebootStatus,
    plan::{
        model::{
            effects::{Effects, Planned},
            snapshot::{JobState, JobView},
            time::later,
        },
        node::{
            cancel,
            context::{Decision, NodeContext},
            hold::hold,
            legacy,
            waiting::Waiting,
        },
    },
};

/// Seconds after a Job was let go in which it may have a pod that no cache shows yet.
const POD_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// The Job that is recorded, as it stands.
pub fn recorded(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    match &job.state {
        JobState::Complete => outcome::succeeded(ctx, job),
        JobState::Failed(why) => outcome::failed(ctx, job, why),
        JobState::Failing(why) if !ctx.node.ready => outcome::failed(ctx, job, why),
        JobState::Failing(why) => Waiting::JobFailing { why: why.clone() }.into(),
        JobState::Active if job.deleting => Waiting::JobDeleted.into(),
        JobState::Active if ctx.op.deleting => cancel(ctx, job),
        JobState::Active if job.suspended => make::resume(ctx, job),
        JobState::Active => running(ctx, job),
    }
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than
/// waiting.
fn cancel(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if let Some(wait) = make::unseen_start(ctx, job) {
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
    if let Some(next) = outcome::another_content(ctx, job).filter(|_| !ctx.op.intent.upgrade) {
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
        let why = obstacle
            .map(|obstacle| obstacle.text)
            .or_else(|| effects.take(start::locked(ctx, job)).map(|locked| locked.to_string()));
        let why = why.map_or_else(|| tries(ctx, job), |why| Waiting::JobHeldUp { why });
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
        Record::Found(found) => outcome::reboot_due(ctx, found).into(),
        Record::Lags | Record::Gone => Waiting::OtherContainers { names }.into(),
    }
}

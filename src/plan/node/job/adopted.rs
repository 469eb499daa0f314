//! A Job that the Go operator made. Its pods carry no label of ours, so that no watch shows them: what became
//! of it the Job's own status tells, and what keeps its pod Events do. It is never made again, and its reboot
//! pod is not ours either.

use super::{
    failed, make, outcome,
    pods::JobPods,
    run,
    start::{POD_EXPECTED_WITHIN, about},
};
use crate::{
    contract::Sentinel,
    plan::{
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            intent::MAX_SECONDS,
            question::Regarding,
            snapshot::{JobState, JobView, News},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            end::End,
            enforce::claim_and_cordon,
            failure::{Failure, JobEnd},
            legacy,
            waiting::{NotBegun, Waiting},
        },
    },
};

/// By how many seconds the clock of the API server may be ahead of ours, for a Job that must not be ended too
/// early.
const APART: i64 = 3600;

/// The Job, as it stands.
pub fn advance(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    match &job.state {
        JobState::Complete if ctx.op.intent.reboot => leaves_its_boot(ctx),
        JobState::Complete => ctx.end(&End::Ran(None)).into(),
        JobState::Failing(why) if ctx.node.ready => Waiting::JobFailing { why: why.clone() }.into(),
        JobState::Failed(why) | JobState::Failing(why) => {
            let at_its_deadline = ctx.op.intent.upgrade && failed::ran_out(why) && job.failed > 0;
            let end = if at_its_deadline { JobEnd::AtItsDeadline } else { JobEnd::Untold };
            Failure::JobFailed { why: why.clone(), end }.into()
        }
        JobState::Active if job.deleting => Waiting::JobDeleted.into(),
        JobState::Active if ctx.op.deleting => run::cancel(ctx, job, true).with(bound(ctx, job)),
        JobState::Active if job.suspended => make::resume(ctx, job, &JobPods::of(ctx, &job.uid)),
        JobState::Active => claim_and_cordon(ctx).unwrap_or_else(|| runs(ctx, job)).with(bound(ctx, job)),
    }
}

/// What bounds it: one whose image cannot be pulled would hold its node for ever, also when its NodeOp is
/// deleted. The Go operator sets no deadline. It has the whole time from now on, whatever it had before.
fn bound(ctx: &NodeContext<'_>, job: &JobView) -> Effects {
    let had = job.started_at.map_or(0, |since| ctx.snapshot.now.as_second() - since.as_second());
    let had = had.max(0).saturating_add(APART);
    let deadline_seconds = ctx.op.intent.job_deadline.saturating_add(had).min(MAX_SECONDS);
    let bound = Action::ExtendJob { job: Target::of_job(job), deadline_seconds };
    Effects::act(job.deadline_seconds.is_none().then_some(bound))
}

fn leaves_its_boot(ctx: &NodeContext<'_>) -> Planned<Decision> {
    let Planned { value, effects } = legacy::boot_to_leave(ctx);
    match value {
        Some(boot) => outcome::to_reboot(ctx, Some(Sentinel { boot, ..Sentinel::default() }), None).into(),
        None if !effects.is_asking() => Failure::RebootNotProved.into(),
        None => Waiting::BootBeforeReboot.with(effects),
    }
}

fn runs(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    held_up(ctx, job).map(|why| {
        let held_up = why.map(|why| Waiting::JobHeldUp { why: why.to_string() });
        Decision::Wait(held_up.unwrap_or(Waiting::JobRuns).on(ctx.node))
    })
}

/// What keeps its pod, or the Job from having one, as Events tell. What the Go operator made is not tried.
fn held_up(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Option<NotBegun>> {
    if job.has_ready_pod {
        return None.into();
    }
    let due = later(ctx.snapshot.idle_since(job), POD_EXPECTED_WITHIN);
    if ctx.snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let again = Effects::wake_at(later(ctx.snapshot.now, POD_EXPECTED_WITHIN));
    let (of, why): (_, fn(String) -> NotBegun) =
        if job.has_pod { (Regarding::PodsOfJob, NotBegun::Pod) } else { (Regarding::Job, NotBegun::NotMade) };
    let question = about(job, of);
    let why = match ctx.snapshot.news(&question) {
        Some(News::Warns(said)) => Some(why(said.to_owned())),
        Some(News::Pulls(_) | News::Nothing) | None => None,
    };
    Planned::from(why).with(again).with(ctx.snapshot.unanswered([question]))
}

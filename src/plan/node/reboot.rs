//! The reboot, proved: another boot id than the one in which the operation succeeded, and Ready in it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::nodeop::{Phase, RebootStatus, Step},
    contract::reboot_state,
    plan::{
        model::{
            action::{Action, Target},
            question::Question,
            snapshot::JobState,
            time::later,
        },
        node::{
            context::{Decision, NodeContext, finished},
            hold::hold,
            job, legacy,
            waiter::{self, Room, Waiter},
        },
    },
};

/// All is well, and the node is on its way.
const REBOOTS: &str = "Job completed, the node reboots";

/// Another boot id shows, and is read live before it counts.
pub const CONFIRMS: &str = "the node rebooted; reading its boot id once more";

/// Advances a node in step `Reboot`.
pub fn advance(ctx: &mut NodeContext<'_>) -> Decision {
    if ctx.status.boot.is_none()
        && let Some(next) = job::late_sentinel(ctx)
    {
        return next;
    }
    let deadline = ctx.deadline(ctx.op.intent.reboot_timeout).unwrap_or(ctx.snapshot.now);
    if ctx.snapshot.now < deadline {
        ctx.plan.wake(deadline);
    }
    match arrival(ctx) {
        Arrival::Proved => return back(ctx, deadline),
        Arrival::Unconfirmed(question) => {
            ctx.ask(question);
            return Decision::Wait(CONFIRMS.into());
        }
        Arrival::No => {}
    }
    if ctx.snapshot.now >= deadline {
        return time_out(ctx);
    }
    if legacy::is_reboot_over(ctx) {
        return ctx.fail(legacy::NOT_PROVED);
    }
    let asked = waiter::says(ctx) == Some(reboot_state::REBOOTING);
    let known = ctx.status.boot.is_some();
    let went_on = waiter::went_on(ctx).filter(|_| !known);
    if ctx.op.deleting && !asked && went_on.is_none() {
        return ctx.fail("the NodeOp was deleted before the reboot");
    }
    // Whatever became of the waiter: it has done its part, or it is seen to when the node is back.
    if went_on == Some(reboot_state::COMPLETED) || (asked && known && !ctx.node.ready) {
        return Decision::Wait(REBOOTS.into());
    }
    settle(ctx);
    // Until it goes down, nothing is to be scheduled on it.
    let held = if ctx.node.ready { hold(ctx) } else { None };
    let job = ctx.status.job_name.clone().unwrap_or_default();
    match waiter::ensure(ctx, &job, Room::Made) {
        Waiter::Lost(next) | Waiter::Overdue(next) => next,
        Waiter::Starting(why) if ctx.node.ready => {
            Decision::Wait(format!("Job completed, the reboot is due; its waiter was lost: {why}"))
        }
        Waiter::NotAsked | Waiter::Ready | Waiter::Starting(_) => {
            held.unwrap_or_else(|| Decision::Wait(REBOOTS.into()))
        }
    }
}

/// A Job that has not completed although its operation succeeded, because of a container of somebody else, is
/// suspended: it must not start another pod when the node is back, and its waiter waits for its end.
fn settle(ctx: &mut NodeContext<'_>) {
    let (Some(name), Some(uid), Some(boot)) = (&ctx.status.job_name, &ctx.status.job_uid, &ctx.status.boot)
    else {
        return;
    };
    let job =
        ctx.snapshot.jobs.get(&(ctx.op.id.namespace.clone(), name.clone())).filter(|job| job.uid == *uid);
    if let Some(job) = job.filter(|job| {
        job.state == JobState::Active && !job.suspended && !job.deleting && !legacy::is_adopted(ctx)
    }) {
        ctx.act(Action::SettleJob { job: Target::of_job(job), boot: boot.clone() });
    }
}

/// Whether the node is in a later boot than the one in which the operation succeeded.
pub enum Arrival {
    No,
    Unconfirmed(Question),
    Proved,
}

/// Another boot id is not yet a later one: if the node rebooted by itself while its command ran, an old view
/// still shows the boot *before* the one in which the command succeeded. A kubelet reports its boot before it
/// runs a pod, so a live read after the success cannot be that old. Where the sentinel's word is lost, the
/// waiter's `completed` says the same: it compared the sentinel file with the boot that it was started in.
pub fn arrival(ctx: &NodeContext<'_>) -> Arrival {
    let shown = &ctx.node.boot_id;
    let completed = Some(reboot_state::COMPLETED)
        == match ctx.status.boot {
            // Where both speak, the boot ids decide: the waiter may have meant an earlier attempt of the Job.
            Some(_) => waiter::says(ctx),
            None => waiter::went_on(ctx),
        };
    let other = ctx.status.boot.as_ref().map_or(completed, |boot| shown != boot) && !shown.is_empty();
    let question = Question::Node(ctx.node.name.clone());
    match ctx.snapshot.answer(&question) {
        _ if other && ctx.status.new_boot.as_ref() == Some(shown) => Arrival::Proved,
        None if other || completed => Arrival::Unconfirmed(question),
        Some(_) if other => Arrival::Proved,
        Some(_) | None => Arrival::No,
    }
}

/// The deadline has passed: the reboot is given up. If it comes before the waiter has ended, it counts all
/// the same.
fn time_out(ctx: &NodeContext<'_>) -> Decision {
    let job = ctx.status.job_name.clone().map(|name| (ctx.op.id.namespace.clone(), name));
    let deleted = job.is_some_and(|job| !ctx.snapshot.jobs.contains_key(&job));
    let state = match (&ctx.status.boot, ctx.node.ready) {
        (_, false) => "went away and has not come back",
        // By somebody, or for a `ttlSecondsAfterFinished` that a policy has set.
        (Some(_), true) if deleted => {
            "is still in the boot in which the operation succeeded: its Job was deleted before its reboot waiter saw that it had completed"
        }
        (Some(_), true) => "is still in the boot in which the operation succeeded",
        (None, true) => {
            "is Ready, and whether it rebooted is not known: the record of the boot in which the operation succeeded is gone"
        }
    };
    let after = ctx.op.intent.reboot_timeout.as_secs();
    ctx.fail(format!(
        "RebootTimeout: the operation succeeded, but {after} s later the node {state}. Look at its console, then create the NodeOp again"
    ))
}

/// The new boot shows; wait until the node has been Ready in it for long enough, by our own clock, since the
/// condition's own transition time survives a reboot.
fn back(ctx: &mut NodeContext<'_>, deadline: k8s_openapi::jiff::Timestamp) -> Decision {
    let boot = ctx.node.boot_id.clone();
    let seen = ctx.status.new_boot.as_ref() == Some(&boot);
    let since = ctx.status.since.as_ref().map(|time| time.0).filter(|_| seen);
    if !ctx.node.ready {
        if ctx.snapshot.now >= deadline {
            let after = ctx.op.intent.reboot_timeout.as_secs();
            let message = format!(
                "RebootTimeout: the node rebooted, but is not Ready {after} s after the operation succeeded"
            );
            let status =
                finished(ctx.snapshot.now, ctx.status, Phase::Failed, Some(RebootStatus::Completed), message);
            return Decision::Record(Box::new(status));
        }
        if seen && since.is_none() {
            return Decision::Wait("the node rebooted, and is not Ready yet".into());
        }
        return ctx.record(|status| (status.new_boot, status.since) = (Some(boot), None));
    }
    let wait = ctx.op.intent.min_ready;
    let ready_at = since.map(|since| later(since, wait));
    match ready_at {
        _ if wait.is_zero() => proved(ctx),
        Some(at) if ctx.snapshot.now >= at => proved(ctx),
        Some(at) => {
            ctx.plan.wake(at);
            Decision::Wait(format!("the node rebooted, and must be Ready until {at:.0} (minReadySeconds)"))
        }
        None => {
            let now = Time(ctx.snapshot.now);
            ctx.record(|status| (status.new_boot, status.since) = (Some(boot), Some(now)))
        }
    }
}

fn proved(ctx: &NodeContext<'_>) -> Decision {
    if ctx.op.intent.upgrade {
        let mut next = ctx.moved_to(Step::Verify, "the node rebooted, its release is being verified");
        next.new_boot = Some(ctx.node.boot_id.clone());
        next.reboot_status = Some(RebootStatus::Completed);
        next.deadline = Some(Time(later(ctx.snapshot.now, ctx.op.intent.verify_timeout)));
        return Decision::Record(Box::new(next));
    }
    ctx.complete(RebootStatus::Completed, "Job and reboot completed successfully")
}

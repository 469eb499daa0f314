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
            hold::hold,
            job, legacy,
            turn::{Decision, Turn, finished},
            waiter::{self, Room, Waiter},
        },
    },
};

/// All is well, and the node is on its way.
const REBOOTS: &str = "Job completed, the node reboots";

/// Another boot id shows, and is read live before it counts.
pub const CONFIRMS: &str = "the node rebooted; reading its boot id once more";

/// Advances a node in step `Reboot`.
pub fn advance(turn: &mut Turn<'_>) -> Decision {
    if turn.status.boot.is_none()
        && let Some(next) = job::late_sentinel(turn)
    {
        return next;
    }
    let deadline = turn.deadline(turn.op.intent.reboot_timeout).unwrap_or(turn.s.now);
    if turn.s.now < deadline {
        turn.plan.wake(deadline);
    }
    match arrival(turn) {
        Arrival::Proved => return back(turn, deadline),
        Arrival::Unconfirmed(question) => {
            turn.ask(question);
            return Decision::Wait(CONFIRMS.into());
        }
        Arrival::No => {}
    }
    if turn.s.now >= deadline {
        return time_out(turn);
    }
    if legacy::is_reboot_over(turn) {
        return turn.fail(legacy::NOT_PROVED);
    }
    let asked = waiter::says(turn) == Some(reboot_state::REBOOTING);
    let known = turn.status.boot.is_some();
    let went_on = waiter::went_on(turn).filter(|_| !known);
    if turn.op.deleting && !asked && went_on.is_none() {
        return turn.fail("the NodeOp was deleted before the reboot");
    }
    // Whatever became of the waiter: it has done its part, or it is seen to when the node is back.
    if went_on == Some(reboot_state::COMPLETED) || (asked && known && !turn.node.ready) {
        return Decision::Wait(REBOOTS.into());
    }
    settle(turn);
    // Until it goes down, nothing is to be scheduled on it.
    let held = if turn.node.ready { hold(turn) } else { None };
    let job = turn.status.job_name.clone().unwrap_or_default();
    match waiter::ensure(turn, &job, Room::Made) {
        Waiter::Lost(next) | Waiter::Overdue(next) => next,
        Waiter::Starting(why) if turn.node.ready => Decision::Wait(format!("Job completed, the reboot is due; its waiter was lost: {why}")),
        Waiter::NotAsked | Waiter::Ready | Waiter::Starting(_) => held.unwrap_or_else(|| Decision::Wait(REBOOTS.into())),
    }
}

/// A Job that has not completed although its operation succeeded, because of a container of somebody else, is suspended: it must not
/// start another pod when the node is back, and its waiter waits for its end.
fn settle(turn: &mut Turn<'_>) {
    let (Some(name), Some(uid), Some(boot)) = (&turn.status.job_name, &turn.status.job_uid, &turn.status.boot) else { return };
    let job = turn.s.jobs.get(&(turn.op.me.namespace.clone(), name.clone())).filter(|job| job.uid == *uid);
    if let Some(job) = job.filter(|job| job.state == JobState::Active && !job.suspended && !job.deleting && !legacy::is_adopted(turn)) {
        turn.act(Action::SettleJob { job: Target::of_job(job), boot: boot.clone() });
    }
}

/// Whether the node is in a later boot than the one in which the operation succeeded.
pub enum Arrival {
    No,
    Unconfirmed(Question),
    Proved,
}

/// Another boot id is not yet a later one: if the node rebooted by itself while its command ran, an old view still shows
/// the boot *before* the one in which the command succeeded. A kubelet reports its boot before it runs a pod, so a live
/// read after the success cannot be that old. Where the sentinel's word is lost, the waiter's `completed` says the same:
/// it compared the sentinel file with the boot that it was started in.
pub fn arrival(turn: &Turn<'_>) -> Arrival {
    let shown = &turn.node.boot_id;
    let completed = Some(reboot_state::COMPLETED)
        == match turn.status.boot {
            // Where both speak, the boot ids decide: the waiter may have meant an earlier attempt of the Job.
            Some(_) => waiter::says(turn),
            None => waiter::went_on(turn),
        };
    let other = turn.status.boot.as_ref().map_or(completed, |boot| shown != boot) && !shown.is_empty();
    let question = Question::Node(turn.node.name.clone());
    match turn.s.answer(&question) {
        _ if other && turn.status.new_boot.as_ref() == Some(shown) => Arrival::Proved,
        None if other || completed => Arrival::Unconfirmed(question),
        Some(_) if other => Arrival::Proved,
        Some(_) | None => Arrival::No,
    }
}

/// The deadline has passed: the reboot is given up. If it comes before the waiter has ended, it counts all the same.
fn time_out(turn: &Turn<'_>) -> Decision {
    let state = match (&turn.status.boot, turn.node.ready) {
        (_, false) => "went away and has not come back",
        (Some(_), true) => "is still in the boot in which the operation succeeded",
        (None, true) => "is Ready, and whether it rebooted is not known: the record of the boot in which the operation succeeded is gone",
    };
    let after = turn.op.intent.reboot_timeout.as_secs();
    turn.fail(format!(
        "RebootTimeout: the operation succeeded, but {after} s later the node {state}. Look at its console, then create the NodeOp again"
    ))
}

/// The new boot shows; wait until the node has been Ready in it for long enough, by our own clock, since the condition's
/// own transition time survives a reboot.
fn back(turn: &mut Turn<'_>, deadline: k8s_openapi::jiff::Timestamp) -> Decision {
    let boot = turn.node.boot_id.clone();
    let seen = turn.status.new_boot.as_ref() == Some(&boot);
    let since = turn.status.since.as_ref().map(|time| time.0).filter(|_| seen);
    if !turn.node.ready {
        if turn.s.now >= deadline {
            let after = turn.op.intent.reboot_timeout.as_secs();
            let message = format!("RebootTimeout: the node rebooted, but is not Ready {after} s after the operation succeeded");
            let status = finished(turn.s.now, turn.status, Phase::Failed, Some(RebootStatus::Completed), message);
            return Decision::Record(Box::new(status));
        }
        if seen && since.is_none() {
            return Decision::Wait("the node rebooted, and is not Ready yet".into());
        }
        return turn.record(|status| (status.new_boot, status.since) = (Some(boot), None));
    }
    let wait = turn.op.intent.min_ready;
    let ready_at = since.map(|since| later(since, wait));
    match ready_at {
        _ if wait.is_zero() => proved(turn),
        Some(at) if turn.s.now >= at => proved(turn),
        Some(at) => {
            turn.plan.wake(at);
            Decision::Wait(format!("the node rebooted, and must be Ready until {at:.0} (minReadySeconds)"))
        }
        None => {
            let now = Time(turn.s.now);
            turn.record(|status| (status.new_boot, status.since) = (Some(boot), Some(now)))
        }
    }
}

fn proved(turn: &Turn<'_>) -> Decision {
    if turn.op.intent.upgrade {
        let mut next = turn.to(Step::Verify);
        next.new_boot = Some(turn.node.boot_id.clone());
        next.reboot_status = Some(RebootStatus::Completed);
        next.deadline = Some(Time(later(turn.s.now, turn.op.intent.verify_timeout)));
        return Decision::Record(Box::new(next));
    }
    turn.complete(RebootStatus::Completed, "Job and reboot completed successfully")
}

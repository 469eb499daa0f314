//! The reboot, proved: another boot id than the one in which the operation succeeded, and Ready in it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    action::Action,
    release,
    snapshot::Role,
    step::{Next, Turn, finish, later},
    waiter::{self, Waiter},
};
use crate::{
    api::nodeop::{Phase, RebootStatus, Step},
    contract::reboot_state,
};

/// All is well, and the node is on its way.
pub const REBOOTS: &str = "Job completed, the node reboots";

/// Advances a node in step `Reboot`.
pub fn advance(turn: &mut Turn<'_>) -> Next {
    let deadline = turn.status.deadline.as_ref().map_or(turn.s.now, |time| time.0);
    turn.plan.wake(deadline);
    if new_boot(turn) {
        return back(turn, deadline);
    }
    if turn.op.deleting {
        return cancel(turn);
    }
    if turn.s.now >= deadline {
        let state =
            if turn.node.ready { "is still in the boot in which the operation succeeded" } else { "went away and has not come back" };
        return turn.fail(format!(
            "RebootTimeout: the operation succeeded, but {} s later the node {state}. Look at its console, then create the NodeOp again",
            turn.op.intent.reboot_timeout.as_secs()
        ));
    }
    let job = turn.status.job_name.clone().unwrap_or_default();
    match waiter::ensure(turn, &job) {
        Waiter::Lost(next) => next,
        Waiter::Foreign(name) => turn.fail(format!("a pod {name} exists that is not ours; reboot the node by hand")),
        Waiter::Starting(why) if turn.node.ready => Next::Wait(format!("Job completed, the reboot is due; its waiter was lost: {why}")),
        Waiter::NotAsked | Waiter::Ready | Waiter::Starting(_) => Next::Wait(REBOOTS.into()),
    }
}

/// Whether the node is in another boot than the one in which the operation succeeded. Where the sentinel's word is
/// lost, the waiter's `completed` says the same: it compared the sentinel file with the boot that it was started in.
fn new_boot(turn: &Turn<'_>) -> bool {
    match &turn.status.boot {
        Some(boot) => !turn.node.boot_id.is_empty() && turn.node.boot_id != *boot,
        None => waiter::went_on(turn) == Some(reboot_state::COMPLETED),
    }
}

/// The new boot shows; wait until the node has been Ready in it for long enough, by our own clock, since the condition's
/// own transition time survives a reboot.
fn back(turn: &mut Turn<'_>, deadline: k8s_openapi::jiff::Timestamp) -> Next {
    let boot = turn.node.boot_id.clone();
    let seen = turn.status.new_boot.as_ref() == Some(&boot);
    let since = turn.status.since.as_ref().map(|time| time.0).filter(|_| seen);
    if !turn.node.ready {
        if turn.s.now >= deadline {
            let after = turn.op.intent.reboot_timeout.as_secs();
            return turn.fail(format!("RebootTimeout: the node rebooted, but is not Ready {after} s after the operation succeeded"));
        }
        if seen && since.is_none() {
            return Next::Wait("the node rebooted, and is not Ready yet".into());
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
            Next::Wait(format!("the node rebooted, and must be Ready until {at:.0} (minReadySeconds)"))
        }
        None => {
            let now = Time(turn.s.now);
            turn.record(|status| (status.new_boot, status.since) = (Some(boot), Some(now)))
        }
    }
}

fn proved(turn: &Turn<'_>) -> Next {
    if turn.op.intent.upgrade {
        let mut next = turn.to(Step::Verify);
        next.new_boot = Some(turn.node.boot_id.clone());
        next.reboot_status = Some(RebootStatus::Completed);
        next.deadline = Some(Time(later(turn.s.now, turn.op.intent.verify_timeout)));
        return Next::Become(Box::new(next));
    }
    finish(turn.s.now, turn.status, Phase::Completed, Some(RebootStatus::Completed), "Job and reboot completed successfully")
}

/// The NodeOp was deleted while its reboot was due: the waiter goes, and once it cannot act any more, so does the claim.
fn cancel(turn: &mut Turn<'_>) -> Next {
    let waiters: Vec<_> = turn.s.pods_of(&turn.op.me.uid, &turn.node.name, Role::Waiter).cloned().collect();
    let mut ended = true;
    for pod in waiters {
        if !pod.deleting && !pod.phase.is_final() {
            turn.act(Action::DeletePod { pod: release::pod_target(&pod), why: "its NodeOp was deleted" });
        }
        ended &= release::cannot_act(&pod, turn.node.ready);
    }
    if ended {
        turn.fail("the NodeOp was deleted before the reboot")
    } else {
        Next::Wait("the NodeOp was deleted; its reboot is being cancelled".into())
    }
}

/// Advances a node in step `Verify`: nothing to compare with yet, so what the node runs is not proved, and said so.
pub fn verify(turn: &mut Turn<'_>) -> Next {
    debug_assert_eq!(turn.status.step, Some(Step::Verify));
    finish(
        turn.s.now,
        turn.status,
        Phase::Completed,
        Some(RebootStatus::Completed),
        "Job and reboot completed successfully; the release was not verified",
    )
}

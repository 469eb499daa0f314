//! The operation itself: a Job on the node, allowed to run once its UID is recorded, and what came of it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    action::{Action, Target},
    question::Question,
    reboot, release,
    snapshot::{ContainerState, JobState, JobView, PodView, Role},
    step::{Next, Turn, finish, hold, later},
    waiter::{self, Waiter},
};
use crate::{
    api::{
        names::container,
        nodeop::{Phase, RebootStatus, Step},
    },
    contract::{Sentinel, reboot_state},
};

/// The Job goes on, and nothing complains.
const RUNNING: &str = "Job is running";

/// Advances a node in step `Job`.
pub fn advance(turn: &mut Turn<'_>) -> Next {
    let Some(name) = turn.status.job_name.clone() else {
        return turn.fail("the status names no Job for this node; it was changed by somebody else. Create the NodeOp again");
    };
    let key = (turn.op.me.namespace.clone(), name.clone());
    match (turn.status.job_uid.clone(), turn.s.jobs.get(&key).cloned()) {
        (None, None) => make(turn, name),
        (None, Some(job)) => made(turn, &job),
        (Some(uid), Some(job)) if job.uid == uid => recorded(turn, &job),
        (Some(_), Some(job)) => {
            turn.act(Action::DeleteJob { job: target(&job), why: "it is not the Job that ran" });
            vanished(turn)
        }
        (Some(_), None) if turn.s.is_gone(&Question::Job(key.clone())) => vanished(turn),
        (Some(_), None) => {
            turn.ask(Question::Job(key));
            Next::Wait(format!("checking whether Job {name} still exists"))
        }
    }
}

/// What deletes exactly this Job.
pub fn target(job: &JobView) -> Target {
    Target { namespace: job.namespace.clone(), name: job.name.clone(), uid: job.uid.clone() }
}

/// The pods that this Job made.
pub fn pods<'a>(turn: &'a Turn<'_>, job_uid: &'a str) -> impl Iterator<Item = &'a Arc<PodView>> {
    turn.s.pods_of(job_uid, &turn.node.name, Role::Job)
}

fn make(turn: &mut Turn<'_>, name: String) -> Next {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(turn).or_else(|| waiter_gone(turn, &name)) {
        return next;
    }
    let (op, node) = (turn.op.object.clone(), turn.node.name.clone());
    turn.act(Action::MakeJob { op, node, name });
    Next::Wait("making the Job".into())
}

/// The waiter must stand at the moment at which the Job is made and let go, not only some time before.
fn waiter_gone(turn: &mut Turn<'_>, job: &str) -> Option<Next> {
    match waiter::ensure(turn, job) {
        Waiter::NotAsked | Waiter::Ready => None,
        Waiter::Starting(why) => Some(Next::Wait(format!("waiting for the reboot waiter: {why}"))),
        Waiter::Lost(next) => Some(next),
        Waiter::Foreign(name) => Some(turn.fail(format!("a pod {name} exists that is not ours; delete it and create the NodeOp again"))),
    }
}

/// The Job is there and its UID is not in status yet: it has not run.
fn made(turn: &mut Turn<'_>, job: &JobView) -> Next {
    if job.owner_uid != turn.op.me.uid {
        return turn.fail(format!("a Job {}/{} exists that is not ours; delete it and create the NodeOp again", job.namespace, job.name));
    }
    if job.deleting {
        return Next::Wait("an older Job of the same name is being deleted".into());
    }
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    let uid = job.uid.clone();
    turn.record(|status| (status.job_uid, status.message) = (Some(uid), Some(RUNNING.into())))
}

/// The Job that is recorded, as it stands.
fn recorded(turn: &mut Turn<'_>, job: &JobView) -> Next {
    match &job.state {
        JobState::Complete => succeeded(turn, job),
        JobState::Failed(why) => failed(turn, job, why),
        JobState::Failing(why) if !turn.node.ready => failed(turn, job, why),
        JobState::Failing(why) => Next::Wait(format!("the Job has failed, its pods are ending: {why}")),
        JobState::Active if job.deleting => Next::Wait("the Job is being deleted".into()),
        JobState::Active if turn.op.deleting => cancel(turn, job),
        JobState::Active if job.suspended => resume(turn, job),
        JobState::Active => running(turn, job),
    }
}

fn resume(turn: &mut Turn<'_>, job: &JobView) -> Next {
    if let Some(next) = hold(turn).or_else(|| waiter_gone(turn, &job.name)) {
        return next;
    }
    turn.act(Action::ResumeJob { job: target(job) });
    Next::Wait(RUNNING.into())
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than waiting.
fn cancel(turn: &mut Turn<'_>, job: &JobView) -> Next {
    let started = pods(turn, &job.uid).any(|pod| !pod.phase.is_final());
    if turn.op.intent.upgrade && started {
        return Next::Wait("the NodeOp was deleted; the upgrade under way is left to end".into());
    }
    turn.act(Action::DeleteJob { job: target(job), why: "its NodeOp was deleted" });
    Next::Wait("the NodeOp was deleted; its Job is being deleted".into())
}

fn running(turn: &mut Turn<'_>, job: &JobView) -> Next {
    if let Some(next) = hold(turn) {
        return next;
    }
    let Some(complaint) = pods(turn, &job.uid).find_map(|pod| pod.complaint()) else {
        return Next::Wait(RUNNING.into());
    };
    let begun = pods(turn, &job.uid).any(|pod| !pod.containers.iter().all(|c| matches!(c.state, ContainerState::Waiting { .. })));
    let deadline = later(job.started_at.unwrap_or(turn.s.now), turn.op.intent.pull_timeout);
    if begun {
        return Next::Wait(format!("Job is running: {complaint}"));
    }
    if turn.s.now >= deadline {
        turn.act(Action::DeleteJob { job: target(job), why: "its image could not be pulled" });
        return turn.fail(format!("the Job's pod could not start in {} s: {complaint}", turn.op.intent.pull_timeout.as_secs()));
    }
    turn.plan.wake(deadline);
    Next::Wait(format!("the Job's pod cannot start yet: {complaint}"))
}

/// The boot in which the operation succeeded, as the sentinel container printed it. `Err`: not (yet) to be had.
fn sentinel(turn: &Turn<'_>, job_uid: &str) -> Result<Sentinel, Option<&'static str>> {
    let mut unfinished = false;
    for pod in pods(turn, job_uid) {
        unfinished |= !pod.phase.is_final();
        let Some(ContainerState::Ended { code: 0, message, .. }) = pod.container(container::SENTINEL) else {
            continue;
        };
        if let Ok(found) = serde_json::from_str::<Sentinel>(message)
            && found.job_uid == job_uid
        {
            return Ok(found);
        }
    }
    Err(unfinished.then_some("the Job is complete, its pod is about to be seen so"))
}

fn succeeded(turn: &mut Turn<'_>, job: &JobView) -> Next {
    if !turn.op.intent.reboot {
        let message = last_words(turn, job)
            .map_or_else(|| "Job completed successfully".into(), |words| format!("Job completed successfully: {words}"));
        return finish(turn.s.now, turn.status, Phase::Completed, Some(RebootStatus::NotRequested), message);
    }
    let boot = match sentinel(turn, &job.uid) {
        Ok(found) if found.boot.is_empty() => {
            let message = last_words(turn, job).unwrap_or_else(|| "nothing had to be changed".into());
            return finish(turn.s.now, turn.status, Phase::Completed, Some(RebootStatus::NotRequested), message);
        }
        Ok(found) => Some(found.boot),
        Err(Some(why)) => return Next::Wait(why.into()),
        // The Job's pod is gone. The waiter still knows the boot from the sentinel file, and its word is a proof.
        Err(None) => None,
    };
    to_reboot(turn, boot)
}

fn to_reboot(turn: &Turn<'_>, boot: Option<String>) -> Next {
    let mut next = turn.to(Step::Reboot);
    next.message = Some(reboot::REBOOTS.into());
    next.boot = boot;
    next.reboot_status = Some(RebootStatus::Pending);
    next.deadline = Some(Time(later(turn.s.now, turn.op.intent.reboot_timeout)));
    next.new_boot = None;
    next.since = None;
    Next::Become(Box::new(next))
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
fn vanished(turn: &mut Turn<'_>) -> Next {
    // Its pods end later than the Job: until then the command may still be at work on the node.
    let uid = turn.status.job_uid.clone().unwrap_or_default();
    if pods(turn, &uid).any(|pod| !release::cannot_act(pod, turn.node.ready)) {
        return Next::Wait("the Job was deleted, its pods are ending".into());
    }
    if turn.op.intent.reboot && matches!(waiter::went_on(turn), Some(reboot_state::REBOOTING | reboot_state::COMPLETED)) {
        return to_reboot(turn, None);
    }
    let message = if turn.op.deleting {
        "the NodeOp was deleted while the operation ran; its Job was stopped"
    } else {
        "Job not found: it was deleted before its outcome was known. Look at the node, then create the NodeOp again"
    };
    turn.fail(message)
}

fn failed(turn: &mut Turn<'_>, job: &JobView, why: &str) -> Next {
    let words = last_words(turn, job);
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    turn.fail(format!("Job failed ({why}){words}"))
}

/// What the operation's container said last, on one line, in at most 300 characters.
fn last_words(turn: &Turn<'_>, job: &JobView) -> Option<String> {
    let newest = pods(turn, &job.uid).max_by_key(|pod| (pod.created, &pod.name))?;
    let ended = newest.containers.iter().find(|c| c.name == container::NODEOP && matches!(c.state, ContainerState::Ended { .. }))?;
    let ContainerState::Ended { code, reason, message } = &ended.state else {
        return None;
    };
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().take(300).collect();
    match (code, line.is_empty()) {
        (0, true) => None,
        (0, false) => Some(line),
        (code, true) => Some(format!("exit code {code}, {reason}")),
        (code, false) => Some(format!("exit code {code}: {line}")),
    }
}

//! The operation itself: a Job on the node, allowed to run once its UID is recorded, and what came of it.

mod deadline;
mod injected;
mod message;
mod sentinel;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

pub use self::sentinel::late_sentinel;
use self::{
    message::{RUNNING, last_words, tries},
    sentinel::sentinel,
};
use crate::{
    api::nodeop::{RebootStatus, Step},
    contract::{Sentinel, reboot_state},
    plan::{
        model::{
            action::{Action, Target},
            failing,
            question::{Answer, Question},
            silence,
            snapshot::{JobState, JobView, Obstacle},
            time::later,
        },
        node::{
            cancel,
            hold::hold,
            legacy,
            turn::{Decision, Turn},
            waiter::{self, Room, Waiter},
        },
    },
};

/// Seconds after a Job was let go in which it may have a pod that no cache shows yet.
const UNSEEN: SignedDuration = SignedDuration::from_secs(30);
/// A Job controller makes the pod at once. When it has made none for so long, we ask why.
const PODLESS: SignedDuration = SignedDuration::from_secs(10);
const NO_POD: &str = "the Job controller has made none";

/// Advances a node in step `Job`.
pub fn advance(turn: &mut Turn<'_>) -> Decision {
    let Some(name) = turn.status.job_name.clone() else {
        return turn.fail("the status names no Job for this node; it was changed by somebody else. Create the NodeOp again");
    };
    let key = (turn.op.me.namespace.clone(), name.clone());
    match (turn.status.job_uid.clone(), turn.s.jobs.get(&key).cloned()) {
        (None, None) => make(turn, name),
        (None, Some(job)) => made(turn, &job),
        (Some(uid), Some(job)) if job.uid == uid => recorded(turn, &job),
        // An old view may show a Job that the recorded one replaced; a live read that still shows another one is final.
        (Some(uid), _) if turn.s.answer(&Question::Job(key.clone())).is_some() => vanished(turn, &uid),
        (Some(_), _) => {
            turn.ask(Question::Job(key));
            Decision::Wait(format!("checking whether Job {name} still exists"))
        }
    }
}

/// The operation is next: its Job's name is recorded before the Job is made.
pub fn start_job(turn: &Turn<'_>) -> Decision {
    let mut next = turn.to(Step::Job);
    next.job_name = Some(turn.op.object_name(&turn.node.name, "", 0));
    next.deadline = None;
    next.reboot_status = Some(if turn.op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested });
    Decision::Record(Box::new(next))
}

fn make(turn: &mut Turn<'_>, name: String) -> Decision {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(turn).or_else(|| waiter_gone(turn, &name)) {
        return next;
    }
    let (op, node) = (turn.op.object.clone(), turn.node.name.clone());
    let make = Action::MakeJob { op, node, name };
    if let Some(next) = refused(turn, &make) {
        return next;
    }
    turn.act(make);
    Decision::Wait("making the Job".into())
}

/// A Job that cannot be made, or let go, keeps its node cordoned for nothing: after as long as a pod may take to start, the
/// node is failed, untouched by the operation.
fn refused(turn: &mut Turn<'_>, action: &Action) -> Option<Decision> {
    let trouble = failing::of(turn.s, action)?;
    let begun = turn.status.last_updated.as_ref().map_or(turn.s.now, |time| time.0);
    let deadline = later(begun, turn.op.intent.pull_timeout);
    if turn.s.now < deadline {
        turn.plan.wake(deadline);
        return None;
    }
    Some(turn.fail(format!("the operation was not started in {} s: {trouble}", turn.op.intent.pull_timeout.as_secs())))
}

/// The waiter must stand at the moment at which the Job is made and let go, not only some time before.
fn waiter_gone(turn: &mut Turn<'_>, job: &str) -> Option<Decision> {
    match waiter::ensure(turn, job, Room::Made) {
        Waiter::NotAsked | Waiter::Ready => None,
        Waiter::Starting(why) => Some(Decision::Wait(format!("waiting for the reboot waiter: {why}"))),
        Waiter::Lost(next) | Waiter::Overdue(next) => Some(next),
    }
}

/// The Job is there and its UID is not in status yet: it has not run.
fn made(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    if !job.is_of(&turn.op.me) {
        return turn.fail(format!("a Job {}/{} exists that is not ours; delete it and create the NodeOp again", job.namespace, job.name));
    }
    if job.deleting {
        return Decision::Wait("an older Job of the same name is being deleted".into());
    }
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    let uid = job.uid.clone();
    turn.record(|status| (status.job_uid, status.message) = (Some(uid), Some(RUNNING.into())))
}

/// The Job that is recorded, as it stands.
fn recorded(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    match &job.state {
        JobState::Complete => succeeded(turn, job),
        JobState::Failed(why) => failed(turn, job, why),
        JobState::Failing(why) if !turn.node.ready => failed(turn, job, why),
        JobState::Failing(why) => Decision::Wait(format!("the Job has failed, its pods are ending: {why}")),
        JobState::Active if job.deleting => Decision::Wait("the Job is being deleted".into()),
        JobState::Active if turn.op.deleting => cancel(turn, job),
        JobState::Active if job.suspended => resume(turn, job),
        JobState::Active => running(turn, job),
    }
}

fn resume(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    if let Some(next) = hold(turn).or_else(|| waiter_gone(turn, &job.name)) {
        let ends = matches!(next, Decision::GiveUp(_));
        return if ends { unseen_start(turn, job).unwrap_or(next) } else { next };
    }
    let resume = Action::ResumeJob { job: Target::of_job(job) };
    if let Some(next) = refused(turn, &resume) {
        return unseen_start(turn, job).unwrap_or(next);
    }
    if let Some(wait) = another_machine(turn) {
        return wait;
    }
    turn.act(resume);
    Decision::Wait(RUNNING.into())
}

/// Before the operation starts, a live read of its node: in an old view a machine that has joined under the same name since
/// is not seen, which is neither claimed nor drained.
fn another_machine(turn: &mut Turn<'_>) -> Option<Decision> {
    let question = Question::Node(turn.node.name.clone());
    if turn.s.answer(&question).is_some() {
        return None;
    }
    turn.ask(question);
    Some(Decision::Wait("checking that the node is still the same machine".into()))
}

/// Before a Job is ended as one that never ran, a live read: we may have let it go, and the cache not show it yet.
fn unseen_start(turn: &mut Turn<'_>, job: &JobView) -> Option<Decision> {
    let question = Question::Job((job.namespace.clone(), job.name.clone()));
    if !job.suspended || turn.s.answer(&question).is_some() {
        return None;
    }
    turn.ask(question);
    Some(Decision::Wait(format!("checking whether Job {} has started", job.name)))
}

/// Deleting a NodeOp stops a command, but lets a running upgrade end: killing the agent midway is worse than waiting.
fn cancel(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    if let Some(wait) = unseen_start(turn, job) {
        return wait;
    }
    // The pods of an adopted Job are not seen.
    let started = legacy::is_adopted(turn) || turn.job_pods(&job.uid).any(|pod| !pod.phase.is_final());
    let until = job.started_at.filter(|_| !job.suspended).map(|at| later(at, UNSEEN));
    let unseen = until.filter(|until| turn.s.now < *until);
    if turn.op.intent.upgrade && (started || unseen.is_some()) {
        unseen.iter().for_each(|until| turn.plan.wake(*until));
        return Decision::Wait("the NodeOp was deleted; the upgrade under way is left to end".into());
    }
    turn.act(cancel::delete(&turn.op.me, job, "its NodeOp was deleted"));
    Decision::Wait("the NodeOp was deleted; its Job is being deleted".into())
}

fn running(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    if let Some(next) = hold(turn) {
        return next;
    }
    deadline::extend_once(turn, job);
    let others = injected::running_on(turn, job);
    if !others.is_empty() {
        return succeeded_beside(turn, job, &others);
    }
    let obstacle = obstacle(turn, job);
    if legacy::is_adopted(turn) || turn.job_pods(&job.uid).any(|pod| pod.has_begun()) {
        return Decision::Wait(obstacle.map_or_else(|| tries(turn, job), |obstacle| format!("{RUNNING}: {}", obstacle.text)));
    }
    if let Some(Obstacle { permanent: true, text }) = &obstacle {
        return turn.fail_untouched(format!("the Job's pod cannot start: {text}"));
    }
    not_begun(turn, job, obstacle.map(|obstacle| obstacle.text))
}

/// The operation has succeeded, and containers of somebody else keep its Job from completing.
fn succeeded_beside(turn: &mut Turn<'_>, job: &JobView, others: &[String]) -> Decision {
    let others = others.join(", ");
    let said = || last_words(turn, job).map(|said| format!(": {said}")).unwrap_or_default();
    if !turn.op.intent.reboot {
        let message =
            format!("Job completed successfully{}; container {others}, which is not ours, still ran and is ended with it", said());
        return turn.complete(RebootStatus::NotRequested, message);
    }
    match sentinel(turn, &job.uid) {
        Ok(found) if found.boot.is_empty() => {
            let message = format!("nothing had to be changed{}; container {others}, which is not ours, is ended with the Job", said());
            turn.complete(RebootStatus::NotRequested, message)
        }
        Ok(found) => other_target(turn, &found).unwrap_or_else(|| to_reboot(turn, Some(found))),
        Err(_) => Decision::Wait(format!("{RUNNING}: the command has ended, container {others} has not")),
    }
}

/// No container of the operation has begun: for `pullTimeoutSeconds` that is waited for, whatever keeps it.
fn not_begun(turn: &mut Turn<'_>, job: &JobView, told: Option<String>) -> Decision {
    let Some(why) = told.or_else(|| podless(turn, job)) else {
        if turn.job_pods(&job.uid).next().is_some() {
            turn.plan.wake(later(turn.s.let_go_since(job), turn.op.intent.pull_timeout).max(later(turn.s.now, PODLESS)));
        }
        return Decision::Wait(RUNNING.into());
    };
    let deadline = later(turn.s.let_go_since(job), turn.op.intent.pull_timeout);
    if turn.s.now < deadline {
        turn.plan.wake(deadline);
        return Decision::Wait(format!("the Job's pod cannot start yet: {why}"));
    }
    // A Job without a pod, and nothing that forbids one: its controller is away, and goes on when it is back.
    if why == NO_POD {
        return Decision::Wait(format!("the Job's pod cannot start yet: {why}"));
    }
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if turn.job_pods(&job.uid).next().is_none() && turn.s.answer(&live).is_none() {
        turn.ask(live);
        return Decision::Wait(format!("{RUNNING}; checking whether it has a pod"));
    }
    let after = turn.op.intent.pull_timeout.as_secs();
    turn.fail_untouched(format!("the Job's pod could not start in {after} s: {why}"))
}

/// What keeps the Job's pod from its work: as its status says, or its Events. A pod that has failed speaks if its like will fail too.
fn obstacle(turn: &mut Turn<'_>, job: &JobView) -> Option<Obstacle> {
    let (over, there): (Vec<_>, Vec<_>) = turn.job_pods(&job.uid).cloned().partition(|pod| pod.phase.is_final());
    let told = there.iter().find_map(|pod| pod.obstacle());
    let lasting = || over.iter().filter_map(|pod| pod.obstacle()).find(|obstacle| obstacle.permanent);
    let silent = |turn: &mut Turn<'_>| there.iter().find_map(|pod| silence::words(turn.s, pod, turn.plan));
    told.or_else(lasting).or_else(|| Some(Obstacle { permanent: false, text: silent(turn)? }))
}

/// Why a Job that runs has had no pod for so long. Its controller says so only in an Event, so the API server is asked.
fn podless(turn: &mut Turn<'_>, job: &JobView) -> Option<String> {
    // The pods of an adopted Job carry no label of ours and are not seen.
    if legacy::is_adopted(turn) || turn.job_pods(&job.uid).next().is_some() {
        return None;
    }
    let begun = job.started_at.or_else(|| turn.status.last_updated.as_ref().map(|time| time.0))?;
    let due = later(begun, PODLESS);
    if turn.s.now < due {
        turn.plan.wake(due);
        return None;
    }
    turn.plan.wake(later(turn.s.now, PODLESS));
    let question = Question::Admission(turn.op.me.clone(), turn.node.name.clone());
    match turn.s.answer(&question) {
        Some(Answer::Refused(words) | Answer::NotYet(words)) => Some(format!("{NO_POD}; the API server refuses {words}")),
        Some(Answer::Gone | Answer::Seen | Answer::Soon | Answer::Attached(_) | Answer::Said(_) | Answer::NotReady(_)) => {
            Some(NO_POD.into())
        }
        None => {
            turn.ask(question);
            Some(NO_POD.into())
        }
    }
}

fn succeeded(turn: &mut Turn<'_>, job: &JobView) -> Decision {
    if !turn.op.intent.reboot {
        let message = last_words(turn, job)
            .map_or_else(|| "Job completed successfully".into(), |words| format!("Job completed successfully: {words}"));
        return turn.complete(RebootStatus::NotRequested, message);
    }
    if legacy::is_adopted(turn) {
        let boot = legacy::succeeded(turn);
        return boot.map_or_else(|next| next, |boot| to_reboot(turn, Some(Sentinel { boot, ..Sentinel::default() })));
    }
    let found = match sentinel(turn, &job.uid) {
        Ok(found) if found.boot.is_empty() => {
            let message = last_words(turn, job).unwrap_or_else(|| "nothing had to be changed".into());
            return turn.complete(RebootStatus::NotRequested, message);
        }
        Ok(found) => match other_target(turn, &found) {
            Some(next) => return next,
            None => Some(found),
        },
        Err(Some(why)) => return Decision::Wait(why.into()),
        // The Job's pod is gone. The waiter still knows the boot from the sentinel file, and its word is a proof.
        Err(None) => None,
    };
    to_reboot(turn, found)
}

/// A record that says another target than the image has, as its preflight read it, is not of this operation: nothing is proved by it.
fn other_target(turn: &Turn<'_>, found: &Sentinel) -> Option<Decision> {
    let (known, said) = (turn.status.target.as_ref()?, found.target.as_ref()?);
    let message =
        || format!("the Job says that it installed {said}, and the image brings {known}: its word is not taken. Look at the node");
    (known != said).then(|| turn.fail(message()))
}

fn to_reboot(turn: &Turn<'_>, found: Option<Sentinel>) -> Decision {
    let mut next = turn.to(Step::Reboot);
    (next.boot, next.before, next.target) = found.map_or((None, None, None), |found| (Some(found.boot), found.before, found.target));
    next.reboot_status = Some(RebootStatus::Pending);
    next.machine_id = Some(turn.node.machine_id.clone()).filter(|id| !id.is_empty());
    next.deadline = Some(Time(later(turn.s.now, turn.op.intent.reboot_timeout)));
    next.new_boot = None;
    next.since = None;
    Decision::Record(Box::new(next))
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
fn vanished(turn: &mut Turn<'_>, uid: &str) -> Decision {
    if turn.op.intent.reboot
        && !legacy::is_adopted(turn)
        && matches!(waiter::went_on(turn), Some(reboot_state::REBOOTING | reboot_state::COMPLETED))
    {
        return to_reboot(turn, None);
    }
    if turn.job_pods(uid).any(|pod| !pod.cannot_act(turn.node.ready)) {
        return Decision::Wait("the Job was deleted, its pods are ending".into());
    }
    let message = if turn.op.deleting {
        "the NodeOp was deleted while the operation ran; its Job was stopped"
    } else {
        "Job not found: it was deleted before its outcome was known. Look at the node, then create the NodeOp again"
    };
    turn.fail(message)
}

fn failed(turn: &mut Turn<'_>, job: &JobView, why: &str) -> Decision {
    let words = last_words(turn, job);
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    turn.fail(format!("Job failed ({why}){words}"))
}

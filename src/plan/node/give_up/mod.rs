//! Giving a node up: the reason is recorded, then what could still act is ended, and only when its end is seen has the node failed.
//!
//! Ending a Job or a waiter takes passes, and a crash may come between them. A reason that stood nowhere meanwhile would be forgotten
//! while it is carried out: the end of a waiter that was given up looks like the loss of one, and another would be made. So the reason
//! stands in status first. Where nothing is left that could act, the node fails at once, in one write.
//!
//! What succeeds before its end is seen has succeeded, whatever was decided about it: a Job that completes goes on to its reboot, and
//! a node that comes back in a new boot has rebooted.

use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus, Step},
    plan::{
        model::{
            action::Plan,
            question::Question,
            snapshot::{JobState, JobView},
        },
        node::{
            cancel, legacy, reboot,
            turn::{Decision, Turn, Verdict, finished},
            waiter,
        },
    },
};

/// The verdict that stands in an entry whose node is being given up.
pub fn recorded(status: &NodeStatus) -> Option<Verdict> {
    let before = || status.message.clone().filter(|_| status.step == Some(Step::Job) && status.deadline.is_some());
    // Until 0.1 a Job that was given up had a deadline, and the reason stood in the message.
    let reason = status.given_up.clone().or_else(before)?;
    Some(Verdict { reason, untouched: status.untouched == Some(true) })
}

/// Gives the node up, whatever its step had planned for it in this pass.
pub fn begin(turn: &mut Turn<'_>, verdict: Verdict) -> Decision {
    *turn.plan = Plan::default();
    let Some(open) = end(turn) else { return fail(turn, &verdict) };
    if turn.plan.actions.is_empty() && !turn.plan.questions.is_empty() {
        // Nothing is to be ended as far as one sees, and that is being asked.
        return Decision::Wait(format!("{}; {open}", verdict.reason));
    }
    *turn.plan = Plan::default();
    let Verdict { reason, untouched } = verdict;
    turn.record(|status| {
        status.message = Some(reason.clone());
        status.given_up = Some(reason);
        status.untouched = untouched.then_some(true);
    })
}

/// Ends what could still act, until nothing can.
pub fn carry_out(turn: &mut Turn<'_>, verdict: &Verdict) -> Decision {
    if let Some(next) = succeeded_after_all(turn) {
        return next;
    }
    if verdict.untouched && has_begun(turn) {
        return turn.record(|status| status.untouched = Some(false));
    }
    match end(turn) {
        Some(open) => Decision::Wait(format!("{}; {open}", verdict.reason)),
        None => fail(turn, verdict),
    }
}

fn fail(turn: &Turn<'_>, verdict: &Verdict) -> Decision {
    let reboot = turn.status.reboot_status.map(|_| called_off(turn)).filter(|_| turn.op.intent.reboot);
    // A node whose operation was called off did not fail of itself: it names no Job, and its cordon does not stay. A command that was
    // stopped ends badly, which says nothing about the node.
    let failed = job(turn).is_some_and(|job| matches!(job.state, JobState::Failed(_) | JobState::Failing(_)) && !job.deleting);
    let called_off = turn.op.deleting && !failed;
    let status = NodeStatus { untouched: (verdict.untouched || called_off).then_some(true), ..turn.status.clone() };
    let reboot = reboot.or(Some(RebootStatus::NotRequested));
    Decision::Record(Box::new(finished(turn.s.now, &status, Phase::Failed, reboot, verdict.reason.clone())))
}

/// What is said of a reboot that is given up: that it was called off only where the node is seen in the boot that it was to leave. One
/// that went away may come back in another boot, and where nothing tells which boot it was to leave, nobody knows whether it did.
fn called_off(turn: &Turn<'_>) -> RebootStatus {
    let stays = turn.node.ready && turn.status.boot.as_ref() == Some(&turn.node.boot_id);
    match turn.status.step {
        Some(Step::Verify) => RebootStatus::Completed,
        Some(Step::Reboot) if !stays => RebootStatus::Pending,
        _ => RebootStatus::Cancelled,
    }
}

/// What was given up has succeeded before its end was seen: its step goes on.
fn succeeded_after_all(turn: &mut Turn<'_>) -> Option<Decision> {
    let goes_on = |turn: &Turn<'_>| {
        turn.record(|status| {
            (status.given_up, status.untouched) = (None, None);
            // The mark of older records, see `recorded`; in other steps it is a deadline that stands.
            status.deadline = status.deadline.take().filter(|_| status.step != Some(Step::Job));
        })
    };
    match turn.status.step {
        Some(Step::Job) => {
            // A Job that was given up because it had not begun. What was found wrong with one that is complete stays wrong.
            let awaited = turn.status.untouched.is_some() || turn.status.given_up.is_none();
            let complete = awaited && job(turn).is_some_and(|job| job.state == JobState::Complete);
            // A waiter that goes on has seen the Job complete before it went.
            let gone = job(turn).is_none() && turn.op.intent.reboot && !legacy::is_adopted(turn) && waiter::went_on(turn).is_some();
            (turn.status.job_uid.is_some() && (complete || gone)).then(|| goes_on(turn))
        }
        Some(Step::Reboot) => match reboot::arrival(turn) {
            reboot::Arrival::Proved => Some(goes_on(turn)),
            reboot::Arrival::Unconfirmed(question) => {
                turn.ask(question);
                Some(Decision::Wait(reboot::CONFIRMS.into()))
            }
            reboot::Arrival::No => None,
        },
        Some(Step::Preflight | Step::Claim | Step::Drain | Step::Verify) | None => None,
    }
}

/// The node's Job as a cache shows it, if it is the recorded one.
fn job<'a>(turn: &Turn<'a>) -> Option<&'a JobView> {
    let name = turn.status.job_name.clone()?;
    let job = turn.s.jobs.get(&(turn.op.me.namespace.clone(), name))?;
    (turn.status.job_uid.as_ref() == Some(&job.uid)).then_some(job)
}

/// Whether a container of the operation has begun.
fn has_begun(turn: &Turn<'_>) -> bool {
    let uid = turn.status.job_uid.as_deref();
    uid.is_some_and(|uid| turn.job_pods(uid).any(|pod| pod.has_begun()))
}

/// Sees to it that nothing of the operation can act on the node any more. `Some`: not yet, and why.
fn end(turn: &mut Turn<'_>) -> Option<String> {
    let (node, attempt) = ((turn.node.name.as_str(), turn.node.ready), turn.status.attempt.unwrap_or(0));
    if let Some(name) = &turn.status.job_name
        && let Some(open) = cancel::job(turn.s, turn.op, name, turn.plan)
    {
        return Some(open);
    }
    let failed = job(turn).is_some_and(|job| matches!(job.state, JobState::Failed(_) | JobState::Failing(_)));
    if let Some(uid) = turn.status.job_uid.as_deref().filter(|_| !failed)
        && turn.job_pods(uid).any(|pod| !pod.cannot_act(turn.node.ready))
    {
        return Some("the pods of its Job are ending".into());
    }
    // Nothing was made for a node that is only about to be claimed; a waiter that was made ahead of its turn is ended with its release.
    let waits = turn.op.intent.reboot && !matches!(turn.status.step, Some(Step::Claim) | None);
    if !waits {
        return None;
    }
    // The waiter of a Job that failed removes the sentinel and ends by itself, or is ended when its node is released: no reboot can
    // follow. One that was just made, and that no cache shows, has to be seen first.
    let key = (turn.op.me.namespace.clone(), turn.op.object_name(node.0, "reboot", attempt));
    if failed && turn.s.pods.contains_key(&key) && turn.s.answer(&Question::Pod(key)).is_none() {
        return None;
    }
    cancel::waiter(turn.s, turn.op, node, attempt, turn.plan)
}

#[cfg(test)]
mod tests;

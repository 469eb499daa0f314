//! Before the Job: the node is drained while its reboot waiter starts. Nothing of the operation has begun.

use crate::plan::node::{
    cancel, drain,
    hold::hold,
    job::start_job,
    turn::{Next, Turn},
    waiter::{self, Waiter},
};

/// Before the Job nothing has begun; whatever the node fails of, its waiter is seen to end before that is said. One that
/// was just made and that no cache shows yet would be left on a node which is no longer ours.
pub fn advance(turn: &mut Turn<'_>) -> Next {
    let before = turn.plan.actions.len();
    let next = drained(turn);
    let ends = matches!(&next, Next::Become(next) if next.phase.is_final());
    if !ends || !turn.op.intent.reboot {
        return next;
    }
    // What was planned to go on is not done any more, or a waiter would be made and ended in turns.
    turn.plan.actions.truncate(before);
    let node = (turn.node.name.as_str(), turn.node.ready);
    match cancel::waiter(turn.s, turn.op, node, turn.status.attempt.unwrap_or(0), turn.plan) {
        Some(why) => Next::Wait(format!("not going on with this node: {why}")),
        None => next,
    }
}

/// Drains the node while its waiter starts; nothing of the operation has begun.
fn drained(turn: &mut Turn<'_>) -> Next {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(turn) {
        return next;
    }
    if turn.op.intent.drain.is_some() {
        // Whatever this pass comes to: a watch that is taken up again knows nothing at first, and what blocks is forgotten.
        turn.plan.drains.insert(turn.node.name.clone());
    }
    let waiter = waiter::ensure(turn, &turn.op.object_name(&turn.node.name, "", 0));
    let started = turn.status.drain_started_at.as_ref().map_or(turn.s.now, |time| time.0);
    match &waiter {
        Waiter::Foreign(name) => {
            return turn.fail(format!("a pod {name} exists that is not ours; delete it and create the NodeOp again"));
        }
        Waiter::Lost(next) => return next.clone(),
        Waiter::Starting(why) => {
            if let Some(next) = waiter::overdue(turn, started, why) {
                return next;
            }
        }
        Waiter::Ready | Waiter::NotAsked => {}
    }
    let progress = match &turn.op.intent.drain {
        Some(options) => drain::advance(turn, &options.clone(), started),
        None => drain::Progress::Done(Vec::new()),
    };
    match (progress, waiter) {
        (drain::Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            drain::say_left(turn, &left);
            start_job(turn)
        }
        (drain::Progress::Done(_), Waiter::Starting(why)) => Next::Wait(format!("waiting for the reboot waiter: {why}")),
        (drain::Progress::Refused(why), _) => turn.fail(why),
        (drain::Progress::Record(next), _) => next,
        (drain::Progress::Going(why), _) => give_up_or_wait(turn, &why),
        (drain::Progress::Done(_), Waiter::Foreign(_) | Waiter::Lost(_)) => Next::Wait("the reboot waiter was lost".into()),
    }
}

fn give_up_or_wait(turn: &mut Turn<'_>, why: &str) -> Next {
    let Some(deadline) = turn.status.deadline.as_ref().map(|time| time.0) else {
        return Next::Wait(why.into());
    };
    if turn.s.now >= deadline {
        return turn.fail(format!("drain timed out, the operation was not started: {why}"));
    }
    turn.plan.wake(deadline);
    Next::Wait(why.into())
}

//! Before the Job: the node is drained while its reboot waiter starts. Nothing of the operation has begun.

use crate::plan::node::{
    drain::{self, Progress},
    hold::hold,
    job::start_job,
    turn::{Decision, Turn},
    waiter::{self, Room, Waiter},
};

/// Advances a node in step `Drain`.
pub fn advance(turn: &mut Turn<'_>) -> Decision {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(turn) {
        return next;
    }
    let progress = match &turn.op.intent.drain {
        Some(options) => {
            // Whatever this pass comes to: a watch that is taken up again knows nothing at first, and what blocks is forgotten.
            turn.plan.drains.insert(turn.node.name.clone());
            let started = turn.status.drain_started_at.as_ref().map_or(turn.s.now, |time| time.0);
            drain::advance(turn, &options.clone(), started)
        }
        None => Progress::Done(Vec::new()),
    };
    let room = if matches!(progress, Progress::Done(_)) { Room::Made } else { Room::Awaited };
    if let Progress::Refused(why) = progress {
        return turn.fail(why);
    }
    let waiter = waiter::ensure(turn, &turn.op.object_name(&turn.node.name, "", 0), room);
    match (progress, waiter) {
        (_, Waiter::Lost(next) | Waiter::Overdue(next)) | (Progress::Record(next), _) => next,
        (Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            drain::say_left(turn, &left);
            start_job(turn)
        }
        (Progress::Done(_), Waiter::Starting(why)) => Decision::Wait(format!("waiting for the reboot waiter: {why}")),
        (Progress::Going(why), Waiter::Starting(waiter)) if waiter != waiter::STARTS => {
            give_up_or_wait(turn, &format!("{why}; the reboot waiter: {waiter}"))
        }
        (Progress::Going(why), _) => give_up_or_wait(turn, &why),
        (Progress::Refused(why), _) => turn.fail(why),
    }
}

fn give_up_or_wait(turn: &mut Turn<'_>, why: &str) -> Decision {
    let timeout = turn.op.intent.drain.as_ref().and_then(|drain| drain.timeout);
    let Some(deadline) = timeout.and_then(|timeout| turn.deadline(timeout)) else {
        return Decision::Wait(why.into());
    };
    if turn.s.now >= deadline {
        return turn.fail(format!("drain timed out, the operation was not started: {why}"));
    }
    turn.plan.wake(deadline);
    Decision::Wait(why.into())
}

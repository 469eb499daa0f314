//! Before the Job: the node is drained while its reboot waiter starts. Nothing of the operation has begun.

use crate::plan::node::{
    context::{Decision, NodeContext},
    drain::{self, Progress},
    hold::hold,
    job::start_job,
    waiter::{self, Room, Waiter},
};

/// Advances a node in step `Drain`.
pub fn advance(ctx: &mut NodeContext<'_>) -> Decision {
    if ctx.op.deleting {
        return ctx.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(ctx) {
        return next;
    }
    let progress = match &ctx.op.intent.drain {
        Some(options) => {
            // Whatever this pass comes to: a watch that is taken up again knows nothing at first, and what
            // blocks is forgotten.
            ctx.plan.drains.insert(ctx.node.name.clone());
            let started = ctx.status.drain_started_at.as_ref().map_or(ctx.snapshot.now, |time| time.0);
            drain::advance(ctx, &options.clone(), started)
        }
        None => Progress::Done(Vec::new()),
    };
    let room = if matches!(progress, Progress::Done(_)) { Room::Made } else { Room::Awaited };
    if let Progress::Refused(why) = progress {
        return ctx.fail(why);
    }
    let waiter = waiter::ensure(ctx, &ctx.op.object_name(&ctx.node.name, "", 0), room);
    match (progress, waiter) {
        (_, Waiter::Lost(next) | Waiter::Overdue(next)) | (Progress::Record(next), _) => next,
        (Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            drain::say_left(ctx, &left);
            start_job(ctx)
        }
        (Progress::Done(_), Waiter::Starting(why)) => {
            Decision::Wait(format!("waiting for the reboot waiter: {why}"))
        }
        (Progress::Going(why), Waiter::Starting(waiter)) if waiter != waiter::STARTS => {
            give_up_or_wait(ctx, &format!("{why}; the reboot waiter: {waiter}"))
        }
        (Progress::Going(why), _) => give_up_or_wait(ctx, &why),
        (Progress::Refused(why), _) => ctx.fail(why),
    }
}

fn give_up_or_wait(ctx: &mut NodeContext<'_>, why: &str) -> Decision {
    let timeout = ctx.op.intent.drain.as_ref().and_then(|drain| drain.timeout);
    let Some(deadline) = timeout.and_then(|timeout| ctx.deadline(timeout)) else {
        return Decision::Wait(why.into());
    };
    if ctx.snapshot.now >= deadline {
        return ctx.fail(format!("drain timed out, the operation was not started: {why}"));
    }
    ctx.plan.wake(deadline);
    Decision::Wait(why.into())
}

//! Before the Job: the node is drained while its reboot waiter starts. Nothing of the operation has begun.

use crate::plan::{
    model::effects::{Effects, Planned},
    node::{
        context::{Decision, NodeContext},
        drain::{self, Progress},
        failure::Failure,
        hold::hold,
        job::start_job,
        state::Drain,
        waiter::{self, Room, Waiter},
        waiting::{Draining, Starting, Waiting},
    },
};

/// Advances a node in step `Drain`.
pub fn advance(ctx: &NodeContext<'_>, record: &Drain) -> Planned<Decision> {
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    let mut effects = Effects::default();
    if let Some(next) = effects.take(hold(ctx)) {
        return next.with(effects);
    }
    let progress = match &ctx.op.intent.drain {
        Some(options) => effects.take(drain::advance(ctx, options, record)),
        None => Progress::Done(Vec::new()),
    };
    let room = if matches!(progress, Progress::Done(_)) { Room::Made } else { Room::Awaited };
    if let Progress::Decided(refused @ Decision::GiveUp(_)) = progress {
        return refused.into();
    }
    let waiter = effects.take(waiter::ensure(ctx, &ctx.op.object_name(&ctx.node.name, "", 0), room));
    let next = match (progress, waiter) {
        (_, Waiter::Decided(next)) | (Progress::Decided(next), _) => next.into(),
        (Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            let said = drain::say_left(ctx, &left).map(Effects::from).unwrap_or_default();
            start_job(ctx).with(said)
        }
        (Progress::Done(_), Waiter::Starting(why)) => Waiting::Waiter(why).into(),
        (Progress::Going(drain), Waiter::Starting(waiter)) if waiter != Starting::Starts => {
            give_up_or_wait(ctx, drain, Some(waiter))
        }
        (Progress::Going(drain), _) => give_up_or_wait(ctx, drain, None),
    };
    next.with(effects)
}

fn give_up_or_wait(ctx: &NodeContext<'_>, drain: Draining, waiter: Option<Starting>) -> Planned<Decision> {
    let timeout = ctx.op.intent.drain.as_ref().and_then(|drain| drain.timeout);
    let Some(deadline) = timeout.and_then(|timeout| ctx.deadline(timeout)) else {
        return Waiting::Drain { drain, waiter }.into();
    };
    if ctx.snapshot.now >= deadline {
        return Failure::DrainTimedOut { drain, waiter }.into();
    }
    Waiting::Drain { drain, waiter }.with(Effects::wake_at(deadline))
}

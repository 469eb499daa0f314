//! A NodeOp under way: the nodes that it has taken are advanced, free slots are given to the next ones, and
//! what came of both is recorded.

use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOpStatus, Phase},
    },
    plan::{
        model::effects::{Effects, Planned},
        node::{self, context::Next},
        release,
        rollout::{
            admit::{self, Shared},
            attempts, compact,
            context::{Outcome, Rollout, RolloutContext},
            finalizer, preflight, prestart,
            recall::Recall,
            slots,
            status::OpProgress,
            stops::{expires, fails, stops},
        },
    },
};

/// One pass over a NodeOp under way. Its stages, each of which relies on those before it:
///
/// 1. the nodes that it has taken, and those with a preflight, are advanced, or taken back;
/// 2. it is stopped if a node failed, and then its preflights end;
/// 3. the slots are found that are taken though nobody works on their node;
/// 4. those that are free are given to the next nodes, and of the others it is said why they wait;
/// 5. the nodes that are about to get a slot get their reboot waiters;
/// 6. nodes that ended untouched first say that they were tried;
/// 7. what no decision needs any more is left out, if there are very many nodes.
pub fn roll<'a>(ctx: &'a RolloutContext<'a>, old: &'a NodeOpStatus, shared: &mut Shared) -> Planned<Outcome> {
    let RolloutContext { snapshot, op, .. } = *ctx;
    let mut effects = release::expire_waiters(snapshot, op).effects;
    let stopped = stops(ctx, &old.node_statuses);
    if old.node_statuses.any([Mark::Running]) {
        effects.add(Effects::act(finalizer::missing(op)));
    }
    let progress = OpProgress { stopped, deleting: op.deleting, ..OpProgress::default() };
    let rollout = Rollout { nodes: old.node_statuses.clone(), progress, ..Rollout::default() };
    let mut rollout = effects.absorb(advance(ctx, old, rollout));
    // A failure in this pass stops it at once; the other reasons are those found above.
    rollout.progress.stopped = rollout.progress.stopped.or_else(|| fails(op, &rollout.nodes));
    if rollout.progress.stopped.is_some() {
        rollout = preflight::withdraw(ctx, rollout);
    }
    rollout = effects.absorb(slots::find(ctx, &old.node_statuses, rollout));
    rollout = effects.absorb(admit::fill(ctx, rollout, shared));
    if rollout.progress.refused.is_some() {
        rollout = preflight::withdraw(ctx, rollout);
    }
    let Rollout { nodes, progress, .. } = &rollout;
    let nothing_starts = ctx.closed(progress.stopped.as_ref()).is_some() || progress.refused.is_some();
    effects.add(if nothing_starts || progress.are_slots_held(&op.intent) {
        prestart::withdraw(ctx, nodes)
    } else {
        prestart::prepare(ctx, nodes, &progress.slots)
    });
    if progress.stopped.is_none() && nodes.any([Mark::Pending, Mark::Preflight, Mark::Running]) {
        effects.add(expires(op));
    }
    rollout = effects.absorb(attempts::record(ctx, &old.node_statuses, rollout));
    compact::compact(snapshot, op, &mut rollout.nodes);
    Planned { value: Outcome::Record(Box::new(rollout)), effects }
}

/// Advances the nodes that are worked on, and those with a preflight.
fn advance<'a>(ctx: &'a RolloutContext<'a>, old: &NodeOpStatus, mut rollout: Rollout) -> Planned<Rollout> {
    let mut effects = Effects::default();
    let stopped = rollout.progress.stopped.clone();
    let recall = Recall::of(ctx, stopped.as_ref());
    for (name, node) in old.node_statuses.marked([Mark::Running, Mark::Preflight]) {
        let planned = if let Some(back) = recall.node(name, node) {
            back.into()
        } else if node.phase == Phase::Running {
            node::advance_node(ctx.snapshot, ctx.op, name, node)
        } else if stopped.is_some() {
            preflight::withdrawn(ctx, node).into()
        } else {
            preflight::advance(ctx, name, node)
        };
        let error = planned.effects.keeps_failing(&ctx.snapshot.failures);
        match effects.absorb(planned) {
            Next::Become(next) => rollout.nodes.insert(name, *next),
            Next::Wait(why) => {
                let why = rollout.progress.failures.complete(why, error);
                rollout.nodes.say(name, &why.message);
                rollout.waiting.insert(name.clone(), why);
            }
        }
    }
    Planned { value: rollout, effects }
}

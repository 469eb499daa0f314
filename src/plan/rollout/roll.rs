//! A NodeOp under way: the nodes that it has taken are advanced, free slots are given to the next ones, and
//! what came of both is recorded.

use crate::{
    api::{node_statuses::Mark, nodeop::NodeOpStatus},
    plan::{
        model::effects::{Effects, Planned},
        node::{
            self,
            context::EntryPlan,
            state::{Entry, State, Tampered},
        },
        release,
        rollout::{
            admit::{self, Shared},
            compact,
            context::{Outcome, Rollout, RolloutContext},
            finalizer, mark_tried, preflight, prestart,
            recall::Recall,
            slots, starved,
            status::OpProgress,
            stops::{failed_under_stop_on_failure, wake_at_expiry, why_stopped},
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
    let Planned { value: _, effects: expired } = release::expire_waiters(snapshot, op);
    let works = old.node_statuses.any([Mark::Running]);
    let finalizer = Effects::act(if works { finalizer::missing(op) } else { None });
    let Planned { value: rollout, effects: advanced } = advance(ctx, old);
    let rollout = preflight::withdraw(ctx, rollout);
    let Planned { value: rollout, effects: found } = slots::find(ctx, &old.node_statuses, rollout);
    let Planned { value: rollout, effects: filled } = admit::fill(ctx, rollout, shared);
    let rollout = preflight::withdraw(ctx, rollout);
    let waiters = prestart::for_next(ctx, &rollout);
    let until = stops_later(ctx, &rollout);
    let Planned { value: mut rollout, effects: tried } = mark_tried::record(ctx, &old.node_statuses, rollout);
    compact::compact(snapshot, op, &mut rollout.nodes);
    let effects = Effects::all([expired, finalizer, advanced, found, filled, waiters, until, tried]);
    Planned { value: Outcome::Record(Box::new(rollout)), effects }
}

/// Advances the nodes that are worked on, and those with a preflight.
fn advance<'a>(ctx: &'a RolloutContext<'a>, old: &NodeOpStatus) -> Planned<Rollout> {
    let stopped = why_stopped(ctx, &old.node_statuses);
    let recall = Recall::of(ctx, stopped.as_ref());
    let mut starves = false;
    let advanced = old.node_statuses.marked([Mark::Running, Mark::Preflight]).filter_map(|(name, status)| {
        let (entry, missing) = match Entry::parse(status) {
            Ok(entry) => (entry, None),
            Err(Tampered { missing, rest }) => (*rest, Some(missing)),
        };
        let planned = match &entry.state {
            State::Working(work) => match recall.node(name, &entry, work) {
                Some(back) => back.into(),
                None => node::advance_node(ctx.snapshot, ctx.op, name, (&entry, work), missing),
            },
            State::Preflight(record) if stopped.is_some() => {
                EntryPlan::Record(Box::new(preflight::withdrawn(ctx.snapshot.now, &entry, record))).into()
            }
            State::Preflight(record) => preflight::advance(ctx, name, &entry, record),
            State::Pending(_) | State::Over(_) => return None,
        };
        let error = planned.effects.persistent_failure(&ctx.snapshot.failures);
        let is_taken = matches!(entry.state, State::Working(_));
        starves |= is_taken && starved::is(ctx.snapshot, ctx.op, name, error.as_deref());
        Some(planned.map(|next| (name, next, error)))
    });
    let Planned { value: advanced, effects } = advanced.collect::<Planned<Vec<_>>>();
    let progress = OpProgress { deleting: ctx.op.deleting, starves, ..OpProgress::default() };
    let mut rollout = Rollout { nodes: old.node_statuses.clone(), progress, ..Rollout::default() };
    for (name, next, error) in advanced {
        match next {
            EntryPlan::Record(next) => rollout.nodes.insert(name, next.record()),
            EntryPlan::Wait(why) => {
                let why = rollout.progress.failures.complete(why, error);
                rollout.nodes.say(name, &why.message);
                rollout.waiting.insert(name.clone(), why);
            }
        }
    }
    // A failure in this pass stops it at once; the other reasons are those found before it.
    rollout.progress.stopped = stopped.or_else(|| failed_under_stop_on_failure(ctx.op, &rollout.nodes));
    Planned { value: rollout, effects }
}

/// When it starts nothing more, if it still has nodes to take and there is such a time.
fn stops_later(ctx: &RolloutContext<'_>, rollout: &Rollout) -> Effects {
    let Rollout { nodes, progress, .. } = rollout;
    let goes_on = progress.stopped.is_none() && nodes.any([Mark::Pending, Mark::Preflight, Mark::Running]);
    if goes_on { wake_at_expiry(ctx.op) } else { Effects::default() }
}

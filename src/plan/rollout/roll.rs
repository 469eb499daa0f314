//! A NodeOp under way: the nodes that it has taken are advanced, free slots are given to the next ones, and
//! what came of both is recorded.

use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOpStatus, Phase},
    },
    plan::{
        image,
        model::{
            effects::{Effects, Planned, Reasons},
            failing::FailureSummary,
            snapshot::Snapshot,
        },
        node::{
            self,
            context::{Next, Op},
        },
        release::{self, Releases},
        rollout::{
            admit::{self, Shared},
            attempts, compact, finalizer, preflight, prestart, recall, slots,
            status::{self, OpProgress},
            stops::{expires, fails, stops},
        },
    },
};

/// One pass over a NodeOp under way.
pub fn roll(
    snapshot: &Snapshot,
    op: &Op,
    old: &NodeOpStatus,
    releases: &Releases<'_>,
    shared: &mut Shared,
) -> Planned<Reasons> {
    let mut effects = release::expire_waiters(snapshot, op).effects;
    let mut waiting = Reasons::default();
    let mut nodes = old.node_statuses.clone();
    let stopped = stops(snapshot, op, &nodes);
    if nodes.any([Mark::Running]) {
        effects.add(Effects::act(finalizer::add(op)));
    }
    let mut failures = FailureSummary::default();
    let recall = recall::of(snapshot, op, stopped.as_ref());
    for (name, node) in old.node_statuses.marked([Mark::Running, Mark::Preflight]) {
        let planned = if let Some(back) = recall.node(name, node) {
            back.into()
        } else if node.phase == Phase::Running {
            node::advance(snapshot, op, name, node)
        } else {
            preflight::advance(snapshot, op, name, node, stopped.is_some())
        };
        let error = planned.effects.keeps_failing(snapshot);
        match effects.take(planned) {
            Next::Become(next) => nodes.insert(name, *next),
            Next::Wait(why) => {
                let why = failures.complete(why, error);
                nodes.say(name, &why.message);
                waiting.insert(name.clone(), why);
            }
        }
    }
    // What else ends a rollout is not of this pass's making.
    let stopped = stopped.or_else(|| fails(op, &nodes));
    if stopped.is_some() {
        preflight::withdraw(snapshot, op, &mut nodes);
    }
    let slots =
        slots::find(snapshot, op, releases, &old.node_statuses, &mut nodes, &mut failures, &mut waiting);
    let slots = effects.take(slots);
    let mut progress =
        OpProgress { slots, stopped, deleting: op.deleting, failures, ..OpProgress::default() };
    effects.add(admit::fill(snapshot, op, &mut nodes, &mut progress, &mut waiting, shared));
    if progress.refused.is_some() {
        preflight::withdraw(snapshot, op, &mut nodes);
    }
    let nothing_starts =
        op.deleting || op.intent.paused || progress.stopped.is_some() || progress.refused.is_some();
    effects.add(if nothing_starts || progress.are_slots_held(&op.intent) {
        prestart::withdraw(snapshot, op, &nodes)
    } else {
        prestart::prepare(snapshot, op, &nodes, &progress.slots)
    });
    if progress.stopped.is_none() && nodes.any([Mark::Pending, Mark::Preflight, Mark::Running]) {
        effects.add(expires(op));
    }
    effects.add(attempts::record(snapshot, op, &old.node_statuses, &mut nodes, &mut progress, &mut waiting));
    compact::compact(snapshot, op, &mut nodes);
    let releases = image::FirstReleases::of(snapshot, &op.object, &nodes);
    let mut status = status::summarize(&op.object, nodes, &progress, snapshot.now);
    status.release = releases.shown(status.release.take());
    image::record(snapshot, &op.object, &mut status);
    Planned { value: waiting, effects: status::write(snapshot, &op.object, status, effects) }
}

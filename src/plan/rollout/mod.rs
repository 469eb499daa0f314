//! Who is next: one NodeOp's claimed nodes are advanced, and free slots are given to the next nodes in order.
//!
//! All NodeOps are planned one after the other on one snapshot, the oldest first, and each sees what the ones
//! before it took in the same plan ([`plan_all`]): a limit across nodes cannot be kept by decisions that see
//! one object each.
//!
//! In reading order:
//!
//! - `targets`: which nodes, chosen once, and in which order; `adopt`: the same for what the Go operator
//!   began;
//! - `start`, `roll`, `conclude`: a NodeOp without a record of its nodes, under way, and over;
//! - `recall`, `slots`, `admit`, `prestart`: the parts of `roll`, in the order in which they run; `context`
//!   is what they look at;
//! - `preflight`: the look at a node before it is taken;
//! - `not_taken`, `stops`, `out_of_service`, `others`, `left_over`, `starved`: why a node is not taken now;
//! - `status`: what is written of it all, and `compact`: how much of it is kept;
//! - `finalizer`, `expiry`, `observe_generation`, `mark_tried`: the rest, a page each.

mod admit;
mod adopt;
mod compact;
mod conclude;
mod context;
mod expiry;
mod finalizer;
mod left_over;
mod mark_tried;
mod not_taken;
mod observe_generation;
mod others;
mod out_of_service;
mod preflight;
mod prestart;
mod recall;
mod roll;
mod slots;
mod start;
mod starved;
pub mod status;
mod stops;
mod targets;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{admit::Shared, targets::order};
use self::{
    conclude::conclude,
    context::{Outcome, Rollout, RolloutContext},
    others::age,
    roll::roll,
    start::start,
};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOp, NodeOpStatus, Phase},
    },
    plan::{
        image::{self, FirstReleases},
        model::{
            effects::{Effects, Planned, Reasons},
            id::Key,
            snapshot::Snapshot,
        },
        node::context::Op,
        release::Releases,
        upgrades,
    },
};

/// Whether nothing is left to do about a NodeOp, which is over. Nearly all are, and a plan passes them by.
pub fn is_at_rest(snapshot: &Snapshot, op: &NodeOp) -> bool {
    op.is_over()
        && op.is_observed()
        && !op.has_our_finalizer()
        && op.metadata.deletion_timestamp.is_none()
        && op.spec.ttl_seconds_after_finished.is_none()
        && op.metadata.uid.as_ref().is_some_and(|uid| snapshot.pods.open_of_owner(uid).next().is_none())
}

/// What a NodeOp as a whole is at.
enum NodeOpStage<'a> {
    /// It is over, or was deleted before it began.
    Ended,
    /// The Go operator began it.
    Legacy(&'a NodeOpStatus),
    /// It has nodes.
    UnderWay(&'a NodeOpStatus),
    /// Its nodes are still to be chosen.
    New,
    /// It may not start yet: the upgrade that made it has not recorded it.
    Unrecorded,
}

impl<'a> NodeOpStage<'a> {
    fn of(ctx: &RolloutContext<'a>) -> Self {
        let op = ctx.op;
        match &op.object.status {
            Some(_) if op.object.is_over() => Self::Ended,
            Some(status) if status.is_legacy() => Self::Legacy(status),
            // A record of nodes under no phase (somebody edited it) is a record all the same: chosen anew,
            // what is done would be done again. So is one of a run from which somebody removed the nodes.
            Some(status) if status.phase == Some(Phase::Running) || !status.node_statuses.is_empty() => {
                Self::UnderWay(status)
            }
            _ if op.deleting => Self::Ended,
            _ if upgrades::may_start(ctx.upgrade, &op.object) => Self::New,
            _ => Self::Unrecorded,
        }
    }
}

/// Plans every NodeOp about which something is left to do, and says why its nodes do not move.
pub fn plan_all(snapshot: &Snapshot, releases: &Releases<'_>) -> Planned<BTreeMap<Key, Reasons>> {
    let finished_with_open_pods = snapshot.finished_with_open_pods();
    let open = snapshot.ops.iter().filter(|(_, op)| !is_at_rest(snapshot, op));
    let mut ops: Vec<_> = open.chain(&finished_with_open_pods).collect();
    ops.sort_by(|(_, one), (_, other)| age(one).cmp(&age(other)));
    let mut shared = Shared::default();
    let planned = ops.into_iter().map(|(key, op)| {
        plan_nodeop(snapshot, op, releases, &mut shared).map(|reasons| (key.clone(), reasons))
    });
    planned.collect()
}

/// Plans one NodeOp.
pub fn plan_nodeop(
    snapshot: &Snapshot,
    object: &Arc<NodeOp>,
    releases: &Releases<'_>,
    shared: &mut Shared,
) -> Planned<Reasons> {
    let op = Op::of(object);
    let ctx = RolloutContext::new(snapshot, &op, releases);
    let swept = preflight::sweep(snapshot, &op);
    let stage = NodeOpStage::of(&ctx);
    let Planned { value: outcome, effects } = match &stage {
        NodeOpStage::Ended => Planned::from(Outcome::Nothing(Reasons::default())).with(conclude(&ctx)),
        NodeOpStage::Legacy(status) => adopt::take_over(&ctx, status),
        NodeOpStage::UnderWay(status) => roll(&ctx, status, shared),
        NodeOpStage::New => start(&ctx),
        NodeOpStage::Unrecorded => Outcome::Nothing(Reasons::default()).into(),
    };
    let effects = Effects::all([swept, effects]);
    match outcome {
        Outcome::Nothing(waiting) => Planned { value: waiting, effects },
        Outcome::Record(rollout) => record(&ctx, &stage, *rollout, effects),
    }
}

/// Writes the status that follows from a pass, with what goes with it.
fn record(
    ctx: &RolloutContext<'_>,
    stage: &NodeOpStage<'_>,
    rollout: Rollout,
    effects: Effects,
) -> Planned<Reasons> {
    let (snapshot, op) = (ctx.snapshot, &ctx.op.object);
    let Rollout { nodes, mut progress, waiting, ran_before } = rollout;
    if ctx.op.intent.upgrade && !nodes.any([Mark::Pending, Mark::Preflight, Mark::Running]) {
        progress.drifted = status::find_drifted(snapshot, ctx.op, &nodes);
    }
    let releases = matches!(stage, NodeOpStage::UnderWay(_)).then(|| FirstReleases::of(snapshot, op, &nodes));
    let mut status = status::summarize(op, nodes, &progress, snapshot.now);
    if let Some(releases) = releases {
        status.release = releases.shown(status.release.take());
        image::record(snapshot, op, &mut status);
    }
    status.images.extend(ran_before);
    Planned { value: waiting, effects: status::write(snapshot, op, status, effects) }
}

#[cfg(test)]
mod tests;

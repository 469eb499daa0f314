//! A NodeOp that has no record of its nodes yet: it gets one, and everything else follows from that.

use std::collections::BTreeMap;

use crate::{
    api::{
        node_statuses::NodeStatuses,
        nodeop::{NodeOpStatus, NodeStatus},
    },
    plan::{
        model::{
            action::Notice,
            effects::{Planned, Reasons},
            snapshot::Snapshot,
        },
        node::context::Op,
        rollout::{
            adopt,
            context::{Outcome, Rollout, RolloutContext},
            not_taken::Stopped,
            status::OpProgress,
            stops::{wake_at_expiry, why_stopped},
            targets::{self, Targets},
        },
        upgrades,
    },
};

/// Records the targets, or why there are none.
pub fn start(ctx: &RolloutContext<'_>) -> Planned<Outcome> {
    let RolloutContext { snapshot, op, .. } = *ctx;
    // Whatever has a status of ours was looked at before.
    if op.object.status.is_none() {
        match adopt::may_have_begun(snapshot, op) {
            Ok(false) => {}
            Ok(true) => return adopt::take_over(ctx, &NodeOpStatus::default()),
            Err(question) => return Planned::from(Outcome::Nothing(Reasons::default())).with(question),
        }
    }
    let stopped = why_stopped(ctx, &NodeStatuses::default());
    let Planned { value: (nodes, progress), mut effects } = match stopped {
        // It has no nodes, and is to have none.
        Some(why) => not_begun(snapshot, op, why),
        None => targets(snapshot, op).with(wake_at_expiry(op)),
    };
    let nodes = nodes.into();
    let absent = targets::absent(&op.object, &nodes);
    effects.notices.extend(absent.map(|message| Notice {
        warning: true,
        reason: "NoSuchNode",
        message,
        node: None,
    }));
    let mut rollout = Rollout { nodes, progress, ..Rollout::default() };
    if op.object.status.is_none() {
        // What its run has run, a later round of it is compared with.
        rollout.ran_before.extend(upgrades::contents_of_run(ctx.upgrade, &op.object));
    }
    Planned { value: Outcome::Record(Box::new(rollout)), effects }
}

/// A NodeOp that has no node and must not begin any more.
fn not_begun(
    snapshot: &Snapshot,
    op: &Op,
    stopped: Stopped,
) -> Planned<(BTreeMap<String, NodeStatus>, OpProgress)> {
    let no_targets = match &stopped {
        Stopped::Expired(_) => targets::missed(snapshot, &op.object),
        Stopped::NodeFailed(_) | Stopped::NodeNotProved(_) | Stopped::Superseded { .. } => None.into(),
    };
    let progress = |no_targets| OpProgress { stopped: Some(stopped), no_targets, ..OpProgress::default() };
    no_targets.map(|why| (BTreeMap::new(), progress(why)))
}

/// The nodes of a NodeOp that has none yet.
fn targets(snapshot: &Snapshot, op: &Op) -> Planned<(BTreeMap<String, NodeStatus>, OpProgress)> {
    let without = |why| (BTreeMap::new(), OpProgress { no_targets: Some(why), ..OpProgress::default() });
    targets::choose(snapshot, &op.object).map(|targets| match targets {
        Targets::Chosen(nodes) => (nodes, OpProgress::default()),
        Targets::Missing(why) => without(why),
    })
}

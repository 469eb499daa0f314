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
            status::{self, OpProgress},
            stops::{expires, stops},
            targets::{self, Targets},
        },
        upgrades,
    },
};

/// Records the targets, or why there are none.
pub fn start(snapshot: &Snapshot, op: &Op) -> Planned<Reasons> {
    // Whatever has a status of ours was looked at before.
    if op.object.status.is_none() {
        match adopt::may_have_begun(snapshot, op) {
            Ok(false) => {}
            Ok(true) => return adopt::plan(snapshot, op, &NodeOpStatus::default()),
            Err(question) => return Planned::from(Reasons::default()).with(question),
        }
    }
    let stopped = stops(snapshot, op, &NodeStatuses::default());
    let Planned { value: (nodes, progress), mut effects } = match stopped {
        // It has no nodes, and is to have none.
        Some(_) => (BTreeMap::new(), OpProgress { stopped, ..OpProgress::default() }).into(),
        None => targets(snapshot, op).with(expires(op)),
    };
    let nodes = nodes.into();
    let absent = targets::absent(&op.object, &nodes);
    effects.notices.extend(absent.map(|message| Notice {
        warning: true,
        reason: "NoSuchNode",
        message,
        node: None,
    }));
    let mut status = status::summarize(&op.object, nodes, &progress, snapshot.now);
    if op.object.status.is_none() {
        // What its run has run, a later round of it is compared with.
        status.images.extend(upgrades::contents_of_run(snapshot, &op.object));
    }
    Planned { value: Reasons::default(), effects: status::write(snapshot, &op.object, status, effects) }
}

/// The nodes of a NodeOp that has none yet.
fn targets(snapshot: &Snapshot, op: &Op) -> Planned<(BTreeMap<String, NodeStatus>, OpProgress)> {
    let without = |why| (BTreeMap::new(), OpProgress { no_targets: Some(why), ..OpProgress::default() });
    targets::choose(snapshot, &op.object).map(|targets| match targets {
        Targets::Chosen(nodes) => (nodes, OpProgress::default()),
        Targets::Missing(why) => without(why),
    })
}

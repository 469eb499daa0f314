//! What is kept of a node that is done, where there are very many: the server takes an object of 1.5 MiB, and
//! beyond that nothing could be recorded any more, with nodes in progress.

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::NodeStatus,
    },
    plan::{
        image::FirstReleases,
        model::snapshot::{Role, Snapshot},
        node::context::Op,
    },
};

/// With more targets than this, what no decision needs any more of a node that is done is left out.
const COMPACT_ABOVE: usize = 1000;
/// How many nodes of more targets than that are worked on at once at most, whatever `concurrency` says: their
/// entries are four times as long as those of others.
const MAX_IN_PROGRESS: usize = 400;

/// How many nodes may be worked on at once, or still have to be given back, of this number of targets.
pub const fn max_in_progress(targets: usize) -> usize {
    if targets > COMPACT_ABOVE { MAX_IN_PROGRESS } else { usize::MAX }
}

/// Leaves out what nobody decides on: the name of the Job, which can be computed, the time, and the reboot
/// once no waiter waits for it any more. Phase, message, reason and proof stay; and of the first node of each
/// architecture, with which others are compared, the release that the image brought; and the id of a machine
/// whose Node was lost, by which the next round knows it again.
pub fn compact(snapshot: &Snapshot, op: &Op, nodes: &mut NodeStatuses) {
    if nodes.len() <= COMPACT_ABOVE {
        return;
    }
    let waits = |name: &str| snapshot.pods_of_on(&op.id, Role::Waiter, name).next().is_some();
    let whole = nodes.marked([Mark::Uncompacted]).map(|(name, _)| name).filter(|name| !waits(name));
    let whole: Vec<String> = whole.cloned().collect();
    if whole.is_empty() {
        return;
    }
    let first = FirstReleases::of(snapshot, &op.object, nodes);
    for name in whole {
        nodes.update(&name, |entry| {
            *entry = NodeStatus {
                phase: entry.phase,
                message: entry.message.take(),
                reason: entry.reason,
                verified: entry.verified,
                holds_slot: entry.holds_slot,
                target: entry.target.take().filter(|_| first.is_of(&name)),
                machine_id: entry.machine_id.take(),
                ..NodeStatus::default()
            };
        });
    }
}

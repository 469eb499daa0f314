//! Other NodeOps that have to do with a node: those that have it, and those that take it first.
//!
//! A node belongs to one operation at a time. Older NodeOps go first. Among NodeOps of upgrades, that of the
//! newest upgrade goes first, and the others wait for it (see `plan::upgrades::newest`), so nobody else waits
//! for them.
//!
//! What is found out about such a node ahead of its turn is not true for long: "already at this release" was
//! said of a node while another NodeOp's agent was writing the next one.

use std::sync::Arc;

use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOp, NodeStatus, Phase},
        owner,
        upgrade::NodeOpUpgrade,
    },
    plan::{
        model::{
            age::{self, Age},
            id::{Key, OpRef},
            question::Question,
            snapshot::{JobView, NodeView, Snapshot},
        },
        node::{context::Op, waiting::Precedes},
        rollout::not_taken::NotTaken,
        upgrades::newest::{Newer, Precedence},
    },
};

/// In which order NodeOps are served: the oldest first.
pub fn age(op: &NodeOp) -> Age<'_> {
    age::age(&op.metadata)
}

/// All NodeOps but one that are not over.
#[derive(Debug)]
pub struct Others<'a> {
    snapshot: &'a Snapshot,
    op: &'a Op,
    unfinished: Vec<Other<'a>>,
    /// Upgrades that are newer than the one that made the NodeOp.
    newer: Newer<'a>,
}

#[derive(Debug)]
struct Other<'a> {
    op: &'a Arc<NodeOp>,
    /// Upgrades for which it waits. Among NodeOps of upgrades nobody asks.
    newer: Newer<'a>,
}

impl<'a> Others<'a> {
    /// Those other than `op`, which this upgrade made if one did.
    pub fn of(snapshot: &'a Snapshot, op: &'a Op, upgrade: Option<&NodeOpUpgrade>) -> Self {
        let unfinished = snapshot.ops.values().filter(|other| OpRef::of(other) != op.id && !other.is_over());
        let unfinished = unfinished.map(|other| {
            let newer = if owner::is_of_upgrade(&op.object.metadata) {
                Newer::default()
            } else {
                Newer::than_maker_of(snapshot, other)
            };
            Other { op: other, newer }
        });
        let newer = upgrade.map(|upgrade| Newer::than(snapshot, upgrade)).unwrap_or_default();
        Self { snapshot, op, unfinished: unfinished.collect(), newer }
    }

    /// Whether a newer upgrade may come first on any node.
    pub fn any_newer(&self) -> bool {
        !self.newer.is_empty()
    }

    /// The nodes that another NodeOp has, or may have still to take before this one does. Two NodeOps of
    /// upgrades do not wait for each other's turn.
    pub fn concerned(&self) -> impl Iterator<Item = &String> {
        let me = &self.op.object;
        let of_upgrade = owner::is_of_upgrade(&me.metadata);
        let waits = move |other: &NodeOp| {
            age(other) < age(me) && !(of_upgrade && owner::is_of_upgrade(&other.metadata))
        };
        self.unfinished.iter().flat_map(move |other| {
            let nodes = other.op.status.iter().map(|status| &status.node_statuses);
            let open = nodes.clone().filter(move |_| waits(other.op));
            let has = nodes.flat_map(|nodes| nodes.marked([Mark::Running, Mark::NotGivenBack]));
            has.chain(open.flat_map(|nodes| nodes.marked([Mark::Pending, Mark::Preflight])))
                .map(|(name, _)| name)
        })
    }

    /// The newer upgrade that has decided what the node runs.
    pub fn decided(&self, node: &NodeView) -> Option<Key> {
        match self.newer.on(node)? {
            Precedence::Decided(upgrade) => Some(upgrade),
            Precedence::Waits(_) => None,
        }
    }

    /// The newer upgrade that comes first on the node, or has decided what it runs.
    pub fn newer(&self, node: &NodeView) -> Option<NotTaken> {
        self.newer.on(node).map(|by| NotTaken::Newer { upgrade: by.upgrade().clone() })
    }

    /// Why the node is not to be looked at now: another NodeOp has it, or an older one has still to take it.
    pub fn precede(&self, node: &NodeView) -> Option<NotTaken> {
        if let Some(why) = holder(self.snapshot, self.op, node).or_else(|| self.newer(node)) {
            return Some(why);
        }
        let to_come = |(other, entry): &(&Other<'_>, &NodeStatus)| {
            let older = age(other.op) < age(&self.op.object);
            let both =
                owner::is_of_upgrade(&other.op.metadata) && owner::is_of_upgrade(&self.op.object.metadata);
            // One that is being deleted takes nothing any more.
            let open = !entry.phase.is_final() && other.op.metadata.deletion_timestamp.is_none();
            older && !both && open && other.newer.on(node).is_none()
        };
        let mut concerned = self.unfinished.iter().filter_map(|other| Some((other, entry(other.op, node)?)));
        let (other, _) = concerned.find(to_come)?;
        Some(NotTaken::Other { op: OpRef::of(other.op).key(), why: Precedes::IsOlder })
    }

    /// What has to be read live before it is believed that nobody else has to do with the node: the node
    /// itself, which says whose it is, and what other NodeOps say of it, if there are any that may.
    pub fn questions(&self, node: &NodeView) -> Vec<Question> {
        let may_meet = |other: &Other<'_>| {
            let open = || entry(other.op, node).is_some_and(|entry| !entry.phase.is_final());
            other.op.status.is_none() || open()
        };
        let rivals = self.unfinished.iter().any(may_meet).then_some(Question::AllNodeOps);
        [Question::Node(node.name.clone())].into_iter().chain(rivals).collect()
    }
}

/// Who has the node: the NodeOp that its claim names, or another one whose status says so. A Node that was
/// made again while it was worked on has no claim, and gets another one only where it is still to be held.
pub fn holder(snapshot: &Snapshot, op: &Op, node: &NodeView) -> Option<NotTaken> {
    let others = || {
        let others = snapshot.ops.values().filter(|other| !other.is_over());
        others.filter(|other| other.metadata.uid.as_deref() != Some(&op.id.uid))
    };
    let recorded =
        || others().find(|other| entry(other, node).is_some_and(has)).map(|other| OpRef::of(other));
    Some(NotTaken::claimed(&op.id, &node.claimed_by.clone().or_else(recorded)?))
}

/// Whether another NodeOp works by the Job (see [`Snapshot::worker`]). The Go operator knew no claims: its
/// Jobs alone say then that their nodes are taken, and a second agent must not write to the disk. A NodeOp
/// that no cache shows does not count: those of the Go operator were all there before we led.
pub fn works_by(snapshot: &Snapshot, op: &Op, job: &JobView) -> bool {
    !job.is_of(&op.id) && snapshot.worker(job, &job.node).is_some()
}

fn entry<'a>(op: &'a NodeOp, node: &NodeView) -> Option<&'a NodeStatus> {
    op.status.as_ref()?.node_statuses.get(&node.name)
}

/// It has taken the node, or has not given it back.
fn has(entry: &NodeStatus) -> bool {
    entry.phase == Phase::Running || entry.node_uid.is_some()
}

#[cfg(test)]
mod tests;

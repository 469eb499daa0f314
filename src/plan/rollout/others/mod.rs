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
        nodeop::{NodeOp, NodeStatus, Phase},
        owner,
        upgrade::NodeOpUpgrade,
    },
    plan::{
        model::{
            age::{self, Age},
            id::{Key, OpRef},
            question::Question,
            snapshot::{NodeView, Snapshot},
        },
        node::context::Op,
        rollout::not_taken::{NotTaken, Precedes},
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
            let newer = if is_of_upgrade(&op.object) {
                Newer::default()
            } else {
                Newer::than_maker_of(snapshot, other)
            };
            Other { op: other, newer }
        });
        let newer = upgrade.map(|upgrade| Newer::than(snapshot, upgrade)).unwrap_or_default();
        Self { op, unfinished: unfinished.collect(), newer }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && self.newer.is_empty()
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
    pub fn keep(&self, node: &NodeView) -> Option<NotTaken> {
        if let Some(holder) = &node.claimed_by {
            return Some(NotTaken::claimed(&self.op.id, holder));
        }
        let concerned = || self.unfinished.iter().filter_map(|other| Some((other, entry(other.op, node)?)));
        if let Some((other, _)) = concerned().find(|(_, entry)| has(entry)) {
            return Some(NotTaken::claimed(&self.op.id, &OpRef::of(other.op)));
        }
        if let Some(why) = self.newer(node) {
            return Some(why);
        }
        let to_come = |(other, entry): &(&Other<'_>, &NodeStatus)| {
            let older = age(other.op) < age(&self.op.object);
            let both = is_of_upgrade(other.op) && is_of_upgrade(&self.op.object);
            // One that is being deleted takes nothing any more.
            let open = !entry.phase.is_final() && other.op.metadata.deletion_timestamp.is_none();
            older && !both && open && other.newer.on(node).is_none()
        };
        let (other, _) = concerned().find(to_come)?;
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

fn is_of_upgrade(op: &NodeOp) -> bool {
    owner::upgrade_uid(&op.metadata).is_some()
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

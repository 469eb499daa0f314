//! What reads facts at one moment: which pods there are, which nodes they are of, how many of them count, and
//! for which nodes somebody waits. Each is found when it is asked for: most ask for one node alone.

use std::{cell::OnceCell, collections::BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::pod::{is_current, ours};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOp, NodeStatus, Phase, Step},
    },
    plan::model::snapshot::{NodeView, PodView, Role, Snapshot},
};

/// Nodes that are read at a time, over the whole cluster, besides those that an upgrade waits for.
pub const AT_ONCE: usize = 10;

/// All that reads facts.
#[derive(Debug)]
pub struct Reading<'a> {
    snapshot: &'a Snapshot,
    nodes: OnceCell<BTreeSet<&'a str>>,
    busy: OnceCell<usize>,
}

/// A pod that reads a node's facts.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub pod: &'a PodView,
    /// When we first saw it.
    pub seen: Timestamp,
}

impl<'a> Reading<'a> {
    pub const fn of(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, nodes: OnceCell::new(), busy: OnceCell::new() }
    }

    pub const fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    /// The names of the nodes that a pod reads, or has read.
    pub fn nodes(&self) -> &BTreeSet<&'a str> {
        self.nodes.get_or_init(|| ours(self.snapshot).map(|pod| pod.node.as_str()).collect())
    }

    /// The pods that read a node, or have read it.
    pub fn of_node(&self, node: &str) -> impl Iterator<Item = Reader<'a>> {
        let snapshot = self.snapshot;
        let pods = snapshot.facts_pods.on_node(node).filter(|pod| pod.role == Role::Facts);
        pods.map(|pod| Reader { pod, seen: snapshot.first_seen(pod) })
    }

    /// How many pods were made for a node, in vain or not, as far as those tell that are there.
    pub fn tries(&self, node: &str) -> i32 {
        let attempts = self.of_node(node).map(|reader| reader.pod.attempt);
        attempts.max().map_or(0, |newest| newest.saturating_add(1))
    }

    /// Whether an upgrade waits to know what the node runs: it has booted in it, which is to be proved.
    pub fn is_waited_for(&self, node: &NodeView) -> bool {
        let entry = |op: &'a NodeOp| op.status.as_ref()?.node_statuses.get(&node.name);
        upgrades(self.snapshot).filter_map(entry).any(|entry| waits(entry, node))
    }

    /// All such nodes, by name.
    pub fn waited_for(&self) -> BTreeSet<&'a str> {
        let entries = upgrades(self.snapshot).filter_map(|op| op.status.as_ref());
        let entries = entries.flat_map(|status| status.node_statuses.marked([Mark::Running]));
        let nodes = entries.filter_map(|(name, entry)| Some((self.snapshot.nodes.get(name)?, entry)));
        nodes.filter(|(node, entry)| waits(entry, node)).map(|(node, _)| node.name.as_str()).collect()
    }

    /// How many nodes are being read and count: their kubelets will end the pods.
    pub fn busy(&self) -> usize {
        let counts = |name: &&str| {
            let node = self.snapshot.nodes.get(*name).filter(|node| node.ready && node.is_linux());
            let is_read = |node: &NodeView| {
                self.of_node(name).any(|reader| reader.pod.is_active() && is_current(reader.pod, node))
            };
            node.is_some_and(|node| is_read(node) && !self.is_waited_for(node))
        };
        *self.busy.get_or_init(|| self.nodes().iter().filter(|name| counts(name)).count())
    }

    /// How many more nodes may be read now.
    pub fn free(&self) -> usize {
        AT_ONCE.saturating_sub(self.busy())
    }
}

fn upgrades(snapshot: &Snapshot) -> impl Iterator<Item = &NodeOp> {
    snapshot.ops.values().map(AsRef::as_ref).filter(|op| op.spec.upgrade.is_some())
}

/// Whether what stands about a node in an upgrade waits for what the node runs.
fn waits(entry: &NodeStatus, node: &NodeView) -> bool {
    let verifies = entry.phase == Phase::Running && entry.step == Some(Step::Verify);
    verifies || entry.boot_to_leave().is_some_and(|left| left != node.boot_id)
}

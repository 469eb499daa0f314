//! What reads facts at one moment, found once: which pods there are, which nodes they are of, how many of them
//! count, and for which nodes somebody waits.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::pod::{is_current, ours};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeStatus, Step},
    },
    plan::model::snapshot::{NodeView, PodView, Snapshot},
};

/// Nodes that are read at a time, over the whole cluster, besides those that an upgrade waits for.
pub const AT_ONCE: usize = 10;

/// All that reads facts.
#[derive(Debug)]
pub struct Reading<'a> {
    pub now: Timestamp,
    /// The pods that read, or have read, by node.
    pub pods: BTreeMap<&'a str, Vec<Reader<'a>>>,
    /// Nodes of which an upgrade waits to know what they run.
    waited_for: BTreeSet<&'a str>,
    /// How many nodes are being read and count: their kubelets will end the pods.
    pub busy: usize,
}

/// A pod that reads a node's facts.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub pod: &'a PodView,
    /// When we first saw it.
    pub seen: Timestamp,
}

impl<'a> Reading<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut pods: BTreeMap<&str, Vec<Reader<'_>>> = BTreeMap::new();
        for pod in ours(snapshot) {
            pods.entry(&pod.node).or_default().push(Reader { pod, seen: snapshot.first_seen(pod) });
        }
        let waited_for = waited_for(snapshot);
        let counts = |(name, of_node): &(&&str, &Vec<Reader<'_>>)| {
            let node = snapshot.nodes.get(**name).filter(|node| node.ready && node.is_linux());
            let node = node.filter(|_| !waited_for.contains(**name));
            node.is_some_and(|node| of_node.iter().any(|it| it.pod.is_active() && is_current(it.pod, node)))
        };
        let busy = pods.iter().filter(counts).count();
        Self { now: snapshot.now, pods, waited_for, busy }
    }

    /// The pods that read a node.
    pub fn of_node(&self, node: &NodeView) -> &[Reader<'a>] {
        self.pods.get(node.name.as_str()).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many pods were made for a node, in vain or not, as far as those tell that are there.
    pub fn tries(&self, node: &str) -> i32 {
        let attempts = self.pods.get(node).into_iter().flatten().map(|reader| reader.pod.attempt);
        attempts.max().map_or(0, |newest| newest.saturating_add(1))
    }

    /// Whether an upgrade waits to know what the node runs.
    pub fn is_waited_for(&self, node: &NodeView) -> bool {
        self.waited_for.contains(node.name.as_str())
    }

    /// How many more nodes may be read now.
    pub fn free(&self) -> usize {
        AT_ONCE.saturating_sub(self.busy)
    }
}

/// The nodes that have booted in an upgrade, which is to be proved.
fn waited_for(snapshot: &Snapshot) -> BTreeSet<&str> {
    let waits = |entry: &NodeStatus, node: &NodeView| {
        let booted = entry.boot.as_ref().is_some_and(|left| *left != node.boot_id);
        entry.step == Some(Step::Verify) || entry.step == Some(Step::Reboot) && booted
    };
    let upgrades = snapshot.ops.values().filter(|op| op.spec.upgrade.is_some());
    let entries = upgrades.filter_map(|op| op.status.as_ref());
    let entries = entries.flat_map(|status| status.node_statuses.marked([Mark::Running]));
    let nodes = entries.filter_map(|(name, entry)| Some((snapshot.nodes.get(name)?, entry)));
    nodes.filter(|(node, entry)| waits(entry, node)).map(|(node, _)| node.name.as_str()).collect()
}

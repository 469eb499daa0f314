//! How many nodes are read at a time, and which of them count.

use std::collections::BTreeSet;

use super::pod::{is_current, ours};
use crate::{
    api::nodeop::{NodeOp, Phase, Step},
    plan::model::snapshot::{NodeView, PodView, Snapshot},
};

/// Nodes that are read at a time, over the whole cluster, besides those that an upgrade waits for.
pub const AT_ONCE: usize = 10;
/// The nodes that are being read and count: their kubelets will end the pods.
pub fn busy(snapshot: &Snapshot) -> BTreeSet<&str> {
    let counts = |pod: &&PodView| {
        let node = snapshot
            .nodes
            .get(&pod.node)
            .filter(|node| node.ready && node.is_linux() && is_current(pod, node));
        pod.is_active() && node.is_some_and(|node| !is_waited_for(snapshot, node))
    };
    ours(snapshot).filter(counts).map(|pod| pod.node.as_str()).collect()
}

/// Whether an upgrade waits to know what the node runs: it has booted, and that is to be proved.
pub fn is_waited_for(snapshot: &Snapshot, node: &NodeView) -> bool {
    let waits = |op: &NodeOp| {
        let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(&node.name));
        let entry = entry.filter(|entry| entry.phase == Phase::Running && op.spec.upgrade.is_some())?;
        let booted = entry.boot.as_ref().is_some_and(|left| *left != node.boot_id);
        Some(entry.step == Some(Step::Verify) || (entry.step == Some(Step::Reboot) && booted))
    };
    snapshot.ops.values().any(|op| waits(op).unwrap_or(false))
}

//! Which nodes a NodeOp is about, chosen once and recorded, and in which order they are taken.

use std::collections::BTreeMap;

use crate::{
    api::{
        names,
        nodeop::{NodeOp, NodeStatus},
    },
    plan::model::{selector, snapshot::Snapshot},
};

/// The nodes that match the selector; all Linux nodes without one. A node that says nothing of its system counts as Linux.
pub fn choose(s: &Snapshot, op: &NodeOp) -> BTreeMap<String, NodeStatus> {
    let selector = op.spec.node_selector.as_ref().filter(|selector| **selector != <_>::default());
    let chosen = s.nodes.values().filter(|node| match selector {
        Some(selector) => selector::matches(selector, &node.labels),
        None => node.labels.get(names::OS_LABEL).is_none_or(|os| os == "linux"),
    });
    chosen.map(|node| (node.name.clone(), NodeStatus::default())).collect()
}

/// Target names in the order in which they are taken: control-plane nodes first, then by name.
pub fn order<'a>(s: &Snapshot, targets: &'a BTreeMap<String, NodeStatus>) -> Vec<&'a String> {
    let mut names: Vec<&String> = targets.keys().collect();
    // Stable, and the map is sorted by name.
    names.sort_by_key(|name| !s.nodes.get(*name).is_some_and(|node| node.control_plane()));
    names
}

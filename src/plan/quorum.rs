//! The limits that hold across NodeOps: one control-plane node at a time, and never while another one is not Ready.
//!
//! Etcd keeps its quorum with one member of three away. A second one, because another NodeOp runs or because a node is
//! down anyway, would stop the cluster, and with it the operator that could bring it back.

use std::collections::BTreeSet;

use crate::{
    api::nodeop::Phase,
    plan::model::{id::Key, intent::Intent, snapshot::Snapshot},
};

/// The control-plane nodes in the hands of NodeOps that cordon or reboot: recorded in a status, or claimed on the node.
/// A claim whose owner is gone counts too: nobody knows any more what it did, and its waiter may still have to end.
pub fn control_planes_in_hand(s: &Snapshot) -> Vec<(Key, String)> {
    let mut held = BTreeSet::new();
    for node in s.nodes.values().filter(|node| node.control_plane()) {
        if let Some(of) = &node.claimed_by
            && s.op(of).is_none_or(|op| Intent::of(op).disturbs())
        {
            held.insert((of.key(), node.name.clone()));
        }
        for (key, op) in &s.ops {
            let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(&node.name));
            let recorded = entry.is_some_and(|entry| entry.phase == Phase::Running || entry.node_uid.is_some());
            if recorded && Intent::of(op).disturbs() {
                held.insert((key.clone(), node.name.clone()));
            }
        }
    }
    held.into_iter().collect()
}

/// Control-plane nodes other than `node` that are not Ready.
pub fn others_not_ready<'a>(s: &'a Snapshot, node: &'a str) -> impl Iterator<Item = &'a str> {
    s.nodes.values().filter(move |other| other.control_plane() && other.name != node && !other.ready).map(|other| other.name.as_str())
}

//! Since when nodes have been Ready that have a slot and were away before.
//!
//! One report of a kubelet is no recovery: the link of a node may flap, and each time the next node would be
//! taken. Another leader has seen none of it, and counts from when it began to lead.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{Sightings, renew_all, sorted};
use crate::{
    api::node_statuses::Mark,
    plan::model::snapshot::{NodeView, Snapshot},
};

/// By the node's UID.
pub(super) type Back = BTreeMap<String, Timestamp>;

impl Sightings {
    /// Notes which of the nodes that have a slot are Ready again. What is known of those that are away is that
    /// of the last look, by which it is told.
    pub(super) fn note_back(&mut self, snapshot: &Snapshot) {
        let statuses = snapshot.ops.values().filter_map(|op| op.status.as_ref());
        let held =
            statuses.flat_map(|status| status.node_statuses.marked([Mark::Identified, Mark::HoldsSlot]));
        let ready = held.filter_map(|(name, _)| snapshot.nodes.get(name)).filter(|node| node.ready);
        let was_away = |uid: &&str| self.away.has(uid) || self.back.contains_key(*uid);
        let there = sorted(ready.map(|node| &*node.uid).filter(was_away));
        renew_all(&mut self.back, &there, snapshot.now);
    }
}

impl Snapshot {
    /// Since when a node has been Ready, as far as we saw it: a member of the control plane in its present
    /// boot, any other that has a slot since it was away. At the latest since we lead, if it was Ready by then.
    /// Nothing for a node that is not Ready.
    pub fn ready_since(&self, node: &NodeView) -> Option<Timestamp> {
        let back = || self.sightings.back.get(&node.uid).copied();
        let seen = self.sightings.control_planes.ready_since(&node.name).or_else(back);
        node.ready.then(|| seen.map_or(self.leading_since, |since| since.max(self.leading_since)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{super::tests::at, *};

    /// What is seen at that time of n1, `before` having been seen before; with the entry of its node in the
    /// status of a NodeOp.
    fn see(second: i64, before: &Snapshot, ready: bool, entry: serde_json::Value) -> Snapshot {
        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": {},
            "status": {"phase": "Running", "nodeStatuses": {"n1": entry}}});
        let n1 = NodeView { name: "n1".into(), uid: "u1".into(), ready, ..NodeView::default() };
        let mut snapshot = Snapshot {
            now: at(second),
            leading_since: at(-100),
            nodes: [("n1".to_owned(), Arc::new(n1))].into(),
            ops: [(("ns".to_owned(), "op".to_owned()), Arc::new(serde_json::from_value(op).unwrap()))].into(),
            ..Snapshot::default()
        };
        let mut sightings = (*before.sightings).clone();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        snapshot
    }

    #[test]
    fn a_node_that_has_a_slot_is_ready_since_it_came_back_and_under_another_leader_since_that_one_leads() {
        let since = |snapshot: &Snapshot| snapshot.ready_since(&snapshot.nodes["n1"]);
        for entry in [
            json!({"phase": "Failed", "jobName": "j", "holdsSlot": true}),
            json!({"phase": "Failed", "jobName": "j", "nodeUid": "u1"}),
        ] {
            let ready = see(0, &Snapshot::default(), true, entry.clone());
            assert_eq!(since(&ready), Some(at(-100)), "it was so before we looked: since we lead");
            let away = see(10, &ready, false, entry.clone());
            assert_eq!(since(&away), None);
            let back = see(20, &away, true, entry.clone());
            let still = see(50, &back, true, entry.clone());
            assert_eq!([&back, &still].map(since), [Some(at(20)); 2]);
            let flaps = see(70, &see(60, &still, false, entry.clone()), true, entry.clone());
            assert_eq!(since(&flaps), Some(at(70)));
            let late = Snapshot { leading_since: at(80), ..flaps.clone() };
            assert_eq!(
                since(&late),
                Some(at(80)),
                "what was seen in an earlier term may have missed a change"
            );
            let free = see(90, &flaps, true, json!({"phase": "Failed", "jobName": "j"}));
            assert_eq!(free.sightings.back, Back::new(), "nothing is kept of a node whose slot is free");
        }
    }
}

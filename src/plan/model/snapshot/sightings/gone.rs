//! Nodes that are worked on and whose Node object is gone: somebody deleted it, or a cloud's controller did.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::{id::OpRef, snapshot::Snapshot};

/// Since when each has been gone, by the NodeOp's UID and the node's name. That there is another one of the
/// name makes no difference.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gone(BTreeMap<(String, String), Timestamp>);

impl Gone {
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let is_there = |name: &str, uid: &Option<String>| {
            let node = snapshot.nodes.get(name);
            node.is_some_and(|node| uid.as_ref().is_none_or(|uid| *uid == node.uid))
        };
        let gone = snapshot.running().filter(|(_, name, entry)| !is_there(name, &entry.node_uid));
        let gone: BTreeSet<_> = gone.map(|(op, name, _)| (OpRef::of(op).uid, name.clone())).collect();
        self.0.retain(|key, _| gone.contains(key));
        for key in gone {
            self.0.entry(key).or_insert(snapshot.now);
        }
    }
}

impl Snapshot {
    /// Since when we have seen that the Node object is gone under which the NodeOp has taken the node; now, if
    /// that is new.
    pub fn gone_since(&self, op: &OpRef, node: &str) -> Timestamp {
        let key = (op.uid.clone(), node.to_owned());
        self.sightings.gone.0.get(&key).copied().unwrap_or(self.now)
    }
}

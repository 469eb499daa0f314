//! Which nodes match an operation that has none yet, and since when it is these.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::nodeop::{NodeOp, Phase},
    plan::model::{
        selector,
        snapshot::{NodeView, Snapshot},
    },
};

/// The names of the nodes by the NodeOp's UID.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates(BTreeMap<String, (Vec<String>, Timestamp)>);

impl Candidates {
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.0);
        for op in snapshot.ops.values().filter(|op| has_none_yet(op)) {
            let Some(uid) = op.metadata.uid.clone() else { continue };
            let names: Vec<String> = snapshot.matching(op).map(|node| node.name.clone()).collect();
            let known = before.remove(&uid).filter(|(known, _)| *known == names);
            self.0.insert(uid, known.unwrap_or((names, snapshot.now)));
        }
    }
}

/// Whether it was looked at before, and no node matched.
fn has_none_yet(op: &NodeOp) -> bool {
    let waits = |phase: Option<Phase>| phase == Some(Phase::Pending);
    op.status.as_ref().is_some_and(|status| waits(status.phase) && status.node_statuses.is_empty())
}

impl Snapshot {
    /// The nodes that a NodeOp asks for, as their labels are now.
    pub fn matching<'a>(&'a self, op: &'a NodeOp) -> impl Iterator<Item = &'a NodeView> {
        let selector = selector::of(op);
        let asked =
            move |node: &&NodeView| selector::is_named(op, &node.name) && selector::selects(selector, node);
        self.nodes.values().map(AsRef::as_ref).filter(asked)
    }

    /// Since when we have seen these very nodes match an operation that has none yet; now, if that is new.
    pub fn matched_since(&self, op: &NodeOp) -> Timestamp {
        let known = op.metadata.uid.as_ref().and_then(|uid| self.sightings.candidates.0.get(uid));
        known.map_or(self.now, |(_, since)| *since)
    }
}

//! Nodes that are not Ready, and when we saw them go.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::snapshot::{NodeClass, NodeView, Snapshot};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Away {
    /// Since when we lead, as of the last look.
    leading_since: Option<Timestamp>,
    /// When we saw each go, by its UID; nothing of one that was away already when we began to lead.
    went: BTreeMap<String, Option<Timestamp>>,
}

impl Away {
    /// Whether the node was away at the last look.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.went.contains_key(uid)
    }

    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let is_first = self.leading_since.replace(snapshot.leading_since) != Some(snapshot.leading_since);
        if is_first {
            self.went.clear();
        }
        let away = snapshot.nodes.that_are(NodeClass::NotReady);
        let away: BTreeSet<&str> = away.map(|node| &*node.uid).collect();
        self.went.retain(|uid, _| away.contains(&**uid));
        for uid in away {
            if !self.went.contains_key(uid) {
                self.went.insert(uid.to_owned(), (!is_first).then_some(snapshot.now));
            }
        }
    }
}

impl Snapshot {
    /// When we saw that the node was not Ready any more, or had joined and was not; nothing if it is Ready, or
    /// was away already when we began to lead.
    pub fn went_away_at(&self, node: &NodeView) -> Option<Timestamp> {
        *self.sightings.away.went.get(&node.uid)?
    }
}

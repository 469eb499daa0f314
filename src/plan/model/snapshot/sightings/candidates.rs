//! Which nodes match an operation that has none yet, and since when it is these.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        hash::digits,
        names::{condition, reason},
        nodeop::NodeOp,
    },
    plan::model::{
        selector,
        snapshot::{NodeView, Snapshot},
    },
};

/// By the NodeOp's UID.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates(BTreeMap<String, Matching>);

/// The nodes that match: told by a hash of their names, of which there may be thousands.
#[derive(Clone, Debug, PartialEq)]
struct Matching {
    names: String,
    since: Timestamp,
    /// Since when any have matched.
    any_since: Timestamp,
}

/// Since when nodes match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedSince {
    /// These very nodes.
    pub these: Timestamp,
    /// Any.
    pub any: Timestamp,
}

/// Digits of that hash.
const DIGITS: usize = 12;

impl Candidates {
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.0);
        for op in snapshot.ops.values().filter(|op| had_no_nodes(op)) {
            let Some(uid) = op.metadata.uid.clone() else { continue };
            let names: Vec<&str> = snapshot.matching(op).map(|node| &*node.name).collect();
            if names.is_empty() {
                continue;
            }
            let names = digits(&names, DIGITS);
            let known = before.remove(&uid);
            let any_since = known.as_ref().map_or(snapshot.now, |known| known.any_since);
            let same = known.filter(|known| known.names == names);
            let since = same.map_or(snapshot.now, |known| known.since);
            self.0.insert(uid, Matching { names, since, any_since });
        }
    }
}

/// Whether it was said that no node matches. That stays so while somebody new is looked at.
pub fn had_no_nodes(op: &NodeOp) -> bool {
    let mut conditions = op.status.iter().flat_map(|status| &status.conditions);
    conditions
        .any(|condition| condition.type_ == condition::PROGRESSING && condition.reason == reason::NO_NODES)
}

impl Snapshot {
    /// The nodes that a NodeOp asks for, as their labels are now.
    pub fn matching<'a>(&'a self, op: &'a NodeOp) -> impl Iterator<Item = &'a NodeView> {
        let selector = selector::of(op);
        let asked =
            move |node: &&NodeView| selector::is_named(op, &node.name) && node.is_selected_by(selector);
        self.nodes.values().map(AsRef::as_ref).filter(asked)
    }

    /// Since when nodes match an operation that no node matched, as far as we have seen it; now, if that is
    /// new.
    pub fn matched_since(&self, op: &NodeOp) -> MatchedSince {
        let known = op.metadata.uid.as_ref().and_then(|uid| self.sightings.candidates.0.get(uid));
        let (these, any) = known.map_or((self.now, self.now), |known| (known.since, known.any_since));
        MatchedSince { these, any }
    }
}

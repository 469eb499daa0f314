//! How long an operation has each node, as the Node objects show it: from its claim to its release.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kairos_operator::api::names;
use kairos_sim::Cluster;

/// The nodes that were had, and those that are.
#[derive(Debug, Default)]
pub struct Turns {
    seen: u64,
    claimed: BTreeMap<String, Duration>,
    done: BTreeSet<String>,
    slowest: Duration,
}

impl Turns {
    /// Notes what has changed since it was called last.
    pub fn note(&mut self, cluster: &Cluster) {
        for change in cluster.history_since(self.seen) {
            self.seen = change.version;
            if change.key.table.as_ref() != "nodes" {
                continue;
            }
            let name = &change.key.name;
            let is_claimed = change.object["metadata"]["annotations"].get(names::CLAIMED_BY).is_some();
            if is_claimed {
                self.claimed.entry(name.clone()).or_insert(change.at);
            } else if let Some(since) = self.claimed.remove(name) {
                self.slowest = self.slowest.max(change.at - since);
                self.done.insert(name.clone());
            }
        }
    }

    /// The longest time for which a node was had, and how many are not had any more.
    pub fn slowest(&self) -> (Duration, usize) {
        (self.slowest, self.done.len())
    }
}

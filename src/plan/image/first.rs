//! Which release an image brings, by the first node that it came to.

use std::collections::BTreeMap;

use super::ADVICE;
use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::Phase,
    },
    plan::model::snapshot::{NodeView, Snapshot},
};

/// The release that the image brought to the first node of each architecture, as its preflight read it, and
/// that node. Digests cannot always be compared (one node has pulled the image, the other one was given it in
/// a file); releases can.
#[derive(Debug, Default)]
pub struct FirstReleases(BTreeMap<String, (String, String)>);

impl FirstReleases {
    /// Nodes that were taken come before those that wait for their turn.
    pub fn of(snapshot: &Snapshot, nodes: &NodeStatuses) -> Self {
        let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
        for taken in [true, false] {
            let targeted = nodes.marked([Mark::Targeted]);
            for (name, entry) in targeted.filter(|(_, entry)| (entry.phase != Phase::Pending) == taken) {
                // Thousands follow.
                if found.len() == snapshot.nodes.archs().len() {
                    break;
                }
                if let Some(release) = &entry.target
                    && let Some(node) = snapshot.nodes.get(name)
                    && !found.contains_key(&node.arch)
                {
                    found.insert(node.arch.clone(), (name.clone(), release.clone()));
                }
            }
        }
        Self(found)
    }

    /// Whether it is this node with which others are compared.
    pub fn is_of(&self, node: &str) -> bool {
        self.0.values().any(|(first, _)| first == node)
    }

    /// Why a node must not be taken: its image brings another release than the first node's did.
    pub fn mismatch(&self, node: &NodeView, release: &str) -> Option<String> {
        let (first, theirs) = self.0.get(&node.arch).filter(|(_, theirs)| theirs != release)?;
        Some(format!(
            "the image brings {release} on this node, and {theirs} on {first}: the tag has moved, or a node has an old image. {ADVICE}"
        ))
    }
}

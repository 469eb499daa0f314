//! Which release an image brings, by what nodes told of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    judged::{ADVICE, Judged},
    reports::was_taken,
};
use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeOp, NodeStatus, Phase},
    },
    plan::model::snapshot::{NodeView, Snapshot},
};

/// The release that the image brings to the nodes of each architecture, as their preflights read it. Digests
/// cannot always be compared (one node has pulled the image, the other one was given it in a file); releases
/// can.
#[derive(Debug, Default)]
pub struct FirstReleases {
    /// By architecture.
    told: BTreeMap<String, Reports>,
    /// Whether nodes are compared at all. A name with a digest in it stands for one content, so a node that
    /// tells another release says nothing of the others.
    compares: bool,
}

/// What nodes of one architecture told.
#[derive(Debug, Default)]
struct Reports {
    /// What all are held to, and who tells it: a node that was taken, or two that tell the same.
    binds: Option<(String, Vec<String>)>,
    /// The other releases, each with the first node that tells it.
    reports: BTreeMap<String, String>,
}

impl FirstReleases {
    /// What stands in the entries of the nodes. One that was failed untouched counts for nothing.
    pub fn of(snapshot: &Snapshot, op: &NodeOp, nodes: &NodeStatuses) -> Self {
        let compares = !op.spec.image.as_deref().unwrap_or_default().contains('@');
        let mut told: BTreeMap<String, Reports> = BTreeMap::new();
        let mut bound = BTreeSet::new();
        for taken in [true, false] {
            let counts =
                |entry: &&NodeStatus| was_taken(entry) == taken && (taken || entry.phase != Phase::Failed);
            for (name, entry) in nodes.marked([Mark::HasRelease]).filter(|(_, entry)| counts(entry)) {
                // Thousands follow.
                if bound.len() == snapshot.nodes.archs().len() {
                    break;
                }
                let (Some(release), Some(node)) = (&entry.target, snapshot.nodes.get(name)) else { continue };
                if bound.contains(&node.arch) {
                    continue;
                }
                let of_arch = told.entry(node.arch.clone()).or_default();
                let alike = of_arch.reports.get(release).cloned();
                if taken || alike.is_some() {
                    let who = alike.into_iter().chain([name.clone()]).collect();
                    of_arch.binds = Some((release.clone(), who));
                    bound.insert(node.arch.clone());
                } else {
                    of_arch.reports.insert(release.clone(), name.clone());
                }
            }
        }
        Self { told, compares }
    }

    /// Whether it is this node with which others are compared.
    pub fn is_of(&self, node: &str) -> bool {
        self.told.values().any(|told| {
            let binds = told.binds.iter().flat_map(|(_, who)| who);
            binds.chain(told.reports.values()).any(|teller| teller == node)
        })
    }

    /// The release that the nodes of this one's architecture are held to.
    pub fn bound(&self, node: &NodeView) -> Option<&String> {
        self.told.get(&node.arch)?.binds.as_ref().map(|(release, _)| release)
    }

    /// What follows for a node that is not taken, to which the image brings this release.
    pub fn judge(&self, node: &NodeView, release: &str) -> Judged {
        let Some(told) = self.told.get(&node.arch).filter(|_| self.compares) else { return Judged::Fits };
        if let Some((theirs, who)) = &told.binds {
            let first = who.first().map(String::as_str).unwrap_or_default();
            return match theirs == release {
                true => Judged::Fits,
                false => Judged::Differs(format!(
                    "the image brings {release} on this node, and {theirs} on {first}: the tag has moved, or a node has an old image. {ADVICE}"
                )),
            };
        }
        match told.reports.iter().find(|(theirs, _)| *theirs != release) {
            Some((theirs, other)) => {
                Judged::Disputed(format!("the image brings {release} on this node, and {theirs} on {other}"))
            }
            None => Judged::Fits,
        }
    }

    /// Whether nodes of an architecture tell different releases, none of which binds.
    pub fn is_disputed(&self, arch: &str) -> bool {
        self.compares
            && self.told.get(arch).is_some_and(|told| told.binds.is_none() && told.reports.len() > 1)
    }

    /// The release that the operation brings, if that is not disputed. What is recorded stays as long as a
    /// node tells it that binds the others, or none tells anything any more.
    pub fn shown(&self, recorded: Option<String>) -> Option<String> {
        if self.told.is_empty() {
            return recorded;
        }
        let undisputed = |told: &Reports| match &told.binds {
            Some((release, _)) => Some(release.clone()),
            None => told.reports.keys().next().filter(|_| told.reports.len() == 1).cloned(),
        };
        let all: Vec<String> = self.told.values().filter_map(undisputed).collect();
        recorded.filter(|release| all.contains(release)).or_else(|| all.into_iter().next())
    }
}

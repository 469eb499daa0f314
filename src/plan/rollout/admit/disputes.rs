//! Nodes that tell different things of the image before any of them was taken: whose report is still waited
//! for, and which node is taken where none comes any more.
//!
//! One node's report binds nobody, and so neither is failed for the other's. A second report for one of them
//! decides, so one more node is asked after the other, however many may be asked ahead. Where all that can be
//! asked have told something else, the first in order is taken, as it would be if it were alone; the others
//! are held to what it runs. So nobody waits for ever: not two nodes that disagree, nor all of them.

use std::collections::BTreeMap;

use super::Admitter;
use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        image::{self, FirstReleases, Judged},
        model::snapshot::{NodeView, Snapshot},
        node::{
            context::Op,
            state::{Entry, ImageRecord, State},
        },
        rollout::others::Others,
    },
};

/// By architecture, if nodes of it disagree.
#[derive(Debug, Default)]
pub struct Disputes(BTreeMap<String, Arbiter>);

/// What is to come.
#[derive(Debug, PartialEq, Eq)]
enum Arbiter {
    /// The preflight of this node, which is asked besides those that are ahead.
    Asks(String),
    /// One that runs already.
    Tells,
    /// Nothing more: the first in order is taken.
    Takes,
    /// It was.
    Decided,
}

impl Disputes {
    pub fn of(
        snapshot: &Snapshot,
        op: &Op,
        nodes: &NodeStatuses,
        releases: &FirstReleases,
        others: Option<&Others<'_>>,
    ) -> Self {
        let images = op.object.status.as_ref().map(|status| status.images.as_slice()).unwrap_or_default();
        let by_release = snapshot.nodes.archs().filter(|arch| releases.is_disputed(arch));
        let archs = image::disputed(images).chain(by_release.map(String::as_str));
        let mut found: BTreeMap<String, Arbiter> =
            archs.map(|arch| (arch.to_owned(), Arbiter::Takes)).collect();
        if found.is_empty() {
            return Self::default();
        }
        for (name, entry) in nodes.marked([Mark::Pending, Mark::Preflight]) {
            let Some(view) = snapshot.nodes.get(name) else { continue };
            let Some(next) = found.get_mut(&view.arch).filter(|next| **next != Arbiter::Tells) else {
                continue;
            };
            if entry.phase == Phase::Preflight {
                *next = Arbiter::Tells;
            } else if *next == Arbiter::Takes && can_be_asked(view, entry, others) {
                *next = Arbiter::Asks(name.clone());
            }
        }
        Self(found)
    }

    /// Whether this node is asked besides those that are ahead.
    pub fn is_asked(&self, node: &str) -> bool {
        self.0.values().any(|next| matches!(next, Arbiter::Asks(name) if name == node))
    }

    /// Whether no node is left that is to be asked besides.
    pub fn are_asked(&self) -> bool {
        !self.0.values().any(|next| matches!(next, Arbiter::Asks(_)))
    }

    /// The node's preflight was begun.
    pub fn begins(&mut self, node: &NodeView) {
        if let Some(next) = self.0.get_mut(&node.arch) {
            *next = Arbiter::Tells;
        }
    }

    /// Whether this node, which is the first in order that disagrees with others, is taken all the same.
    pub fn is_decided_by(&mut self, node: &NodeView) -> bool {
        let Some(next) = self.0.get_mut(&node.arch).filter(|next| **next == Arbiter::Takes) else {
            return false;
        };
        *next = Arbiter::Decided;
        true
    }
}

/// Whether a pending node may have a preflight in this pass.
fn can_be_asked(view: &NodeView, entry: &NodeStatus, others: Option<&Others<'_>>) -> bool {
    let Entry { node_uid: None, state: State::Pending(pending), .. } = Entry::read(entry) else {
        return false;
    };
    let has_told = pending.passed_in.as_ref() == Some(&view.boot_id);
    view.is_fit() && !has_told && others.is_some_and(|others| others.precede(view).is_none())
}

impl Admitter<'_, '_> {
    /// What follows for a pending node from what it told of the image, in its present boot.
    pub(super) fn judge(&self, view: &NodeView, found: &ImageRecord) -> Judged {
        let images = self.op.object.status.as_ref().map(|status| status.images.as_slice());
        let content = image::judge(images.unwrap_or_default(), &view.name);
        if matches!(content, Judged::Differs(_)) {
            return content;
        }
        let release = found.target.as_ref().map(|release| self.releases.judge(view, release));
        match release {
            Some(release @ Judged::Differs(_)) => release,
            Some(release @ Judged::Disputed(_)) if content == Judged::Fits => release,
            Some(_) | None => content,
        }
    }
}

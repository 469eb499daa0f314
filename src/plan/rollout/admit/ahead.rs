//! Preflights, which are begun ahead of their nodes' turns, so that no slot waits for one.
//!
//! A bounded number of them is under way at once. One that is kept from its start, by a pull that takes
//! hours as by an image that is not there, does not count for ever: others would not be looked at.

use k8s_openapi::jiff::SignedDuration;

use super::{Admitter, PendingPlan, scouts};
use crate::{
    api::node_statuses::{Mark, NodeStatuses},
    plan::{
        model::{effects::Effects, snapshot::NodeView, time::later},
        node::{
            context::Op,
            state::{Entry, Pending, Preflight},
        },
        rollout::{not_taken::NotTaken, preflight},
    },
};

/// How long a node may take to start its check before another one is asked in its place, where the first that
/// has the image speaks for all.
const SPEAKS_SOON: SignedDuration = SignedDuration::from_secs(60);

/// How long a verdict lasts for a node that is not taken yet.
const VERDICT_LASTS: SignedDuration = SignedDuration::from_hours(1);

/// Whether each node is asked before it is taken: by itself, or until one has spoken for all.
pub(super) fn asks_each(op: &Op, nodes: &NodeStatuses) -> bool {
    // Who is taken without a Job has passed, or another one had.
    let has_image = || {
        nodes.any([Mark::HasJob, Mark::Running])
            || nodes.marked([Mark::Remarkable]).any(|(_, entry)| entry.boot.is_some())
    };
    op.intent.asks_each_node() || !has_image()
}

impl Admitter<'_, '_> {
    /// Counts a preflight that is under way, for as long as it keeps others from theirs.
    pub(super) fn is_under_way(&mut self, name: &str, entry: &Entry, record: &Preflight) -> Effects {
        self.no_worker_before(name);
        self.is_awaited(name, entry.message.as_deref());
        let limit = self.op.intent.pull_timeout;
        let patience = if self.op.intent.asks_each_node() { limit } else { SPEAKS_SOON.min(limit) };
        let since = self.snapshot.begun_at_or_now(entry.since);
        let until = later(since, patience);
        let has_begun = || preflight::has_begun(self.snapshot, self.op, name, record);
        let is_early = self.snapshot.now < until;
        if is_early || has_begun() {
            self.preflights_left = self.preflights_left.saturating_sub(1);
        }
        let wakes =
            [later(since, scouts::WAITED_FOR), until].map(|at| (self.snapshot.now < at).then_some(at));
        Effects::all(wakes.into_iter().flatten().map(Effects::wake_at))
    }

    /// Whether the node's verdict has outlasted [`VERDICT_LASTS`], and is asked again before the node is taken.
    /// A token may have expired since, or its kubelet have removed the image.
    pub(super) fn is_outdated(&self, view: &NodeView, entry: &Entry) -> bool {
        let since = entry.since.filter(|_| self.asks && !view.bootless);
        since.is_some_and(|since| self.snapshot.now >= later(self.snapshot.begun_at(since), VERDICT_LASTS))
    }

    /// Starts the preflight if it is not too far ahead; the error is what it waits for.
    pub(super) fn asks(&mut self, view: &NodeView, pending: &Pending) -> Result<PendingPlan, NotTaken> {
        self.no_worker_before(&view.name);
        if let Some(why) = preflight::waits_with_it(self.snapshot, self.op, view, pending) {
            return Err(why);
        }
        let is_kept = self.preflights_left == 0 || self.scouts.keep(&view.arch);
        if is_kept && !self.disputes.is_asked(&view.name) {
            return Err(NotTaken::Turn);
        }
        if let Some(why) = self.admission(view) {
            return Err(why);
        }
        self.preflights_left = self.preflights_left.saturating_sub(1);
        self.disputes.begins(view);
        self.scouts.send(view);
        Ok(PendingPlan::Asks(preflight::begin(view, pending)))
    }
}

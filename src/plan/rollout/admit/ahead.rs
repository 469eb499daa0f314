//! Preflights, which are begun ahead of their nodes' turns, so that no slot waits for one.

use super::{Admitter, PendingPlan};
use crate::{
    api::node_statuses::{Mark, NodeStatuses},
    plan::{
        model::snapshot::NodeView,
        node::{context::Op, state::Pending},
        rollout::{not_taken::NotTaken, preflight},
    },
};

/// Whether each node is asked before it is taken. Where the image is all that is asked about, and a node that
/// has it not would not be disturbed, one that has it speaks for all.
pub(super) fn asks_each(op: &Op, nodes: &NodeStatuses) -> bool {
    // Who is taken without a Job has passed, or another one had.
    let has_image = || {
        nodes.any([Mark::HasJob, Mark::Running])
            || nodes.marked([Mark::Remarkable]).any(|(_, entry)| entry.boot.is_some())
    };
    op.intent.preflight.is_about_the_node() || op.intent.disturbs() || !has_image()
}

impl Admitter<'_, '_> {
    /// Starts the preflight if it is not too far ahead; the error is what it waits for.
    pub(super) fn asks(&mut self, view: &NodeView, pending: &Pending) -> Result<PendingPlan, NotTaken> {
        self.no_worker_before(&view.name);
        if self.preflights_left == 0 && !self.disputes.is_asked(&view.name) {
            return Err(NotTaken::Turn);
        }
        if let Some(why) = self.admission(view) {
            return Err(why);
        }
        self.preflights_left = self.preflights_left.saturating_sub(1);
        self.disputes.begins(view);
        Ok(PendingPlan::Asks(preflight::begin(view, pending)))
    }
}

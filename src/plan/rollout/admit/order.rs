//! The order in which nodes are taken: those of the control plane first. It is a promise where nodes are taken
//! out of service, so that a bad image takes no worker before it has taken one of those that go one at a time.
//! An operation that disturbs nobody has no reason to wait behind one of them.

use super::Admitter;
use crate::plan::{model::snapshot::NodeView, rollout::not_taken::NotTaken};

impl Admitter<'_, '_> {
    /// Whether the node is one that workers are not taken before.
    pub(super) fn is_of_the_order(&self, view: &NodeView) -> bool {
        self.op.intent.disturbs() && self.snapshot.is_control_plane(view)
    }

    /// Closes the queue behind a control-plane node that is Ready.
    pub(super) fn no_worker_before(&mut self, name: &str) {
        let is_ready = self.snapshot.nodes.get(name).is_some_and(|view| view.ready);
        if is_ready && self.op.intent.disturbs() && self.snapshot.is_control_plane_named(name) {
            self.queue.get_or_insert(NotTaken::TurnAfterControlPlane);
        }
    }

    /// Whether a node comes before this one that takes a slot which it holds already.
    pub(super) fn is_one_before(&self, view: &NodeView) -> bool {
        let mut down =
            self.rollout.progress.slots.to_be_taken.iter().filter_map(|name| self.snapshot.nodes.get(name));
        down.any(|node| self.snapshot.is_control_plane(node) || !self.snapshot.is_control_plane(view))
    }
}

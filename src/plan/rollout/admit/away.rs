//! Nodes that are not to be had: gone, not Ready, held by somebody, or decided on by others.

use k8s_openapi::jiff::SignedDuration;

use super::{Admitter, PendingPlan};
use crate::plan::{
    model::{effects::Effects, question::Question, snapshot::NodeView, time::later},
    node::state::Pending,
    rollout::{
        not_taken::{NotTaken, Untouched},
        preflight,
    },
};

/// How long a node that is not Ready keeps a round of a `Continuous` upgrade from its end.
const PATIENCE: SignedDuration = SignedDuration::from_secs(300);

impl Admitter<'_, '_> {
    /// Why the operation is done with a node that it has not taken.
    pub(super) fn ends(&self, view: &NodeView) -> Option<Untouched> {
        if let Some(upgrade) = self.others.and_then(|others| others.decided(view)) {
            return Some(Untouched::Newer { upgrade });
        }
        let intent = &self.op.intent;
        if view.bootless && (intent.reboot || intent.upgrade || intent.preflight.is_about_the_node()) {
            return Some(Untouched::Bootless);
        }
        (self.comes_back && view.labels.on_hold()).then_some(Untouched::OnHold)
    }

    /// Somebody holds the node, and may be at work on it: nothing is known of it when it is let go, and
    /// nobody waits for it.
    pub(super) fn on_hold(&mut self, view: &NodeView, pending: &Pending) -> PendingPlan {
        self.rollout.progress.on_hold.push(view.name.clone());
        let pending = Pending { not_ready_since: None, ..preflight::forget(pending) };
        PendingPlan::Waits(NotTaken::OnHold, pending)
    }

    /// A target that is not there. Cloud controllers delete the Node of a machine that is away for a while,
    /// and the machine makes it again: that is final only when nothing else is left to be waited for, and
    /// once a live read has confirmed it.
    pub(super) fn missing(&mut self, name: &str, pending: &Pending) -> PendingPlan {
        let waits = |why| PendingPlan::Waits(why, pending.clone());
        let question = Question::Node(name.to_owned());
        if self.snapshot.nodes.contains_key(name) {
            return waits(NotTaken::NodeDeleting);
        }
        if self.others_left {
            return waits(NotTaken::NodeGone);
        }
        if !self.snapshot.is_gone(&question) {
            self.effects.add(question);
            return waits(NotTaken::NodeUnconfirmed);
        }
        PendingPlan::Ends(Untouched::Deleted)
    }

    /// A node that is not Ready holds no slot; with `notReadyTimeoutSeconds` it is failed, untouched, after
    /// that long.
    pub(super) fn not_ready(&mut self, pending: &Pending) -> PendingPlan {
        let patience = self.comes_back.then_some(PATIENCE);
        let Some(limit) = self.op.intent.not_ready_timeout.or(patience) else {
            return PendingPlan::Waits(NotTaken::NodeNotReady, pending.clone());
        };
        let now = self.snapshot.now;
        let since = self.snapshot.begun_at_or_now(pending.not_ready_since);
        let deadline = later(since, limit);
        if now >= deadline {
            let is_set = self.op.intent.not_ready_timeout.is_some();
            return PendingPlan::Ends(if is_set {
                Untouched::NotReadyFor(limit)
            } else {
                Untouched::Away(limit)
            });
        }
        self.effects.add(Effects::wake_at(deadline));
        let pending = Pending { not_ready_since: Some(since.into()), ..pending.clone() };
        PendingPlan::Waits(NotTaken::NodeNotReady, pending)
    }
}

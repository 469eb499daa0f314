//! Nodes that are not to be had: gone, not Ready, held by somebody, or decided on by others.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::Admitter;
use crate::{
    api::nodeop::NodeStatus,
    plan::{
        model::{effects::Effects, question::Question, snapshot::NodeView, time::later},
        node::context::ends_untouched,
        rollout::{
            not_taken::{NotTaken, Untouched},
            preflight,
        },
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
        (self.comes_back && view.labels.on_hold()).then_some(Untouched::OnHold)
    }

    /// Somebody holds the node, and may be at work on it: nothing is known of it when it is let go, and nobody
    /// waits for it.
    pub(super) fn on_hold(&mut self, view: &NodeView, entry: &mut NodeStatus) -> NotTaken {
        entry.since = None;
        if entry.boot.is_some() {
            preflight::forget(entry);
        }
        self.rollout.progress.on_hold.push(view.name.clone());
        NotTaken::OnHold
    }

    /// A target that is not there. Cloud controllers delete the Node of a machine that is away for a while,
    /// and the machine makes it again: that is final only when nothing else is left to be waited for, and
    /// once a live read has confirmed it.
    pub(super) fn missing(&mut self, name: &str, entry: &mut NodeStatus) -> Option<NotTaken> {
        let question = Question::Node(name.to_owned());
        if self.snapshot.nodes.contains_key(name) {
            return Some(NotTaken::NodeDeleting);
        }
        if self.others_left {
            return Some(NotTaken::NodeGone);
        }
        if !self.snapshot.is_gone(&question) {
            self.effects.add(question);
            return Some(NotTaken::NodeUnconfirmed);
        }
        *entry = untouched(self.snapshot.now, entry, &Untouched::Deleted);
        None
    }

    /// A node that is not Ready holds no slot; with `notReadyTimeoutSeconds` it is failed, untouched, after
    /// that long.
    pub(super) fn not_ready(&mut self, view: &NodeView, entry: &mut NodeStatus) -> Option<NotTaken> {
        if view.ready {
            entry.since = None;
            return None;
        }
        let patience = self.comes_back.then_some(PATIENCE);
        if let Some(limit) = self.op.intent.not_ready_timeout.or(patience) {
            let since =
                entry.since.as_ref().map_or(self.snapshot.now, |since| self.snapshot.begun_at(since.0));
            entry.since = Some(Time(since));
            let deadline = later(since, limit);
            if self.snapshot.now >= deadline {
                let is_set = self.op.intent.not_ready_timeout.is_some();
                let why = if is_set { Untouched::NotReadyFor(limit) } else { Untouched::Away(limit) };
                *entry = untouched(self.snapshot.now, entry, &why);
                return None;
            }
            self.effects.add(Effects::wake_at(deadline));
        }
        Some(NotTaken::NodeNotReady)
    }
}

/// The end of a node that is not brought to the image's release, nor found at it: what its preflight said of
/// it proves nothing any more.
pub(super) fn untouched(now: Timestamp, entry: &NodeStatus, why: &Untouched) -> NodeStatus {
    ends_untouched(now, entry, (why.reason(), None), why.to_string())
}

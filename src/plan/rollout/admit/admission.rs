//! What must stand before the first node is taken: the finalizer, and the API server's word that it admits
//! our pods.

use super::Pass;
use crate::{
    api::nodeop::{NodeStatus, Phase},
    plan::{
        model::{
            question::{Answer, Question},
            snapshot::NodeView,
        },
        rollout::finalizer,
    },
};

impl Pass<'_> {
    /// What must stand before the first node is taken: the finalizer, and the API server's word that it
    /// admits our pods.
    pub(super) fn prepared(&mut self, view: &NodeView) -> Option<String> {
        if let Some(prepare) = finalizer::add(self.op) {
            self.effects.add(prepare);
            return Some("preparing".into());
        }
        self.admission(view)
    }

    /// Whether the API server admits what we are going to make, asked before anything is made for the first
    /// node.
    pub(super) fn admission(&mut self, view: &NodeView) -> Option<String> {
        let ran = |node: &NodeStatus| node.phase == Phase::Running || node.job_name.is_some();
        let entries = || self.op.object.status.iter().flat_map(|status| status.node_statuses.values());
        if self.admitted || entries().any(ran) {
            return None;
        }
        if let Some(why) = self.progress.refused.as_ref().or(self.unanswered.as_ref()) {
            return Some(why.clone());
        }
        let untouched = entries().all(|node| !node.phase.is_final());
        let question = Question::Admission(self.op.id.clone(), view.name.clone());
        match self.snapshot.answer(&question) {
            None => {
                self.effects.add(question);
                let why = "checking that the API server admits the pods".to_owned();
                self.unanswered = Some(why.clone());
                Some(why)
            }
            Some(Answer::Refused(message)) => {
                let touched = if untouched { "no node was touched" } else { "no further node is taken" };
                let why = format!("the API server refuses what the operation needs, {touched}: {message}");
                self.progress.refused = Some(why.clone());
                Some(why)
            }
            Some(Answer::NotYet(message)) => {
                let why = format!("the API server does not admit what the operation needs yet: {message}");
                self.unanswered = Some(why.clone());
                self.progress.troubles.note(why.clone());
                Some(why)
            }
            Some(
                Answer::NotFound
                | Answer::Found
                | Answer::Pending
                | Answer::Attached(_)
                | Answer::Said(_)
                | Answer::NotReady(_),
            ) => {
                self.admitted = true;
                None
            }
        }
    }
}

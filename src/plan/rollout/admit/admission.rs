//! What must stand before the first node is taken: the finalizer, and the API server's word that it admits
//! our pods.

use super::Pass;
use crate::{
    api::node_statuses::Mark,
    plan::{
        model::{
            question::{Answer, Question},
            snapshot::NodeView,
        },
        rollout::{
            finalizer,
            not_taken::{NotTaken, Refused},
        },
    },
};

impl Pass<'_, '_> {
    /// What must stand before the first node is taken: the finalizer, and the API server's word that it
    /// admits our pods.
    pub(super) fn prepared(&mut self, view: &NodeView) -> Option<NotTaken> {
        if let Some(prepare) = finalizer::missing(self.op) {
            self.effects.add(prepare);
            return Some(NotTaken::Preparing);
        }
        self.admission(view)
    }

    /// Whether the API server admits what we are going to make, asked before anything is made for the first
    /// node.
    pub(super) fn admission(&mut self, view: &NodeView) -> Option<NotTaken> {
        let status = self.op.object.status.as_ref();
        let any = |marks| status.is_some_and(|status| status.node_statuses.any(marks));
        if self.admitted || any([Mark::Running, Mark::Ran]) {
            return None;
        }
        let refused = self.rollout.progress.refused.clone().map(NotTaken::Refused);
        if let Some(why) = refused.or_else(|| self.unanswered.clone()) {
            return Some(why);
        }
        let untouched = !any([Mark::Completed, Mark::Failed]);
        let question = Question::Admission(self.op.id.clone(), view.name.clone());
        match self.snapshot.answer(&question) {
            None => {
                self.effects.add(question);
                self.unanswered = Some(NotTaken::AdmissionUnread);
                self.unanswered.clone()
            }
            Some(Answer::Refused(message)) => {
                let why = Refused::NotAdmitted { untouched, message: message.clone() };
                self.rollout.progress.refused = Some(why.clone());
                Some(NotTaken::Refused(why))
            }
            Some(Answer::NotYet(message)) => {
                let why = NotTaken::NotAdmitted { message: message.clone() };
                self.rollout.progress.failures.note(why.to_string());
                self.unanswered = Some(why);
                self.unanswered.clone()
            }
            Some(
                Answer::NotFound
                | Answer::Found
                | Answer::Pending
                | Answer::Attached(_)
                | Answer::Said(_)
                | Answer::Pulls { .. }
                | Answer::NotReady(_),
            ) => {
                self.admitted = true;
                None
            }
        }
    }
}

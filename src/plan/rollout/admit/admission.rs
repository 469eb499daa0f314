//! What must stand before the first node is taken: the finalizer, and the API server's word that it admits
//! our pods.

use super::Admitter;
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

/// Whether the API server admits what we make. One node speaks for all.
pub(super) enum Admission {
    /// Nobody had to know it so far in this pass.
    Unasked,
    Admitted,
    /// It has not said so yet, or does not for a reason that passes by itself.
    Waits(NotTaken),
    Refused(Refused),
}

impl Admitter<'_, '_> {
    /// What is still to be done, or to be known, before the node is taken.
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
        if self.has_any([Mark::Running, Mark::HasJob]) {
            return None;
        }
        if matches!(self.admission, Admission::Unasked) {
            self.admission = self.ask_admission(view);
        }
        match &self.admission {
            Admission::Unasked | Admission::Admitted => None,
            Admission::Waits(why) => Some(why.clone()),
            Admission::Refused(why) => Some(NotTaken::Refused(why.clone())),
        }
    }

    fn ask_admission(&mut self, view: &NodeView) -> Admission {
        let question = Question::Admission(self.op.id.clone(), view.name.clone());
        match self.snapshot.answer(&question) {
            None => {
                self.effects.add(question);
                Admission::Waits(NotTaken::AdmissionUnread)
            }
            Some(Answer::Refused(message)) => {
                let untouched = !self.has_any([Mark::Completed, Mark::Failed]);
                Admission::Refused(Refused::NotAdmitted { untouched, message: message.clone() })
            }
            Some(Answer::NotYet(message)) => {
                let why = NotTaken::NotAdmitted { message: message.clone() };
                self.rollout.progress.failures.note(why.to_string());
                Admission::Waits(why)
            }
            Some(
                Answer::NotFound
                | Answer::Found
                | Answer::Pending
                | Answer::Attached(_)
                | Answer::Said(_)
                | Answer::Pulls { .. }
                | Answer::NotReady(_)
                | Answer::Components(_),
            ) => Admission::Admitted,
        }
    }

    /// Whether nodes of the NodeOp have one of these marks, as its status says.
    fn has_any(&self, marks: [Mark; 2]) -> bool {
        self.op.object.status.as_ref().is_some_and(|status| status.node_statuses.any(marks))
    }
}

//! What must stand before a node is taken: the finalizer, and the API server's word that it admits our pods.

use super::Admitter;
use crate::{
    api::node_statuses::Mark,
    plan::{
        model::{
            question::Question,
            snapshot::{self, NodeView},
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

    /// Whether the API server admits what we are going to make, asked before anything is made for a node.
    /// What has changed in the namespace since would have each further node drained for nothing. While others
    /// are worked on they tell that it is admitted, and so does each node's own preflight once one has run,
    /// unless a node has failed untouched: that may be why. The question is six requests.
    pub(super) fn admission(&mut self, view: &NodeView) -> Option<NotTaken> {
        let preflights_tell = self.op.intent.preflight.is_about_the_node() && self.has_any([Mark::HasJob]);
        if (preflights_tell || self.has_any([Mark::Running])) && !self.has_failed_untouched() {
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
        match self.snapshot.admission(&self.op.id, &view.name) {
            None => {
                self.effects.add(Question::Admission(self.op.id.clone(), view.name.clone()));
                Admission::Waits(NotTaken::AdmissionUnread)
            }
            Some(snapshot::Admission::Refused(message)) => {
                let untouched = !self.has_any([Mark::Completed, Mark::Failed]);
                Admission::Refused(Refused::NotAdmitted { untouched, message: message.to_owned() })
            }
            Some(snapshot::Admission::NotYet(message)) => {
                let why = NotTaken::NotAdmitted { message: message.to_owned() };
                self.rollout.progress.failures.note(why.to_string());
                Admission::Waits(why)
            }
            Some(snapshot::Admission::Admitted) => Admission::Admitted,
        }
    }

    /// Whether nodes of the NodeOp have one of these marks, as its status says.
    fn has_any<const N: usize>(&self, marks: [Mark; N]) -> bool {
        self.op.object.status.as_ref().is_some_and(|status| status.node_statuses.any(marks))
    }

    /// Looked for once: thousands may have failed, and it is asked of each node that could be taken.
    fn has_failed_untouched(&self) -> bool {
        *self.failed_untouched.get_or_init(|| {
            let statuses = self.op.object.status.iter().map(|status| &status.node_statuses);
            statuses.flat_map(|nodes| nodes.marked([Mark::Failed])).any(|(_, entry)| entry.job_name.is_none())
        })
    }
}

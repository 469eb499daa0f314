//! What a decision wants done, known, and thought of again: a value that a caller adds to its plan, or only
//! looks at.

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::{
    action::{Action, Plan},
    failing,
    question::Question,
    snapshot::Snapshot,
};

/// What one decision comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    pub actions: Vec<Action>,
    pub questions: Vec<Question>,
    /// When to decide again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

impl Effects {
    /// Decides again at `at` at the latest.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Makes it a part of the plan.
    pub fn add_to(self, plan: &mut Plan) {
        plan.actions.extend(self.actions);
        plan.questions.extend(self.questions);
        if let Some(at) = self.wake_at {
            plan.wake(at);
        }
    }

    /// What of it keeps failing.
    pub fn trouble(&self, snapshot: &Snapshot) -> Option<String> {
        let asked = || self.questions.iter().find_map(|question| failing::of(snapshot, question));
        failing::of_any(snapshot, &self.actions).or_else(asked)
    }
}

//! What keeps failing, said where it is waited for: in the message of the node that it holds up, and of its
//! NodeOp.
//!
//! Whoever waits does so for something that a plan wants done or known. So what one node's turn added to the
//! plan is compared with what this process fails at.

use std::{collections::BTreeSet, mem};

use crate::plan::model::{
    action::{Action, Plan},
    identity::Identified,
    question::Question,
    snapshot::Snapshot,
};

/// So many nodes have the words in their own message; with thousands in hand at once the status must not
/// outgrow etcd.
const MAX_NODES_QUOTED: usize = 100;

/// What is said of something that keeps failing.
pub fn of(snapshot: &Snapshot, what: &impl Identified) -> Option<String> {
    if snapshot.failures.is_empty() {
        return None;
    }
    let failure = snapshot.failures.get(&what.id())?;
    Some(format!("{what} keeps failing since {:.0}, it is tried again: {}", failure.since, failure.message))
}

/// The same, of the first of these that does.
pub fn of_any(snapshot: &Snapshot, actions: &[Action]) -> Option<String> {
    actions.iter().find_map(|action| of(snapshot, action))
}

/// The plan before one node's turn.
#[derive(Debug)]
pub struct Mark {
    actions: usize,
    questions: BTreeSet<Question>,
}

impl Mark {
    pub fn set(plan: &mut Plan) -> Self {
        Self { actions: plan.actions.len(), questions: mem::take(&mut plan.questions) }
    }

    /// What of that which was added since keeps failing.
    pub fn lift(self, snapshot: &Snapshot, plan: &mut Plan) -> Option<String> {
        let asked = mem::replace(&mut plan.questions, self.questions);
        let added = plan.actions.get(self.actions..).unwrap_or_default();
        let trouble =
            of_any(snapshot, added).or_else(|| asked.iter().find_map(|question| of(snapshot, question)));
        plan.questions.extend(asked);
        trouble
    }
}

/// The troubles of one NodeOp.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureSummary {
    /// The first one: it stands in the NodeOp's own message.
    pub first: Option<String>,
    nodes: usize,
}

impl FailureSummary {
    pub fn note(&mut self, trouble: String) {
        self.first.get_or_insert(trouble);
    }

    /// The reason why a node waits, completed by what keeps failing.
    pub fn complete(&mut self, why: String, trouble: Option<String>) -> String {
        let Some(trouble) = trouble else { return why };
        self.nodes += 1;
        let said = if self.nodes > MAX_NODES_QUOTED {
            "held up like others, see the message of the NodeOp".to_owned()
        } else {
            trouble.clone()
        };
        self.note(trouble);
        format!("{why}; {said}")
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::model::snapshot::PersistentFailure;

    fn failing(question: &Question) -> Snapshot {
        let failure = PersistentFailure {
            since: Timestamp::from_second(1_000_000).unwrap(),
            message: "no etcd".into(),
        };
        Snapshot { failures: [(question.id(), failure)].into(), ..Snapshot::default() }
    }

    #[test]
    fn what_one_turn_asked_for_is_told_with_it_and_with_no_other() {
        let (bad, good) = (Question::Node("n1".into()), Question::Node("n2".into()));
        let snapshot = failing(&bad);
        let mut plan = Plan::default();
        let mut ctx = |question: &Question| {
            let mark = Mark::set(&mut plan);
            plan.questions.insert(question.clone());
            mark.lift(&snapshot, &mut plan)
        };
        let told = ctx(&bad).unwrap();
        assert_eq!(
            told,
            "reading node n1 keeps failing since 1970-01-12T13:46:40Z, it is tried again: no etcd"
        );
        assert_eq!(ctx(&good), None);
        assert_eq!(plan.questions, [bad, good].into(), "both are still asked");
    }

    #[test]
    fn thousands_of_nodes_do_not_all_repeat_the_words() {
        let mut troubles = FailureSummary::default();
        let message = "w".repeat(500);
        let all: usize =
            (0..5000).map(|_| troubles.complete("making the Job".into(), Some(message.clone())).len()).sum();
        assert!(all < 500_000, "{all}");
        assert_eq!(
            (troubles.first, FailureSummary::default().complete("fine".into(), None).as_str()),
            (Some(message), "fine")
        );
    }
}

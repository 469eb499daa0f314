//! What keeps failing, said where it is waited for: in the message of the node that it holds up, and of its
//! NodeOp.
//!
//! A step returns what it wants done and asked. If one of these requests keeps failing, that is the reason
//! why the node waits, so it is quoted in the node's message and in that of its NodeOp.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::{
    action::{Action, NodeChange},
    effects::Effects,
    identity::{Id, Identified},
    snapshot::{NodeView, PersistentFailure, Snapshot},
    why::{WaitReason, Why},
};

/// How many nodes have the error in their own message; with thousands worked on at once the status must not
/// outgrow etcd.
const MAX_NODES_QUOTED: usize = 100;

/// What has failed three times in a row (`controllers::failures`).
pub type PersistentFailures = BTreeMap<Id, PersistentFailure>;

/// What is said of something that keeps failing.
pub fn of(snapshot: &Snapshot, what: &impl Identified) -> Option<String> {
    first(&snapshot.failures, [what])
}

/// What is said of the first of these that keeps failing.
pub fn first<'a, T: Identified + 'a>(
    failures: &PersistentFailures,
    all: impl IntoIterator<Item = &'a T>,
) -> Option<String> {
    if failures.is_empty() {
        return None;
    }
    all.into_iter().find_map(|what| {
        let failure = failures.get(&what.id())?;
        Some(format!("{what} keeps failing since {:.0}: {}", failure.since, failure.message))
    })
}

impl Effects {
    /// What of them keeps failing.
    pub fn persistent_failure(&self, failures: &PersistentFailures) -> Option<String> {
        first(failures, &self.actions).or_else(|| first(failures, &self.questions))
    }
}

/// Since when it has been failing.
pub fn since(snapshot: &Snapshot, what: &impl Identified) -> Option<Timestamp> {
    snapshot.failures.get(&what.id()).map(|failure| failure.since)
}

/// Whether a change of the node failed a moment ago, and is left alone in this pass. A plan may want it, and
/// need not find out first whether it still may: else each plan would ask, however many are made until then.
pub fn change_is_paused(snapshot: &Snapshot, node: &NodeView) -> bool {
    !snapshot.paused.is_empty()
        && snapshot.paused.contains(&Action::patch_node(node, NodeChange::default()).id())
}

/// The failures of one NodeOp.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureSummary {
    /// The first one: it stands in the NodeOp's own message.
    pub first: Option<String>,
    nodes: usize,
}

impl FailureSummary {
    pub fn note(&mut self, error: String) {
        self.first.get_or_insert(error);
    }

    /// The reason why a node waits, completed by what keeps failing, which is the reason then.
    pub fn complete(&mut self, why: Why, error: Option<String>) -> Why {
        let Some(error) = error else { return why };
        self.nodes += 1;
        let said = if self.nodes > MAX_NODES_QUOTED {
            "held up like others, see the message of the NodeOp".to_owned()
        } else {
            error.clone()
        };
        self.note(error);
        Why { reason: WaitReason::Blocked, message: format!("{why}; {said}") }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::model::{question::Question, snapshot::PersistentFailure};

    fn failing(question: &Question) -> Snapshot {
        let failure = PersistentFailure {
            since: Timestamp::from_second(1_000_000).unwrap(),
            message: "no etcd".into(),
        };
        Snapshot { failures: [(question.id(), failure)].into(), ..Snapshot::default() }
    }

    #[test]
    fn what_is_asked_for_one_node_is_told_of_it_and_of_no_other() {
        let (bad, good) = (Question::Node("n1".into()), Question::Node("n2".into()));
        let snapshot = failing(&bad);
        let told = Effects::from(bad).persistent_failure(&snapshot.failures);
        let expected = "reading node n1 keeps failing since 1970-01-12T13:46:40Z: no etcd";
        assert_eq!(told.as_deref(), Some(expected));
        assert_eq!(Effects::from(good).persistent_failure(&snapshot.failures), None);
    }

    #[test]
    fn thousands_of_nodes_do_not_all_repeat_the_words() {
        let mut failures = FailureSummary::default();
        let message = "w".repeat(500);
        let makes = Why::new(WaitReason::Job, &"making the Job");
        let mut of_one = || failures.complete(makes.clone(), Some(message.clone()));
        assert_eq!(of_one().reason, WaitReason::Blocked);
        let all: usize = (1..5000).map(|_| of_one().message.len()).sum();
        assert!(all < 500_000, "{all}");
        assert_eq!(FailureSummary::default().complete(makes.clone(), None), makes);
        assert_eq!(failures.first, Some(message));
    }
}

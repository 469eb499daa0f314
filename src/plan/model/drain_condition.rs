//! The conditions by which a Node says how far its drain is (KEP-5683, Kubernetes 1.37). Nobody owns a type of
//! condition, so an entry is ours only if its message begins with one of our NodeOps.
//!
//! `MaintenanceInProgress`, of the same KEP, is not among them. KEP-6262 (proposed, not merged) has the Job
//! controller replace the pods of Jobs on nodes that say so. Our Jobs have `podReplacementPolicy: Failed`, by
//! which no pod is made before the one before it has ended; but a pod that is deleted by force has ended for
//! the API server while its processes go on, and whether the replacement waits at all is not settled. An
//! upgrade is safe all the same: its wrapper takes a lock on the node (`node::upgrade`). A plain command is
//! not. It runs as it is, in an image that has nothing of ours and perhaps an entrypoint that we do not know,
//! so that it cannot be wrapped. It would take a native sidecar (Kubernetes 1.29) in each such Job, whose
//! startup probe succeeds once it has the same lock, and which holds it until the kubelet ends it, after the
//! command; and a proof, on a kubelet that starts again, that neither of the two outlives the other.

use crate::{api::names::node_condition, plan::model::id::OpRef};

/// How far the drain of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainCondition {
    /// Its pods are being evicted.
    InProgress,
    /// None is left that has to go, and none comes.
    Drained,
}

impl DrainCondition {
    pub const ALL: [Self; 2] = [Self::InProgress, Self::Drained];

    /// The condition's type.
    pub fn kind(self) -> &'static str {
        match self {
            Self::InProgress => node_condition::DRAIN_IN_PROGRESS,
            Self::Drained => node_condition::DRAINED,
        }
    }

    /// The condition's reason: one word in CamelCase.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InProgress => "NodeOp",
            Self::Drained => "DrainCompleted",
        }
    }

    /// The condition's message, by which an entry is known as ours.
    pub fn message(self, op: &OpRef) -> String {
        match self {
            Self::InProgress => format!("{op}: the node is being drained"),
            Self::Drained => format!("{op}: the node is drained"),
        }
    }
}

/// The NodeOp that an entry's message names.
pub fn said_by(message: &str) -> Option<OpRef> {
    message.split_once(": ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_known_by_the_nodeop_that_its_message_names() {
        let op = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        for condition in DrainCondition::ALL {
            assert_eq!(said_by(&condition.message(&op)), Some(op.clone()));
        }
        for message in ["", "drained by kubectl", "kubectl: draining", "ns/op: draining", "ns/op@u"] {
            assert_eq!(said_by(message), None, "{message}");
        }
    }
}

//! The conditions by which a Node says that it is in maintenance, and how far its drain is (KEP-5683, node
//! lifecycle conditions, Kubernetes 1.37). Nobody owns a type of condition, so an entry is ours only if its
//! message begins with one of our NodeOps.
//!
//! `MaintenanceInProgress` is more than news. KEP-6262 (proposed, not merged) has the Job controller replace
//! the pods of Jobs on nodes that say so. Our Jobs have `podReplacementPolicy: Failed`, by which no pod is
//! made before the one before it has ended; but a pod that is deleted by force has ended for the API server
//! while its processes go on, and whether the replacement waits at all is not settled. So a node says it only
//! where the node's lock guards what runs there (`node::lock`): an upgrade, whose wrapper takes it, or a
//! command on a kubelet that can hold it beside the command. Whatever is replaced then waits on the node for
//! what it replaces.
//!
//! `MaintenancePlanned`, of the same KEP, is not among them. Without windows of maintenance a node is planned
//! for as long as the nodes before it take, and whether it is taken at all its preflight tells. Each node
//! would cost two more writes, and those that wait for long, whose drivers could use the time, would be the
//! ones that a limit of `concurrency` leaves out.

use crate::{api::names::node_condition, plan::model::id::OpRef};

/// What a node says of an operation on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// An operation has it.
    Maintenance,
    /// Its pods are being evicted.
    Draining,
    /// None is left that has to go, and none comes.
    Drained,
}

impl Lifecycle {
    pub const ALL: [Self; 3] = [Self::Maintenance, Self::Draining, Self::Drained];

    /// The condition's type.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Maintenance => node_condition::MAINTENANCE_IN_PROGRESS,
            Self::Draining => node_condition::DRAIN_IN_PROGRESS,
            Self::Drained => node_condition::DRAINED,
        }
    }

    /// The condition's reason: one word in CamelCase.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Maintenance | Self::Draining => "NodeOp",
            Self::Drained => "DrainCompleted",
        }
    }

    /// The condition's message, by which an entry is known as ours.
    pub fn message(self, op: &OpRef) -> String {
        match self {
            Self::Maintenance => format!("{op}: an operation has the node"),
            Self::Draining => format!("{op}: the node is being drained"),
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
        for condition in Lifecycle::ALL {
            assert_eq!(said_by(&condition.message(&op)), Some(op.clone()));
        }
        for message in ["", "drained by kubectl", "kubectl: draining", "ns/op: draining", "ns/op@u"] {
            assert_eq!(said_by(message), None, "{message}");
        }
    }
}

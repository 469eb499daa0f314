//! Why a node that was recorded as taken is not claimed, and goes back to where it was.

use std::fmt;

use crate::plan::{model::id::Key, quorum::Unwell};

/// Why another NodeOp comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precedes {
    HasClaimed,
    /// This Job of it has not ended there, whatever its status says of the node: one of the Go operator's,
    /// say, which is not adopted yet.
    HasJob(String),
    /// In this same plan.
    Takes,
    IsOlder,
    /// It works on this control-plane node.
    HasControlPlane(String),
}

/// Why the node is not claimed.
#[derive(Clone, Debug, PartialEq)]
pub enum NotClaimed {
    /// Another NodeOp comes first.
    Other { op: Key, why: Precedes },
    /// Another control-plane node is away.
    Quorum(Unwell),
    /// This run of the upgrade has had its attempt.
    Attempted,
}

impl fmt::Display for Precedes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasClaimed => f.write_str("has claimed the node"),
            Self::HasJob(job) => write!(f, "has Job {job} on the node, and that has not ended"),
            Self::Takes => f.write_str("takes the node"),
            Self::IsOlder => f.write_str("is older and not finished with the node"),
            Self::HasControlPlane(node) => write!(f, "has control-plane node {node}"),
        }
    }
}

impl Precedes {
    /// What is said of a node that waits for that NodeOp.
    pub fn waits_for(&self, (namespace, name): &Key) -> String {
        format!("waiting for NodeOp {namespace}/{name}, which {self}")
    }
}

impl fmt::Display for NotClaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { op, why } => f.write_str(&why.waits_for(op)),
            Self::Quorum(why) => write!(f, "waiting: {why}"),
            Self::Attempted => f.write_str("this run has had its attempt at the node"),
        }
    }
}

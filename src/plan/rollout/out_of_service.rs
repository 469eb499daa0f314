//! Why a node that nobody works on holds a slot: it failed, or went down, and is out of service since.

use std::fmt;

use crate::{
    api::nodeop::{NodeStatus, Phase},
    plan::{model::snapshot::NodeView, node::context::Op},
};

/// Why a node that is done holds its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfService {
    Cordoned(String),
    NotReady(String),
    /// It was done.
    WentDown(String),
    /// It looks well; a live read decides.
    Unconfirmed(String),
    /// An earlier run, or another upgrade, failed on it, and it is still cordoned.
    LeftBefore {
        node: String,
        op: String,
    },
}

impl fmt::Display for OutOfService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cordoned(node) => {
                write!(f, "node {node} failed and is still cordoned; kubectl uncordon {node} when it is well")
            }
            Self::NotReady(node) => write!(f, "node {node} failed and is not Ready"),
            Self::WentDown(node) => write!(f, "node {node} was done, and is not Ready since"),
            Self::Unconfirmed(node) => write!(f, "checking that node {node} is back in service"),
            Self::LeftBefore { node, op } => write!(
                f,
                "node {node} failed in an earlier run ({op}) and is still cordoned; kubectl uncordon {node} when it is well"
            ),
        }
    }
}

/// Whether a node is out of service because of what our operation did to it, and what is to be done about it.
pub fn of(op: &Op, entry: &NodeStatus, node: &NodeView) -> Option<OutOfService> {
    // One that holds its slot ran, also where its Job's name was left out (see `compact`).
    let began = entry.job_name.is_some() || entry.holds_slot == Some(true);
    let (ran, name) = (began && op.intent.disturbs() && !op.deleting, node.name.clone());
    let stays_cordoned = op.intent.cordon && !op.object.spec.uncordon_on_failure.unwrap_or(false);
    match entry.phase {
        _ if !ran => None,
        Phase::Failed if stays_cordoned && node.unschedulable => Some(OutOfService::Cordoned(name)),
        Phase::Failed => (!node.ready).then_some(OutOfService::NotReady(name)),
        Phase::Completed => (!node.ready).then_some(OutOfService::WentDown(name)),
        Phase::Pending | Phase::Preflight | Phase::Running => None,
    }
}

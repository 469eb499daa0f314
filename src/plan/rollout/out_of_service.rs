//! The slots that nobody works on, and why a node holds one: it is not given back, or it failed, or went
//! down, and is out of service since. How they are found stands in `slots`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::{
    model::snapshot::NodeView,
    node::{context::Op, state::Over},
    release::Unreleased,
};

/// The slots of a NodeOp that nobody works on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots {
    /// Nodes that are no longer worked on and not proved to be given back.
    pub unreleased: usize,
    /// Why the first of those is not, if its entry is final.
    pub unreleased_why: Option<NotReleased>,
    /// Nodes that failed, or went down, and are out of service, and what puts each back into it.
    pub out_of_service: BTreeMap<String, OutOfService>,
    /// Those of `out_of_service` on which an earlier run failed, and that this one takes next.
    pub to_be_taken: BTreeSet<String>,
}

/// A node that is done and not given back yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReleased {
    pub node: String,
    pub why: Unreleased,
}

impl fmt::Display for NotReleased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} is not released yet: {}", self.node, self.why)
    }
}

impl Slots {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.unreleased + self.out_of_service.len()
    }

    /// Whether taking the node takes no further one out of service.
    pub fn has_own(&self, node: &str) -> bool {
        self.to_be_taken.contains(node)
    }
}

/// Why a node that is done holds its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfService {
    Cordoned(String),
    NotReady(String),
    /// It was done.
    WentDown(String),
    /// It was out of service, and is Ready since then only.
    ReadySince {
        node: String,
        since: Timestamp,
        waited: SignedDuration,
    },
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
            Self::ReadySince { node, since, waited } => write!(
                f,
                "node {node} is Ready since {since:.0} only; its slot is free once it has been so for {} s",
                waited.as_secs()
            ),
            Self::Unconfirmed(node) => write!(f, "checking that node {node} is back in service"),
            Self::LeftBefore { node, op } => write!(
                f,
                "node {node} failed in an earlier run ({op}) and is still cordoned; kubectl uncordon {node} when it is well"
            ),
        }
    }
}

/// Whether a node is out of service because of what our operation did to it, and what is to be done about it.
pub fn of(op: &Op, over: &Over, node: &NodeView) -> Option<OutOfService> {
    // One that holds its slot ran, also where its Job's name was left out (see `compact`).
    let began = over.job_name.is_some() || over.holds_slot;
    let (ran, name) = (began && op.intent.disturbs() && !op.deleting, node.name.clone());
    let stays_cordoned = op.intent.cordon && !op.intent.uncordon_on_failure;
    if !ran {
        None
    } else if over.succeeded {
        (!node.ready).then_some(OutOfService::WentDown(name))
    } else if stays_cordoned && node.unschedulable {
        Some(OutOfService::Cordoned(name))
    } else {
        (!node.ready).then_some(OutOfService::NotReady(name))
    }
}

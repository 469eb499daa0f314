//! How and when an operation was over, whichever kind it is of: its conditions say so.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::api::{
    names::{
        condition::{COMPLETE, FAILED},
        is_our_finalizer,
    },
    nodeop::{NodeOp, NodeOpStatus, Phase, RebootStatus},
};

/// The condition that says that the operation is over, and why; none while it is not.
pub fn end(conditions: &[Condition]) -> Option<&Condition> {
    let ends = |one: &&Condition| one.status == "True" && [COMPLETE, FAILED].contains(&one.type_.as_str());
    conditions.iter().find(ends)
}

/// When the operation with these conditions was over.
pub fn ended(conditions: &[Condition]) -> Option<Timestamp> {
    end(conditions).map(|end| end.last_transition_time.0)
}

impl NodeOp {
    /// Whether its phase says that it is over.
    pub fn is_over(&self) -> bool {
        self.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
    }

    /// Whether a finalizer of ours says that there may be something to give back.
    pub fn has_our_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| is_our_finalizer(finalizer))
    }

    /// Whether its status is about the spec as it is. (A deletion makes another generation, too; nothing is to
    /// be said of that one.)
    pub fn is_observed(&self) -> bool {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        self.metadata.deletion_timestamp.is_some() || observed == self.metadata.generation
    }
}

impl NodeOpStatus {
    /// Whether the Go operator wrote it, and it says of a node what still decides what becomes of that node.
    /// It wrote no `observedGeneration`, left nodes that failed cordoned, and called an operation over while
    /// other nodes were at it.
    pub fn leaves_a_node_of_go(&self) -> bool {
        let is_done = |phase, reboot| phase == Phase::Completed && reboot != Some(RebootStatus::Pending);
        let mut nodes = self.node_statuses.values();
        self.observed_generation.is_none() && !nodes.all(|entry| is_done(entry.phase, entry.reboot_status))
    }
}

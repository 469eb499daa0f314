//! How and when an operation was over, whichever kind it is of: its conditions say so.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::api::{
    names::{
        condition::{COMPLETE, FAILED},
        is_our_finalizer,
    },
    nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus},
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

impl NodeOpStatus {
    /// Whether it is one that the Go operator wrote, and we have not touched.
    pub const fn is_legacy(&self) -> bool {
        self.observed_generation.is_none()
    }

    /// Whether it says that the operation is over. The Go operator, which writes no generation, says so of
    /// the whole when the first node has failed, and between any two nodes: of what it wrote the nodes tell.
    pub fn is_over(&self) -> bool {
        let is_done = |entry: &NodeStatus| {
            let reboots =
                entry.phase == Phase::Completed && entry.reboot_status == Some(RebootStatus::Pending);
            entry.phase.is_final() && !reboots
        };
        let is_said = self.phase.is_some_and(Phase::is_final);
        is_said && (self.observed_generation.is_some() || self.node_statuses.values().all(is_done))
    }
}

impl NodeOp {
    /// Whether its status says that it is over.
    pub fn is_over(&self) -> bool {
        self.status.as_ref().is_some_and(NodeOpStatus::is_over)
    }

    /// Whether a finalizer of ours says that there may be something to give back.
    pub fn has_our_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| is_our_finalizer(finalizer))
    }

    /// Whether its status is about the spec as it is. A deletion makes another generation, too, and nothing
    /// is to be said of that one. The Go operator wrote no generation, and what it has finished stays as it
    /// is.
    pub fn is_observed(&self) -> bool {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        let is_deleted = self.metadata.deletion_timestamp.is_some();
        is_deleted || observed.is_none() || observed == self.metadata.generation
    }
}

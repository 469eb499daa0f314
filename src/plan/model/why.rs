//! Why a node that is not finished is not moving: as one of a few reasons, which are counted, and as the
//! sentence that people read.

use std::fmt;

/// What a node waits for, in the few kinds that are worth counting. The types of the steps tell more; each
/// says next to its sentence which of these it is. What each means stands in [`WaitReason::meaning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitReason {
    Paused,
    OnHold,
    Stopped,
    Superseded,
    Expired,
    Deleting,
    Rival,
    Quorum,
    Turn,
    OutOfService,
    NotReady,
    NodeAway,
    Admission,
    Blocked,
    Preflight,
    Claim,
    LoadBalancers,
    Drain,
    Budget,
    Volumes,
    Waiter,
    PodStart,
    NodeLock,
    Job,
    Reboot,
    Verify,
    Ending,
    Release,
}

impl WaitReason {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Paused,
        Self::OnHold,
        Self::Stopped,
        Self::Superseded,
        Self::Expired,
        Self::Deleting,
        Self::Rival,
        Self::Quorum,
        Self::Turn,
        Self::OutOfService,
        Self::NotReady,
        Self::NodeAway,
        Self::Admission,
        Self::Blocked,
        Self::Preflight,
        Self::Claim,
        Self::LoadBalancers,
        Self::Drain,
        Self::Budget,
        Self::Volumes,
        Self::Waiter,
        Self::PodStart,
        Self::NodeLock,
        Self::Job,
        Self::Reboot,
        Self::Verify,
        Self::Ending,
        Self::Release,
    ];

    /// Its name, as metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paused => "Paused",
            Self::OnHold => "OnHold",
            Self::Stopped => "Stopped",
            Self::Superseded => "Superseded",
            Self::Expired => "Expired",
            Self::Deleting => "Deleting",
            Self::Rival => "Rival",
            Self::Quorum => "Quorum",
            Self::Turn => "Turn",
            Self::OutOfService => "OutOfService",
            Self::NotReady => "NotReady",
            Self::NodeAway => "NodeAway",
            Self::Admission => "Admission",
            Self::Blocked => "Blocked",
            Self::Preflight => "Preflight",
            Self::Claim => "Claim",
            Self::LoadBalancers => "LoadBalancers",
            Self::Drain => "Drain",
            Self::Budget => "Budget",
            Self::Volumes => "Volumes",
            Self::Waiter => "Waiter",
            Self::PodStart => "PodStart",
            Self::NodeLock => "NodeLock",
            Self::Job => "Job",
            Self::Reboot => "Reboot",
            Self::Verify => "Verify",
            Self::Ending => "Ending",
            Self::Release => "Release",
        }
    }

    /// What it says, in one sentence without its full stop.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Paused => "`spec.paused` is true",
            Self::OnHold => "The node carries the label `kairos.io/hold`, with another value than `false`",
            Self::Stopped => {
                "A node failed, or is not proved, under `stopOnFailure`; or the operation is refused as a whole"
            }
            Self::Superseded => "Its NodeOpUpgrade goes on with another NodeOp, which takes the node",
            Self::Expired => "`spec.notAfter` has passed",
            Self::Deleting => "The operation is being deleted",
            Self::Rival => "Another operation has the node or a control-plane node, or comes first",
            Self::Quorum => "Another control-plane node is not well, and a second one must not go away",
            Self::Turn => "All slots are taken, or nodes before it come first",
            Self::OutOfService => "Nodes that failed, or went down soon after they were done, hold the slots",
            Self::NotReady => "The node is not Ready",
            Self::NodeAway => "The Node object is away or being deleted",
            Self::Admission => {
                "What has to stand before a node is taken: the finalizer, and the API server's word on the pods"
            }
            Self::Blocked => "Something that is tried again and again fails",
            Self::Preflight => "Its preflight runs",
            Self::Claim => "It is being claimed and cordoned",
            Self::LoadBalancers => "Load balancers get `loadBalancer.waitSeconds` to leave it",
            Self::Drain => "Pods are being evicted, or end",
            Self::Budget => "Evictions are refused, as by a PodDisruptionBudget",
            Self::Volumes => "Volumes are being detached",
            Self::Waiter => "The reboot waiter has to stand first",
            Self::PodStart => "No container of the operation has begun: the image is being pulled, as a rule",
            Self::NodeLock => "Another operation still runs on the node, and holds its lock",
            Self::Job => "The operation runs",
            Self::Reboot => "The node reboots, or has to be Ready for a while",
            Self::Verify => "What it runs is being read",
            Self::Ending => "It is given up, and what could act on it still has to end",
            Self::Release => "It is done, and not given back yet",
        }
    }
}

/// Why a node is not moving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub reason: WaitReason,
    /// The sentence in the node's message.
    pub message: String,
}

impl Why {
    /// This reason, with this sentence.
    pub fn new(reason: WaitReason, message: &impl fmt::Display) -> Self {
        Self { reason, message: message.to_string() }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once_in_order() {
        let listed: BTreeSet<WaitReason> = WaitReason::ALL.into();
        assert!(listed.iter().eq(&WaitReason::ALL));
        // The last one: a reason that is added behind it is missing in the list.
        assert_eq!(WaitReason::Release as usize + 1, WaitReason::ALL.len());
    }
}

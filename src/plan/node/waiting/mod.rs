//! Why a node that is worked on does not move at this moment: as a type, which is decided on and counted; and
//! as a sentence, which people read in the node's message.

mod claim;
mod drain;
mod start;

use std::fmt;

use k8s_openapi::jiff::Timestamp;

pub use self::{
    claim::{NotClaimed, Precedes},
    drain::{Draining, PodsToGo, list},
    start::{NotBegun, Open, Starting},
};
use crate::plan::{
    model::{
        snapshot::NodeView,
        why::{WaitReason, Why},
    },
    quorum::Unwell,
};

/// What is said of a Job that goes on, and of which nothing complains.
const JOB_RUNS: &str = "Job is running";

/// Why a node stands where it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// The Node object is not in the cache, or is another one; a live read decides.
    NodeUnconfirmed,
    /// Cloud controllers delete the Node of a machine that is away.
    NodeDeleted {
        until: Timestamp,
    },
    /// It was made again, and its kubelet has not reported yet.
    NodeUnreported {
        until: Timestamp,
    },
    /// The node cannot be worked on any more, and what could still act on it has to end first.
    Ending {
        reason: String,
        open: Open,
    },

    /// It is being claimed, and cordoned where that is asked for.
    Claim {
        cordon: bool,
    },
    /// Somebody uncordoned a node that is not done.
    CordonAgain,
    /// The cordon's annotation names a NodeOp that no cache shows.
    CordonOwner,
    /// A claim is set on the word of the NodeOp as it is now.
    StillOurs,
    /// No two control-plane nodes at once.
    Rivals,
    /// Whether the other control-plane nodes are still well is read.
    ControlPlanesUnread,
    /// One of them is not, and this node would be the second one that is away.
    ControlPlaneUnwell(Unwell),
    /// The last node that serves is left in load balancers.
    OthersServe,
    /// Load balancers leave the node before it is disturbed.
    LoadBalancers {
        until: Timestamp,
    },

    /// The drain goes on; so does the start of the reboot waiter, which is told of where it says more than
    /// that.
    Drain {
        drain: Draining,
        waiter: Option<Starting>,
    },
    /// The drain is over, and the waiter does not stand yet.
    Waiter(Starting),

    JobMade,
    /// What was known last of a node that is not Ready; how it goes there nobody can say.
    Unheard(Box<Self>),
    /// The message stands as it was recorded.
    AsTold(String),
    /// An older Job has the name still.
    OldJobDeleted,
    /// The Job is not in the cache under the UID that is recorded; a live read decides.
    JobUnconfirmed {
        name: String,
    },
    /// The Job says that its operation has succeeded; a live read tells whether that is recorded.
    SuccessUnconfirmed,
    /// A live read tells whether it was let go.
    JobStart {
        name: String,
    },
    /// A live read tells that the node has not been replaced.
    SameMachine,
    JobRuns,
    /// Tries have failed, and others follow.
    JobTries {
        failed: usize,
        /// With what the last one of them did, unless its pod is gone.
        last: Option<String>,
    },
    /// It runs, and something keeps it from its end.
    JobHeldUp {
        why: String,
    },
    /// Somebody suspended the Job that had been resumed, or allows it no pod.
    JobResumed {
        name: String,
    },
    /// No container of the operation has begun.
    JobNotBegun(NotBegun),
    /// No container of the operation has begun, and nobody says what keeps its pod; nothing does, if `told`
    /// says so.
    JobPodSilent {
        told: Option<String>,
    },
    /// The operation has succeeded in it, and another Job is to record that.
    JobUnrecorded {
        why: String,
    },
    /// The command has ended, and containers of others have not.
    OtherContainers {
        names: String,
    },
    JobFailing {
        why: String,
    },
    /// It has failed, and the cache does not show all of its pods yet.
    JobPodsUnread {
        why: String,
    },
    JobDeleted,
    JobPodsEnd,
    /// An upgrade under way is not killed.
    UpgradeLeftToEnd,
    JobStopped,
    /// The Job's completion shows before its pod's does.
    JobPodLags,
    /// The boot id before the reboot of the Go operator's pod.
    BootBeforeReboot,

    Reboot,
    /// The reboot is due, and another control-plane node is not well.
    RebootHeldBack(Unwell),
    /// The reboot is due, and the waiter that does it has to be made anew.
    RebootWaiterLost(Starting),
    /// Another boot id shows, and is read live before it counts.
    BootUnconfirmed,
    RebootedNotReady,
    RebootedReadyUntil(Timestamp),
    /// It is back, and what it runs is about to be read: what was told stands until then.
    Returned {
        told: String,
    },
    Facts {
        obstacle: Option<String>,
    },
}

impl Waiting {
    /// What is said of something that runs on the node, as far as one hears of it.
    pub fn on(self, node: &NodeView) -> Self {
        if node.ready { self } else { Self::Unheard(Box::new(self)) }
    }

    /// As what it is counted.
    pub fn reason(&self) -> WaitReason {
        match self {
            Self::NodeUnconfirmed | Self::NodeDeleted { .. } | Self::NodeUnreported { .. } => {
                WaitReason::NodeAway
            }
            Self::Ending { .. } => WaitReason::Ending,
            Self::Claim { .. }
            | Self::CordonAgain
            | Self::CordonOwner
            | Self::StillOurs
            | Self::OthersServe => WaitReason::Claim,
            Self::LoadBalancers { .. } => WaitReason::LoadBalancers,
            Self::Rivals => WaitReason::Rival,
            Self::ControlPlanesUnread | Self::ControlPlaneUnwell(_) | Self::RebootHeldBack(_) => {
                WaitReason::Quorum
            }
            Self::Drain { drain, waiter: _ } => drain.reason(),
            Self::Waiter(_) | Self::RebootWaiterLost(_) => WaitReason::Waiter,
            Self::Unheard(_) => WaitReason::NotReady,
            Self::JobNotBegun(NotBegun::Locked) => WaitReason::NodeLock,
            Self::JobNotBegun(_) | Self::JobPodSilent { .. } | Self::JobUnrecorded { .. } => {
                WaitReason::PodStart
            }
            Self::JobMade
            | Self::AsTold(_)
            | Self::OldJobDeleted
            | Self::JobUnconfirmed { .. }
            | Self::SuccessUnconfirmed
            | Self::JobStart { .. }
            | Self::SameMachine
            | Self::JobRuns
            | Self::JobTries { .. }
            | Self::JobHeldUp { .. }
            | Self::JobResumed { .. }
            | Self::OtherContainers { .. }
            | Self::JobFailing { .. }
            | Self::JobPodsUnread { .. }
            | Self::JobDeleted
            | Self::JobPodsEnd
            | Self::UpgradeLeftToEnd
            | Self::JobStopped
            | Self::JobPodLags => WaitReason::Job,
            Self::BootBeforeReboot
            | Self::Reboot
            | Self::BootUnconfirmed
            | Self::RebootedNotReady
            | Self::RebootedReadyUntil(_) => WaitReason::Reboot,
            Self::Returned { .. } | Self::Facts { .. } => WaitReason::Verify,
        }
    }
}

impl From<Waiting> for Why {
    fn from(waiting: Waiting) -> Self {
        Self::new(waiting.reason(), &waiting)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NodeUnconfirmed => "checking whether the node still exists",
            Self::NodeDeleted { until } => {
                return write!(f, "the Node object was deleted; its machine may join again until {until:.0}");
            }
            Self::NodeUnreported { until } => {
                return write!(
                    f,
                    "the Node object was deleted and made again; its kubelet may report until {until:.0}"
                );
            }
            Self::Ending { reason, open } => return write!(f, "{reason}; {open}"),
            Self::Claim { cordon: true } => "cordoning the node",
            Self::Claim { cordon: false } => "claiming the node",
            Self::CordonAgain => "cordoning the node again, which somebody uncordoned",
            Self::CordonOwner => "checking who cordoned the node",
            Self::StillOurs => "checking that the node is still to be claimed",
            Self::Rivals => "checking that no other control-plane node is worked on",
            Self::ControlPlanesUnread => "checking that the other control-plane nodes are well",
            Self::ControlPlaneUnwell(why) => {
                return write!(
                    f,
                    "waiting: {why}; this node is claimed meanwhile, and given back if the NodeOp is deleted"
                );
            }
            Self::OthersServe => "checking that another node stays in load balancers",
            Self::LoadBalancers { until } => {
                return write!(
                    f,
                    "claimed; load balancers get until {until:.0} to leave the node (loadBalancer.waitSeconds)"
                );
            }
            Self::Drain { drain, waiter: None } => return drain.fmt(f),
            Self::Drain { drain, waiter: Some(waiter) } => {
                return write!(f, "{drain}; the reboot waiter: {waiter}");
            }
            Self::Waiter(why) => return write!(f, "waiting for the reboot waiter: {why}"),
            Self::JobMade => "making the Job",
            Self::Unheard(why) => return write!(f, "{why}; the node is not Ready"),
            Self::AsTold(told) | Self::Returned { told } => told,
            Self::OldJobDeleted => "an older Job of the same name is being deleted",
            Self::JobUnconfirmed { name } => return write!(f, "checking whether Job {name} still exists"),
            Self::SuccessUnconfirmed => "checking whether the operation's success is recorded",
            Self::JobStart { name } => return write!(f, "checking whether Job {name} has started"),
            Self::SameMachine => "checking that the node is still the same machine",
            Self::JobRuns => JOB_RUNS,
            Self::JobTries { failed: 1, last: Some(last) } => {
                return write!(f, "{JOB_RUNS}; one try failed with {last}");
            }
            Self::JobTries { failed: 1, last: None } => {
                return write!(f, "{JOB_RUNS}; one try failed, and its pod is gone");
            }
            Self::JobTries { failed, last: Some(last) } => {
                return write!(f, "{JOB_RUNS}; {failed} tries failed, the last one with {last}");
            }
            Self::JobTries { failed, last: None } => {
                return write!(f, "{JOB_RUNS}; {failed} tries failed, and their pods are gone");
            }
            Self::JobHeldUp { why } => return write!(f, "{JOB_RUNS}: {why}"),
            Self::JobResumed { name } => {
                return write!(
                    f,
                    "somebody suspended Job {name}, or set its parallelism to 0, which ended its pods; it is resumed, and the operation begins anew"
                );
            }
            // A large image takes minutes, and nothing is wrong as long as no error is reported.
            Self::JobPodSilent { told: Some(told) } => {
                return write!(f, "{JOB_RUNS}; its pod has not started yet: {told}");
            }
            Self::JobPodSilent { told: None } => {
                return write!(f, "{JOB_RUNS}; its pod has not started yet, as while its image is pulled");
            }
            Self::JobNotBegun(why) => return write!(f, "the Job's pod cannot start yet: {why}"),
            Self::JobUnrecorded { why } => {
                return write!(f, "the operation has succeeded, and that is still to be recorded: {why}");
            }
            Self::OtherContainers { names } => {
                return write!(f, "{JOB_RUNS}: the command has ended, container {names} has not");
            }
            Self::JobFailing { why } => return write!(f, "the Job has failed, its pods are ending: {why}"),
            Self::JobPodsUnread { why } => {
                return write!(f, "the Job has failed, reading what its pods say: {why}");
            }
            Self::JobDeleted => "the Job is being deleted",
            Self::JobPodsEnd => "the Job was deleted, its pods are ending",
            Self::UpgradeLeftToEnd => "the NodeOp was deleted; the upgrade under way is left to end",
            Self::JobStopped => "the NodeOp was deleted; its Job is being deleted",
            Self::JobPodLags => "the Job is complete, its pod is about to be seen so",
            Self::BootBeforeReboot => "Job completed, reading the node's boot id before it reboots",
            Self::Reboot => "Job completed, the node reboots",
            Self::RebootHeldBack(why) => {
                return write!(
                    f,
                    "Job completed, the reboot waits: {why}; if that is gone for good, delete its Node; deleting the NodeOp gives this node back without a reboot"
                );
            }
            Self::RebootWaiterLost(why) => {
                return write!(f, "Job completed, the reboot is due; its waiter was lost: {why}");
            }
            Self::BootUnconfirmed => "the node rebooted; reading its boot id once more",
            Self::RebootedNotReady => "the node rebooted, and is not Ready yet",
            Self::RebootedReadyUntil(at) => {
                return write!(f, "the node rebooted, and must be Ready until {at:.0} (minReadySeconds)");
            }
            Self::Facts { obstacle: None } => "the node rebooted; reading what it runs",
            Self::Facts { obstacle: Some(obstacle) } => {
                return write!(f, "the node rebooted; reading what it runs; {obstacle}");
            }
        };
        f.write_str(text)
    }
}

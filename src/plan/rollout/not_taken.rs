//! Why a node that an operation has still to take is not taken now: as a type, which is decided on and
//! counted; and as a sentence, which people read in the node's message.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        names,
        node_status::{NodeReason, SKIPPED},
    },
    contract::UpToDate,
    plan::{
        model::{
            id::{Key, OpRef},
            manual::Section,
            snapshot::brief,
            why::{WaitReason, Why},
        },
        node::waiting::Precedes,
        quorum::Unwell,
        rollout::out_of_service::OutOfService,
    },
};

/// Why a node is not taken now.
#[derive(Clone, Debug, PartialEq)]
pub enum NotTaken {
    /// Nothing at all is started.
    Closed(Closed),
    /// It is being deleted.
    NodeDeleting,
    /// It is not in the cluster, and others still are to be waited for: until then it may be back.
    NodeGone,
    /// It is not in the cache; a live read decides.
    NodeUnconfirmed,
    NodeNotReady,
    /// Somebody holds it by a label.
    OnHold,
    /// This operation has had it already.
    GivenBack,
    /// Another NodeOp comes first.
    Other {
        op: Key,
        why: Precedes,
    },
    /// Another NodeOpUpgrade, which was created later, comes first.
    Newer {
        upgrade: Key,
    },
    /// What the image is here another node tells otherwise; this says how.
    Disputed(String),
    /// That the node was tried, and with what, is written down before it is said that it failed.
    Unrecorded,
    /// All slots are taken.
    Turn,
    /// Nodes are taken in order, and a control-plane node before it is not taken yet. Thousands of entries
    /// say so, and none of them which: what that one waits for stands in its own entry, and in the NodeOp's
    /// message.
    TurnAfterControlPlane,
    /// Nodes that failed hold all slots. Nor does this one say which, and what to do about the first: that
    /// changes each time that its kubelet is away for a moment.
    SlotsHeld,
    /// This control-plane node failed, and is one that is away.
    OutOfService(OutOfService),
    /// This control-plane node is worked on, by the same operation.
    ControlPlane(String),
    /// Whether the other control-plane nodes are well is being read.
    QuorumUnread,
    Quorum(Unwell),
    /// The finalizer is set first.
    Preparing,
    /// Whether the API server admits the pods is being asked.
    AdmissionUnread,
    /// The API server does not admit the pods at this moment.
    NotAdmitted {
        message: String,
    },
    /// The API server refuses the pods.
    Refused(Refused),
}

/// Why an operation starts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    Deleting,
    Stopped(Stopped),
    Paused,
}

/// What ends a rollout before all its nodes were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// This node failed, under `stopOnFailure`.
    NodeFailed(String),
    /// What this node runs is not proved, under `stopOnFailure`.
    NodeNotProved(String),
    /// The NodeOpUpgrade of this name asks for another run, or has its further nodes taken by another NodeOp.
    Superseded { upgrade: String },
    /// `spec.notAfter`, which has passed.
    Expired(Timestamp),
}

/// Why an operation cannot go on at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The API server refuses what it needs.
    NotAdmitted { untouched: bool, message: String },
    /// An older operator left it without a status, long ago.
    LeftUnfinished,
}

/// How a node ends that was never taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// Its preflight says that nothing is to be done; this is the message of its command.
    NotNeeded(String),
    /// Our own check has found it at the image's release.
    UpToDate(UpToDate),
    Deleted,
    NotReadyFor(SignedDuration),
    /// A NodeOpUpgrade that was created later decides what the node runs.
    Newer {
        upgrade: Key,
    },
    /// This run of the upgrade has had its attempt.
    Attempted,
    /// It tells no boot, and what is to be done needs one.
    Bootless,
    /// The upgrade's selector does not match it any more.
    NotSelected,
    /// A later round of the upgrade takes it, once it is let go.
    OnHold,
    /// A later round of the upgrade takes it, once it is Ready.
    Away(SignedDuration),
}

/// Bytes of a release. A node's check says no longer one (200 characters).
const MAX_RELEASE: usize = 800;

impl Untouched {
    /// The release that the image brings, if the node was found to run it and says it in earnest.
    pub fn release(&self) -> Option<String> {
        let Self::UpToDate(UpToDate { up_to_date_at: release }) = self else { return None };
        (release.len() <= MAX_RELEASE && !release.contains(char::is_control)).then(|| release.clone())
    }

    /// Why the node needed nothing. Nothing, if it has failed: whoever set a limit for nodes that are not
    /// Ready wants to know.
    pub fn reason(&self) -> Option<NodeReason> {
        match self {
            Self::NotReadyFor(_) | Self::Bootless => None,
            Self::UpToDate(_) => Some(NodeReason::UpToDate),
            Self::NotNeeded(_)
            | Self::Deleted
            | Self::Newer { .. }
            | Self::Attempted
            | Self::NotSelected
            | Self::OnHold
            | Self::Away(_) => Some(NodeReason::Skipped),
        }
    }
}

impl NotTaken {
    /// A NodeOp, perhaps this one, has claimed the node.
    pub fn claimed(me: &OpRef, holder: &OpRef) -> Self {
        if holder == me {
            Self::GivenBack
        } else {
            Self::Other { op: holder.key(), why: Precedes::HasClaimed }
        }
    }

    /// As what it is counted.
    pub fn reason(&self) -> WaitReason {
        match self {
            Self::Closed(Closed::Deleting) => WaitReason::Deleting,
            Self::Closed(Closed::Stopped(Stopped::Superseded { .. })) => WaitReason::Superseded,
            Self::Closed(Closed::Stopped(Stopped::Expired(_))) => WaitReason::Expired,
            Self::Closed(Closed::Stopped(_)) | Self::Refused(_) => WaitReason::Stopped,
            Self::Closed(Closed::Paused) => WaitReason::Paused,
            Self::NodeDeleting | Self::NodeGone | Self::NodeUnconfirmed => WaitReason::NodeAway,
            Self::NodeNotReady => WaitReason::NotReady,
            Self::OnHold => WaitReason::OnHold,
            Self::GivenBack => WaitReason::Release,
            Self::QuorumUnread | Self::Quorum(_) => WaitReason::Quorum,
            Self::Other { .. } | Self::Newer { .. } => WaitReason::Rival,
            Self::Disputed(_) | Self::Unrecorded => WaitReason::Preflight,
            // One control-plane node after the other is the order, and nothing is wrong then.
            Self::Turn | Self::TurnAfterControlPlane | Self::ControlPlane(_) => WaitReason::Turn,
            Self::SlotsHeld | Self::OutOfService(_) => WaitReason::OutOfService,
            Self::Preparing | Self::AdmissionUnread | Self::NotAdmitted { .. } => WaitReason::Admission,
        }
    }
}

impl From<NotTaken> for Why {
    fn from(not_taken: NotTaken) -> Self {
        Self::new(not_taken.reason(), &not_taken)
    }
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Closed(why) => return why.fmt(f),
            Self::NodeDeleting => "the node is being deleted",
            Self::NodeGone => {
                "waiting: the Node object is gone; the node is skipped unless it is back before the others are done"
            }
            Self::NodeUnconfirmed => "checking whether the node still exists",
            Self::NodeNotReady => "waiting: the node is not Ready",
            Self::OnHold => return write!(f, "waiting: held by the label {} on the node", names::HOLD),
            Self::GivenBack => "waiting: the node is being given back",
            Self::Other { op, why } => return f.write_str(&why.waits_for(op)),
            Self::Newer { upgrade: (namespace, name) } => {
                return write!(f, "waiting: NodeOpUpgrade {namespace}/{name}, which is newer, has this node");
            }
            Self::Disputed(why) => {
                return write!(
                    f,
                    "waiting: {why}; what a second node tells decides, or the first one that is taken"
                );
            }
            Self::Unrecorded => "recording on the node that it was tried",
            Self::Turn => "waiting for its turn",
            Self::TurnAfterControlPlane => "waiting for its turn, after a control-plane node",
            Self::SlotsHeld => "waiting: nodes out of service hold every slot",
            Self::OutOfService(why) => return write!(f, "waiting: {why}"),
            Self::ControlPlane(node) => {
                return write!(
                    f,
                    "waiting for its turn: control-plane nodes go one at a time, and {node} is in progress"
                );
            }
            Self::QuorumUnread => "checking that the other control-plane nodes are well",
            Self::Quorum(why) => return write!(f, "waiting: {why}"),
            Self::Preparing => "preparing",
            Self::AdmissionUnread => "checking that the API server admits the pods",
            Self::NotAdmitted { message } => {
                return write!(f, "the API server does not admit what the operation needs yet: {message}");
            }
            Self::Refused(why) => return why.fmt(f),
        };
        f.write_str(text)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleting => f.write_str("not started: the NodeOp is being deleted"),
            Self::Stopped(why) => write!(f, "not started: {why}"),
            Self::Paused => f.write_str("waiting: paused (spec.paused)"),
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeFailed(node) => write!(f, "node {node} failed (stopOnFailure)"),
            Self::NodeNotProved(node) => write!(f, "what node {node} runs is not proved (stopOnFailure)"),
            Self::Expired(at) => write!(f, "its time was over at {at:.0} (notAfter)"),
            Self::Superseded { upgrade } => {
                write!(f, "superseded, NodeOpUpgrade {upgrade} goes on with another NodeOp")
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdmitted { untouched, message } => {
                let touched = if *untouched { "no node was touched" } else { "no further node is taken" };
                let section = Section::NotAdmitted;
                write!(f, "the API server refuses what the operation needs, {touched}: {message}{section}")
            }
            Self::LeftUnfinished => f.write_str(
                "was left unfinished by an older operator; create it again (see metadata.generateName)",
            ),
        }
    }
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded(said) => write!(f, "{SKIPPED} by preflight: {}", brief(said)),
            Self::UpToDate(found) => write!(f, "{SKIPPED} by preflight: {}", brief(&found.to_string())),
            Self::Deleted => write!(f, "{SKIPPED}: the node was deleted before its turn"),
            Self::Newer { upgrade: (namespace, name) } => write!(
                f,
                "{SKIPPED}: NodeOpUpgrade {namespace}/{name}, which is newer, decides what this node runs"
            ),
            Self::Attempted => write!(f, "{SKIPPED}: this run has had its attempt at the node"),
            Self::Bootless => f.write_str(
                "the node's kubelet reports no boot id, by which alone a reboot is proved: is it a virtual kubelet? Leave it out of nodeSelector",
            ),
            Self::NotSelected => write!(f, "{SKIPPED}: nodeSelector does not match the node any more"),
            Self::OnHold => {
                write!(f, "{SKIPPED}: held by the label {}; a later round takes it", names::HOLD)
            }
            Self::Away(limit) => write!(
                f,
                "{SKIPPED}: the node was not Ready for {} s; a later round takes it when it is",
                limit.as_secs()
            ),
            Self::NotReadyFor(limit) => write!(
                f,
                "the node was not Ready for {} s (notReadyTimeoutSeconds), the operation was not started{}",
                limit.as_secs(),
                Section::NotReady,
            ),
        }
    }
}

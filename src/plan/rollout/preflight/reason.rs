//! Why a preflight has not come to a verdict, why it is asked again, and why it fails its node: as types, and
//! as the sentences that people read.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::node_status::NodeReason,
    plan::{
        model::{
            id::Key,
            manual::Section,
            why::{WaitReason, Why},
        },
        rollout::not_taken::NotTaken,
    },
};

/// Why the verdict is not there yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Asking {
    Runs,
    /// It has failed, and the kubelet runs it again.
    RunsAgain {
        last: String,
    },
    /// The pod's status says so, or an Event about it.
    NotStarted {
        why: String,
    },
    /// Nothing keeps it.
    Starts {
        told: String,
    },
    /// The message stands as it was recorded.
    AsTold(String),
    /// It is recorded on the word of a live read.
    Confirming,
}

/// Why a preflight says nothing about its node, so that it is asked again from the beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Interrupted {
    NodeNotReady,
    /// Somebody else has to do with the node.
    NotTaken(NotTaken),
}

/// Why a preflight's pod came to nothing. Another one follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The kubelet says why.
    Said(String),
    /// The kubelet had no room for it, and says of what.
    NoRoom(String),
    Deleted,
    Silent,
    /// Its node was rebooted.
    Rebooted,
    /// It looked at another boot than the one that the node reports.
    OtherBoot,
    /// Somebody else's pod has the name.
    NameTaken(Key),
}

/// Why a preflight fails its node, which is untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreflightFailure {
    /// The command's own end.
    Ended(String),
    /// The image's name stands for another content, or brings another release, than on the nodes before.
    OtherContent(String),
    RanFor(SignedDuration),
    /// It was run again and again.
    NeverSucceeded {
        limit: SignedDuration,
        last: String,
    },
    /// Waiting does not help.
    CannotStart(String),
    NotStartedIn {
        limit: SignedDuration,
        why: String,
    },
    NoneEndedIn {
        limit: SignedDuration,
        last: Lost,
    },
}

impl PreflightFailure {
    /// Whether another operation on the node may change it.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::CannotStart(_) | Self::OtherContent(_) => false,
            Self::Ended(_)
            | Self::RanFor(_)
            | Self::NeverSucceeded { .. }
            | Self::NotStartedIn { .. }
            | Self::NoneEndedIn { .. } => true,
        }
    }

    /// Whether the preflight could not run: whatever that hindered may pass, and nothing is known of node and
    /// image.
    pub fn reason(&self) -> Option<NodeReason> {
        match self {
            Self::NotStartedIn { .. } | Self::NoneEndedIn { .. } => Some(NodeReason::PreflightNotRun),
            Self::Ended(_)
            | Self::OtherContent(_)
            | Self::RanFor(_)
            | Self::NeverSucceeded { .. }
            | Self::CannotStart(_) => None,
        }
    }
}

/// What is said of a pod that is made again.
pub fn tried_again(why: &Lost, at: Timestamp) -> String {
    format!("Preflight is to be tried again: {why}; the next try is made at {at:.0}")
}

/// What is said of a node on which there is no room to look for the image, unless it is drained.
pub fn not_looked(why: &str) -> String {
    format!("not looked at before its drain, which makes the room: {why}")
}

/// Whatever it is that takes time, it is the preflight that is waited for.
impl From<Asking> for Why {
    fn from(asking: Asking) -> Self {
        Self::new(WaitReason::Preflight, &asking)
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("Preflight in progress"),
            Self::RunsAgain { last } => write!(f, "Preflight is run again: it ended with {last}"),
            Self::NotStarted { why } => write!(f, "Preflight cannot start yet: {why}"),
            Self::Starts { told } => write!(f, "Preflight has not started yet: {told}"),
            Self::AsTold(message) => f.write_str(message),
            Self::Confirming => {
                f.write_str("Preflight ended; checking that it is still the same node, and nobody else's")
            }
        }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeNotReady => f.write_str("Preflight interrupted: the node is not Ready"),
            Self::NotTaken(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(why) => f.write_str(why),
            Self::NoRoom(why) => write!(f, "{why}; make room for this pod on the node"),
            Self::Deleted => f.write_str("it was deleted"),
            Self::Silent => f.write_str("it ended, and does not say why"),
            Self::Rebooted => f.write_str("the node was rebooted"),
            Self::OtherBoot => f.write_str("it looked at another boot than the one that the node reports"),
            Self::NameTaken((namespace, name)) => {
                write!(f, "the name of pod {namespace}/{name} is taken by somebody else's")
            }
        }
    }
}

impl fmt::Display for PreflightFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preflight failed: ")?;
        match self {
            Self::Ended(why) | Self::OtherContent(why) | Self::CannotStart(why) => f.write_str(why)?,
            Self::RanFor(limit) => {
                write!(f, "DeadlineExceeded, it ran for more than {} s", limit.as_secs())?;
            }
            Self::NeverSucceeded { limit, last } => {
                write!(f, "no try succeeded in {} s, the last one ended with {last}", limit.as_secs())?;
            }
            Self::NotStartedIn { limit, why } => write!(f, "no start in {} s: {why}", limit.as_secs())?,
            Self::NoneEndedIn { limit, last } => {
                write!(f, "no try came to its end in {} s, the last one because: {last}", limit.as_secs())?;
            }
        }
        let section = match self {
            Self::OtherContent(_) => Section::OtherContent,
            Self::Ended(_)
            | Self::CannotStart(_)
            | Self::RanFor(_)
            | Self::NeverSucceeded { .. }
            | Self::NotStartedIn { .. }
            | Self::NoneEndedIn { .. } => Section::PreflightFailed,
        };
        section.fmt(f)
    }
}

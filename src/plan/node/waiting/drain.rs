//! Where a drain stands that goes on: as a type, and as the sentence in the node's message.

use std::fmt;

use crate::plan::model::why::WaitReason;

/// How many pods are named in a message at most.
const MAX_NAMES: usize = 10;

/// What a drain waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Draining {
    /// Before the first list of the node's pods, or if what is known of them may be old; and why no list
    /// comes in, if that has gone on for a while.
    Listing(Option<String>),
    Pods(PodsToGo),
    /// Whether volumes are attached still is being read.
    VolumesUnknown,
    /// The pods are gone, and these volumes are attached still.
    Volumes(Vec<String>),
    /// Our own pod is the last one, and is ending.
    OperatorEnds,
    /// Whether another replica can go on is being read.
    OtherReplicaUnknown,
    OtherReplicaStarts,
    /// Our own pod is being evicted, unless something blocks that.
    OperatorMoves {
        blocked: Option<String>,
    },
}

/// The pods that have to go, each with what there is to say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodsToGo {
    pub count: usize,
    /// Their evictions are refused.
    pub blocked: Vec<String>,
    /// They are ending.
    pub ending: Vec<String>,
    /// The node does not confirm the end of those, because it is not Ready.
    pub unconfirmed: bool,
    pub evicted: Vec<String>,
    /// They stay, as the options say.
    pub left: Vec<String>,
    /// Why the node's pods are not seen any more, if that has gone on for a while: all this may be old.
    pub stale: Option<String>,
}

impl Draining {
    /// As what it is counted.
    pub fn reason(&self) -> WaitReason {
        match self {
            Self::Pods(pods) if !pods.blocked.is_empty() => WaitReason::Budget,
            Self::OperatorMoves { blocked: Some(_) } => WaitReason::Budget,
            Self::VolumesUnknown | Self::Volumes(_) => WaitReason::Volumes,
            Self::Listing(_)
            | Self::Pods(_)
            | Self::OperatorEnds
            | Self::OtherReplicaUnknown
            | Self::OtherReplicaStarts
            | Self::OperatorMoves { blocked: None } => WaitReason::Drain,
        }
    }
}

impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Listing(None) => "draining: listing the node's pods",
            Self::Listing(Some(why)) => {
                return write!(f, "draining: the node's pods cannot be listed: {why}");
            }
            Self::Pods(pods) => return pods.fmt(f),
            Self::VolumesUnknown => "draining: looking for attached volumes",
            Self::Volumes(attached) => {
                return write!(
                    f,
                    "draining: the pods are gone, waiting for their volumes to be detached: {}",
                    list(attached)
                );
            }
            Self::OperatorEnds => "draining: the operator itself is about to move",
            Self::OtherReplicaUnknown => "draining: looking for another replica of the operator",
            Self::OtherReplicaStarts => {
                "draining: another replica of the operator is starting, then this one moves"
            }
            Self::OperatorMoves { blocked: None } => "draining: the operator itself moves to another node",
            Self::OperatorMoves { blocked: Some(why) } => why,
        };
        f.write_str(text)
    }
}

/// What blocks the drain, what ends and how long that may take, and what else has to go.
impl fmt::Display for PodsToGo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, blocked, ending, unconfirmed, evicted, left, stale } = self;
        let pods = if *count == 1 { "1 pod to go".to_owned() } else { format!("{count} pods to go") };
        let mut parts = Vec::new();
        if !blocked.is_empty() {
            parts.push(format!("{} blocked: {}", blocked.len(), list(blocked)));
        }
        if !ending.is_empty() {
            let unconfirmed =
                if *unconfirmed { ", while the node is not Ready and does not confirm it" } else { "" };
            parts.push(format!("ending{unconfirmed}: {}", list(ending)));
        }
        if blocked.is_empty() && !evicted.is_empty() {
            parts.push(format!("being evicted: {}", list(evicted)));
        }
        if !left.is_empty() {
            parts.push(format!("left where they are: {}", list(left)));
        }
        if let Some(why) = stale {
            parts.push(format!("the node's pods cannot be listed: {why}"));
        }
        write!(f, "draining: {pods}; {}", parts.join("; "))
    }
}

/// The first of these, and how many more there are.
pub fn list(items: &[String]) -> String {
    let more = items.len().saturating_sub(MAX_NAMES);
    let shown = items.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

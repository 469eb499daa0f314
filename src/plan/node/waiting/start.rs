//! What keeps a pod of an operation from its work, or from its end.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

/// Why a waiter does not stand yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Starting {
    /// It was just made, or has not said anything yet.
    Starts,
    /// Its pod's status says why, or an Event about it.
    HeldUp {
        why: String,
    },
    /// Some were lost, and the next one is made then, if there is to be one.
    Pause {
        lost: i32,
        last: Option<String>,
        until: Option<Timestamp>,
    },
    OldOneDeleted,
    /// It reads another boot id than the node's kubelet has told.
    OtherBoot,
    /// The kubelet refused it, and the drain makes room.
    NoRoomYet {
        why: String,
    },
}

impl Starting {
    /// What it says where no further waiter is made.
    pub fn in_the_end(self) -> Self {
        match self {
            Self::Pause { lost, last, until: _ } => Self::Pause { lost, last, until: None },
            other => other,
        }
    }
}

impl fmt::Display for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starts => f.write_str("it starts"),
            Self::HeldUp { why } => f.write_str(why),
            Self::Pause { lost, last, until } => {
                write!(f, "{lost} {} lost", if *lost == 1 { "was" } else { "were" })?;
                if let Some(why) = last {
                    write!(f, ", the last one because {why}")?;
                }
                match until {
                    Some(until) => write!(f, "; the next one is made at {until:.0}"),
                    None => Ok(()),
                }
            }
            Self::OldOneDeleted => f.write_str("the old one is being deleted"),
            Self::OtherBoot => f.write_str("it reads another boot id than the node's kubelet has told"),
            Self::NoRoomYet { why } => {
                write!(f, "the node has no room for it before the drain is over: {why}")
            }
        }
    }
}

/// Why no container of the operation has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// The pod's status says so, or an Event about it.
    Pod(String),
    /// The pod waits for the node's lock.
    Locked,
    /// There is no pod, and the API server would refuse one.
    Refused(String),
    /// There is no pod, and the API server does not answer whether it would refuse one.
    Unanswered(String),
    /// There is no pod, and the Job's controller says in an Event what it was told when it tried to make one.
    NotMade(String),
    /// There is no pod, and nothing forbids one: the Job's controller is away.
    ControllerAway,
}

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(message) => f.write_str(message),
            Self::Locked => {
                f.write_str("another operation, or an earlier try of this one, still holds the node's lock")
            }
            Self::Refused(message) => {
                write!(f, "the Job controller has made no pod; the API server refuses {message}")
            }
            Self::Unanswered(error) => write!(f, "the Job controller has made no pod; {error}"),
            Self::NotMade(message) => write!(f, "the Job controller can make no pod: {message}"),
            Self::ControllerAway => f.write_str("the Job controller has made no pod"),
        }
    }
}

/// What may still act on a node that is given up, or whose end is not proved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    JobUnconfirmed,
    JobDeleted,
    JobPodsEnd,
    WaiterUnconfirmed,
    WaiterEnds,
    RebootMayCome,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JobUnconfirmed => "checking whether its Job still exists",
            Self::JobDeleted => "its Job is being deleted",
            Self::JobPodsEnd => "the pods of its Job are ending",
            Self::WaiterUnconfirmed => "checking whether its reboot waiter still exists",
            Self::WaiterEnds => "its reboot waiter is being ended",
            Self::RebootMayCome => "its reboot waiter is gone, and may have begun the reboot before",
        })
    }
}

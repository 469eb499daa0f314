//! Why a node fails: as a type, and as the sentence that stands in its final message. It says what happened,
//! and where the cause is not in it, what to do next.

mod job;
mod lost;

use std::fmt;

pub use self::{
    job::{JobEnd, UNRECORDED},
    lost::Lost,
};
use crate::plan::{
    model::manual::Section,
    node::{
        state::Touched,
        waiting::{Draining, NotBegun, Starting},
    },
};

/// Why an operation is given up on a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The NodeOp was deleted before anything of it began here.
    DeletedBeforeStart,
    DeletedWhileRunning,
    /// … and an upgrade had written its image by then.
    DeletedBeforeReboot {
        upgraded: bool,
    },
    /// Somebody changed the claim's annotation to that of this NodeOp.
    TakenOver {
        by: String,
    },

    DrainRefused {
        pods: String,
        /// The drain began under this leader, which has evicted nothing.
        untouched: bool,
    },
    DrainTimedOut {
        drain: Draining,
        waiter: Option<Starting>,
    },
    WaiterCannotStart {
        why: String,
    },
    WaiterLate {
        seconds: i64,
        why: Starting,
    },
    WaiterLost {
        times: i32,
        why: String,
    },
    /// Its waiter and its kubelet read different boot ids.
    OtherBoot,

    /// Somebody took this out of the status.
    Tampered {
        missing: &'static str,
    },
    ForeignJob {
        namespace: String,
        name: String,
    },
    /// It could not be made, or not be resumed.
    JobNotStarted {
        seconds: i64,
        error: String,
    },
    JobCannotStart {
        why: String,
        pod: NextPod,
    },
    JobLate {
        seconds: i64,
        why: NotBegun,
        pod: NextPod,
    },
    JobFailed {
        why: String,
        end: JobEnd,
    },
    JobVanished,
    /// It ran another content than the first node of the architecture.
    OtherContent {
        why: String,
    },
    /// The Job's record names another release than the image has.
    OtherTarget {
        known: String,
        said: String,
    },

    RebootTimeout {
        seconds: i64,
        stands: RebootTimeout,
    },
    /// The node started anew when it was asked to reboot, and its boot id did not change.
    BootIdStays,
    /// The Go operator's reboot pod was over before we came.
    RebootNotProved,
}

/// Which pod of a Job does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPod {
    /// Nothing of the operation has begun.
    First,
    /// The operation may have begun in an earlier one.
    Further,
}

/// What is to be done about a node on which only a further try of the operation did not begin.
const TRIED: &str = "An earlier one may have run the operation: look at the node";

/// Where a node stands whose time for the reboot is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebootTimeout {
    Away,
    SameBoot,
    /// It is Ready in the boot to be left, and nothing is there that could reboot it.
    NoWaiter {
        why: String,
    },
    /// It is Ready in the boot to be left, and its Job was deleted before the waiter knew of its success.
    JobDeleted,
    /// It is Ready, and the record of the boot to be left is gone.
    Unknown,
}

impl Failure {
    /// Where the manual explains it.
    pub fn section(&self) -> Section {
        match self {
            Self::DeletedBeforeStart | Self::DeletedWhileRunning | Self::DeletedBeforeReboot { .. } => {
                Section::Deleted
            }
            Self::TakenOver { .. } | Self::Tampered { .. } | Self::ForeignJob { .. } => Section::Changed,
            Self::DrainRefused { .. } => Section::DrainRefused,
            Self::DrainTimedOut { .. } => Section::DrainTimedOut,
            Self::WaiterCannotStart { .. }
            | Self::WaiterLate { .. }
            | Self::WaiterLost { .. }
            | Self::OtherBoot => Section::WaiterDidNotStart,
            Self::JobCannotStart { pod: NextPod::Further, .. }
            | Self::JobLate { pod: NextPod::Further, .. } => Section::JobFailed,
            Self::JobNotStarted { .. } | Self::JobCannotStart { .. } | Self::JobLate { .. } => {
                Section::JobDidNotStart
            }
            Self::JobFailed { end, .. } => end.section(),
            Self::JobVanished => Section::JobVanished,
            Self::OtherContent { .. } | Self::OtherTarget { .. } => Section::OtherContent,
            Self::RebootTimeout { .. } | Self::BootIdStays | Self::RebootNotProved => Section::RebootTimeout,
        }
    }

    /// Whether the operation has begun on the node, as far as the reason tells.
    pub fn touched(&self) -> Touched {
        match self {
            Self::OtherBoot
            | Self::JobCannotStart { pod: NextPod::First, .. }
            | Self::JobLate { pod: NextPod::First, .. } => Touched::No,
            // Nobody knows what a Job came to that somebody deleted, nor whether a node has rebooted whose
            // boot id stays.
            Self::JobVanished
            | Self::BootIdStays
            | Self::JobCannotStart { pod: NextPod::Further, .. }
            | Self::JobLate { pod: NextPod::Further, .. } => Touched::Perhaps,
            Self::DeletedBeforeStart
            | Self::DeletedWhileRunning
            | Self::DeletedBeforeReboot { .. }
            | Self::TakenOver { .. }
            | Self::DrainRefused { .. }
            | Self::DrainTimedOut { .. }
            | Self::WaiterCannotStart { .. }
            | Self::WaiterLate { .. }
            | Self::WaiterLost { .. }
            | Self::Tampered { .. }
            | Self::ForeignJob { .. }
            | Self::JobNotStarted { .. }
            | Self::JobFailed { .. }
            | Self::OtherContent { .. }
            | Self::OtherTarget { .. }
            | Self::RebootTimeout { .. }
            | Self::RebootNotProved => Touched::NotTheReason,
        }
    }

    /// What happened.
    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::DeletedBeforeStart => "the NodeOp was deleted before the operation started",
            Self::DeletedWhileRunning => {
                "the NodeOp was deleted while the operation ran; its Job was stopped"
            }
            Self::DeletedBeforeReboot { upgraded: false } => "the NodeOp was deleted before the reboot",
            Self::DeletedBeforeReboot { upgraded: true } => {
                "the NodeOp was deleted before the reboot; the node boots the image that its upgrade wrote next"
            }
            Self::TakenOver { by } => {
                return write!(f, "the node was taken over by NodeOp {by}: its claim annotation was changed");
            }
            Self::DrainRefused { pods, untouched: true } => {
                return write!(f, "drain refused, no pod was evicted: {pods}");
            }
            Self::DrainRefused { pods, untouched: false } => {
                return write!(f, "drain refused, after another leader may have evicted pods: {pods}");
            }
            Self::DrainTimedOut { drain, waiter } => {
                write!(f, "drain timed out, the operation was not started: {drain}")?;
                return match waiter {
                    Some(waiter) => write!(f, "; the reboot waiter: {waiter}"),
                    None => Ok(()),
                };
            }
            Self::WaiterCannotStart { why } => return write!(f, "the reboot waiter cannot start: {why}"),
            Self::WaiterLate { seconds, why } => {
                return write!(f, "the reboot waiter did not get ready in {seconds} s: {why}");
            }
            Self::WaiterLost { times, why } => {
                return write!(
                    f,
                    "the reboot waiter was lost {times} times, the operation was not started; the last time because {why}"
                );
            }
            Self::OtherBoot => {
                "the operation was not started: the node's kubelet and its pods read different boot ids, so that no reboot could be proved. Is the node a container (LXC, systemd-nspawn)?"
            }
            Self::Tampered { missing } => {
                return write!(
                    f,
                    "the status of this node was changed by somebody else, and has no {missing} any more. Look at the node, then create the NodeOp again"
                );
            }
            Self::ForeignJob { namespace, name } => {
                return write!(
                    f,
                    "a Job {namespace}/{name} exists that is not ours; delete it and create the NodeOp again"
                );
            }
            Self::JobNotStarted { seconds, error } => {
                return write!(f, "the operation was not started in {seconds} s: {error}");
            }
            Self::JobCannotStart { why, pod: NextPod::First } => {
                return write!(f, "the Job's pod cannot start: {why}");
            }
            Self::JobCannotStart { why, pod: NextPod::Further } => {
                return write!(f, "no further pod of the Job can start: {why}. {TRIED}");
            }
            Self::JobLate { seconds, why, pod: NextPod::First } => {
                return write!(f, "the Job's pod could not start in {seconds} s: {why}");
            }
            Self::JobLate { seconds, why, pod: NextPod::Further } => {
                return write!(f, "no further pod of the Job could start in {seconds} s: {why}. {TRIED}");
            }
            Self::JobFailed { why, end } => return write!(f, "Job failed ({why}){end}"),
            Self::JobVanished => {
                "Job not found: it was deleted before its outcome was known. Look at the node, then create the NodeOp again"
            }
            Self::OtherContent { why } => {
                return write!(f, "the Job was stopped, or its result is not taken: {why}");
            }
            Self::OtherTarget { known, said } => {
                return write!(
                    f,
                    "the Job says that it installed {said}, and the image brings {known}: its word is not taken. Look at the node"
                );
            }
            Self::RebootTimeout { seconds, stands } => {
                return write!(
                    f,
                    "RebootTimeout: the operation succeeded, but {seconds} s later the node {stands}. {}",
                    stands.advice()
                );
            }
            Self::BootIdStays => {
                "the node started anew when it was asked to reboot, and its boot id is what it was, by which alone a reboot is proved. Is the node a container (kind, k3d)? Look at it; it was not asked again"
            }
            Self::RebootNotProved => {
                "the Job of an older operator completed, and its reboot was over or lost before this operator came: that the \
                 node rebooted is not proved. Look at the node; if it is well and still cordoned, kubectl uncordon it"
            }
        };
        f.write_str(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence(f)?;
        self.section().fmt(f)
    }
}

impl RebootTimeout {
    /// What to do. What has succeeded is not to be done again: an upgrade has written an image that the node
    /// has still to boot, and is refused before that.
    fn advice(&self) -> &'static str {
        match self {
            Self::Away => "Look at its console; when it is back and well, kubectl uncordon it",
            Self::SameBoot | Self::NoWaiter { .. } | Self::JobDeleted => {
                "Reboot it yourself and, when it is back and well, kubectl uncordon it; the operation need not be created again"
            }
            Self::Unknown => "Look at what it runs: reboot it if that is the old, and kubectl uncordon it",
        }
    }
}

impl fmt::Display for RebootTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "went away and has not come back",
            Self::SameBoot => "is still in the boot in which the operation succeeded",
            Self::NoWaiter { why } => {
                return write!(
                    f,
                    "is still in the boot in which the operation succeeded, and no reboot waiter stands there: {why}"
                );
            }
            Self::JobDeleted => {
                "is still in the boot in which the operation succeeded: its Job was deleted before its reboot waiter saw that it had completed"
            }
            Self::Unknown => {
                "is Ready, and whether it rebooted is not known: the record of the boot in which the operation succeeded is gone"
            }
        })
    }
}

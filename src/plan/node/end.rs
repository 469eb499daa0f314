//! How the operation ended on a node on which its Job has succeeded: as a type, which decides what is
//! recorded; and as the sentence that stands in the node's final message.

use std::fmt;

use crate::{
    api::{node_status::NodeReason, nodeop::RebootStatus},
    contract::{RecoveryProof, UpToDate},
    plan::model::{manual::Section, snapshot::brief},
};

/// How the operation ended. What an upgrade brought is proved, or not; of anything else nothing has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// No reboot was asked for; the operation said this last.
    Ran(Option<String>),
    /// No reboot followed, since nothing was changed that asks for one; the operation said this last.
    NothingChanged(Option<String>),
    /// It succeeded beside containers of somebody else.
    Beside(Beside),
    /// No reboot followed, and the node was found to run what the upgrade would have brought.
    UpToDate(UpToDate),
    /// No reboot followed, and the node's own record says that its recovery image was written.
    Recovered(RecoveryProof),
    /// It has rebooted, and nothing was to be proved.
    Rebooted,
    /// It was upgraded, has rebooted, and says what it runs, or does not.
    Verified(Proof),
    /// It has rebooted, and was not Ready in this time after the operation's success.
    NotReady { seconds: i64 },
    /// It has rebooted, was Ready, and did not stay so for this time.
    NotReadyAnyMore { seconds: i64 },
}

/// Containers that are not ours kept the Job from completing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// A reboot was asked for, and none was needed.
    pub reboot_asked: bool,
    /// What the operation said last.
    pub said: Option<String>,
    /// Their names.
    pub others: String,
    /// They have failed; else they still run, and are ended.
    pub failed: bool,
}

/// What an upgraded node proves by what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It runs this release.
    Proved(String),
    Refuted(Refuted),
    Unknown(Unknown),
}

/// What tells that a node does not run what its upgrade brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refuted {
    /// It has booted something else than its active image, and runs `runs`. `wanted`: what the image brings.
    Elsewhere {
        booted: Booted,
        runs: String,
        wanted: String,
    },
    OtherRelease {
        runs: String,
        target: String,
    },
}

/// What a node has booted, other than its active image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Booted {
    /// Another image of it, which is named like its boot state. `not_tried`: why GRUB may not have tried the
    /// active one.
    Image {
        state: String,
        not_tried: Option<String>,
    },
    Reset,
    Memory,
}

/// Why nobody can tell what an upgraded node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It ran the same release before, and does not say which image it has booted.
    SameRelease(String),
    /// Its release, or that of the image, is not known.
    NoRelease { runs: Option<String> },
    /// It said nothing in this time, for this reason.
    Unread { seconds: i64, obstacle: Option<String> },
}

impl End {
    pub fn succeeded(&self) -> bool {
        match self {
            Self::NotReady { .. } | Self::NotReadyAnyMore { .. } | Self::Verified(Proof::Refuted(_)) => false,
            Self::Ran(_)
            | Self::NothingChanged(_)
            | Self::Beside(_)
            | Self::UpToDate(_)
            | Self::Recovered(_)
            | Self::Rebooted
            | Self::Verified(Proof::Proved(_) | Proof::Unknown(_)) => true,
        }
    }

    pub fn reboot(&self) -> RebootStatus {
        match self {
            Self::Ran(_)
            | Self::NothingChanged(_)
            | Self::Beside(_)
            | Self::UpToDate(_)
            | Self::Recovered(_) => RebootStatus::NotRequested,
            Self::Rebooted | Self::Verified(_) | Self::NotReady { .. } | Self::NotReadyAnyMore { .. } => {
                RebootStatus::Completed
            }
        }
    }

    /// Whether it was proved that the node runs what it was upgraded to; nothing where that was not asked.
    pub fn verified(&self) -> Option<bool> {
        match self {
            Self::UpToDate(_) | Self::Recovered(_) | Self::Verified(Proof::Proved(_)) => Some(true),
            Self::Verified(Proof::Unknown(_)) => Some(false),
            Self::Ran(_)
            | Self::NothingChanged(_)
            | Self::Beside(_)
            | Self::Rebooted
            | Self::Verified(Proof::Refuted(_))
            | Self::NotReady { .. }
            | Self::NotReadyAnyMore { .. } => None,
        }
    }

    pub fn reason(&self) -> Option<NodeReason> {
        matches!(self, Self::UpToDate(_)).then_some(NodeReason::UpToDate)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran(None) => f.write_str("Job completed successfully"),
            Self::Ran(Some(said)) => write!(f, "Job completed successfully: {said}"),
            Self::NothingChanged(said) => f.write_str(said.as_deref().unwrap_or("nothing had to be changed")),
            Self::Beside(beside) => beside.fmt(f),
            Self::UpToDate(found) => f.write_str(&brief(&found.to_string())),
            Self::Recovered(RecoveryProof { recovery_at, target }) => {
                let release =
                    target.as_deref().map_or_else(|| "a release that the image does not name".into(), brief);
                let at = brief(recovery_at);
                write!(
                    f,
                    "Job completed successfully: recovery upgraded to {release}, as the node's own record says ({at})"
                )
            }
            Self::Rebooted => f.write_str("Job and reboot completed successfully"),
            Self::Verified(Proof::Proved(release)) => {
                write!(f, "Job and reboot completed successfully: upgraded to {release}")
            }
            Self::Verified(Proof::Unknown(why)) => {
                let section = Section::NotVerified;
                write!(f, "Job and reboot completed successfully; not verified: {why}{section}")
            }
            Self::Verified(Proof::Refuted(why)) => {
                let section = why.section();
                write!(
                    f,
                    "{why}. Look at the node's console and logs, then create the upgrade again{section}"
                )
            }
            Self::NotReady { seconds } => {
                let section = Section::RebootTimeout;
                write!(
                    f,
                    "RebootTimeout: the node rebooted, but is not Ready {seconds} s after the operation succeeded{section}"
                )
            }
            Self::NotReadyAnyMore { seconds } => {
                let section = Section::RebootTimeout;
                write!(
                    f,
                    "RebootTimeout: the node rebooted, and has not stayed Ready in the {seconds} s since{section}"
                )
            }
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reboot_asked, said, others, failed } = self;
        f.write_str(if *reboot_asked { "no reboot was needed" } else { "Job completed successfully" })?;
        if let Some(said) = said {
            write!(f, ": {said}")?;
        }
        let became = match (failed, reboot_asked) {
            (true, _) => "failed beside it",
            (false, true) => "is ended with the Job",
            (false, false) => "still ran and is ended with it",
        };
        write!(f, "; container {others}, which is not ours, {became}")
    }
}

impl Refuted {
    /// Where the manual explains it.
    fn section(&self) -> Section {
        match self {
            Self::Elsewhere { .. } => Section::FellBack,
            Self::OtherRelease { .. } => Section::OtherRelease,
        }
    }
}

impl fmt::Display for Refuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (booted, runs) = match self {
            Self::OtherRelease { runs, target } => {
                return write!(f, "the node runs {runs} after the upgrade to {target}");
            }
            // A release that was installed once more is not named twice.
            Self::Elsewhere { booted, runs, wanted } if runs == wanted => (booted, runs.clone()),
            Self::Elsewhere { booted, runs, wanted } => (booted, format!("{runs}, not {wanted}")),
        };
        match booted {
            Booted::Image { state, not_tried: None } => {
                write!(
                    f,
                    "the node booted its {state} image and runs {runs}: the upgraded image did not boot"
                )
            }
            Booted::Image { state, not_tried: Some(why) } => write!(
                f,
                "the node booted its {state} image and runs {runs}: the upgraded image did not boot, or GRUB has not tried it ({why}). \
                 To have it tried, run kairos-agent bootentry --select cos on the node, and reboot it"
            ),
            Booted::Reset => write!(
                f,
                "the node booted to reset itself and runs {runs}: the reset decides what it will run"
            ),
            Booted::Memory => write!(
                f,
                "the node booted into memory and runs {runs}: the upgraded image is on its disk, and did not boot"
            ),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameRelease(runs) => {
                write!(f, "the node runs {runs}, as before; from which image it booted is not known")
            }
            Self::NoRelease { runs } => {
                let runs = runs.as_deref().unwrap_or("a release that it does not say");
                write!(f, "the node runs {runs}; what the image brought is not known")
            }
            Self::Unread { seconds, obstacle } => {
                write!(f, "what the node runs could not be read in {seconds} s")?;
                match obstacle {
                    Some(obstacle) => write!(f, ": {obstacle}"),
                    None => Ok(()),
                }
            }
        }
    }
}

//! What is known of a Job that has failed.

use std::fmt;

use crate::plan::model::manual::Section;

/// What is said where a command has succeeded, and nothing more follows from that.
pub const UNRECORDED: &str = "the operation succeeded in one of its tries, and that could not be recorded, so nothing else will reboot the node";

/// What the pods of a Job that has failed tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Nothing.
    Untold,
    /// None is left.
    PodsGone,
    /// One that ran an upgrade was ended, with its agent.
    AtItsDeadline,
    /// What the last of them said.
    Said(String),
    /// … whose operation had succeeded: nothing could record that.
    Unrecorded(String),
    /// … which says that the record of a success could not be written.
    NotRecorded(String),
    /// … which says that nobody knows what an agent has written. `before`: how the try before it ended.
    Interrupted { said: String, before: Option<String> },
}

impl JobEnd {
    /// Where the manual explains it: what is to be done depends on it.
    pub fn section(&self) -> Section {
        match self {
            Self::Untold | Self::PodsGone | Self::Said(_) => Section::JobFailed,
            Self::Unrecorded(_) | Self::NotRecorded(_) => Section::NotRecorded,
            Self::AtItsDeadline | Self::Interrupted { .. } => Section::Interrupted,
        }
    }
}

impl fmt::Display for JobEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold => Ok(()),
            Self::PodsGone => {
                f.write_str(": none of its pods is left to say why, as when somebody deletes them")
            }
            Self::AtItsDeadline => f.write_str(
                ": the upgrade was ended at its deadline, and what kairos-agent has written is not known; look at the node before trying again",
            ),
            Self::Said(said) | Self::NotRecorded(said) | Self::Interrupted { said, before: None } => {
                write!(f, ": {said}")
            }
            Self::Unrecorded(said) => write!(f, ": {UNRECORDED}: {said}"),
            Self::Interrupted { said, before: Some(before) } => {
                write!(f, ": {said}; the try before it: {before}")
            }
        }
    }
}

//! Why nothing more can be done on a node: its machine does not come back.

use std::fmt;

use crate::plan::model::manual::Section;

/// What became of the Node object of a machine that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Deleted,
    /// It was made again, and nobody knows for which machine.
    Unreported,
    Replaced,
}

impl Lost {
    /// What happened.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Deleted => "the node was deleted while the operation worked on it",
            Self::Unreported => {
                "the node was deleted while the operation worked on it, and its kubelet has not reported since"
            }
            Self::Replaced => {
                "another machine has joined under the node's name while the operation worked on it"
            }
        }
    }
}

/// As it stands in the node's final message.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.sentence(), Section::NodeLost)
    }
}

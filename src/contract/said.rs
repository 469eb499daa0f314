//! What the applets of an upgrade, and the sentinel, say in their termination messages besides plain
//! sentences.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `upgrade` says, as its termination message, once it has written the recovery image alone, and the
/// record that the node's agent keeps says so, too. Without that record it says a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryProof {
    /// When, in RFC 3339, by the node's clock. For people only.
    pub recovery_at: String,
    /// The release of the image; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What `upgrade --check` says, as its termination message, about a node that is to be upgraded.
///
/// A preflight goes ahead by silence, and by any message of a user's command the node is skipped. This record
/// is our own check's, so it counts in the preflight of an upgrade alone, and means there what silence means.
/// It makes known what the image would bring, before the node is claimed: a sentinel that says another target
/// is not of this image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proceed {
    /// True. A record in which it is not is none.
    pub proceed: bool,
    /// The boot in which the node was looked at.
    pub boot: String,
    /// The release that the node runs; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The release that the image carries; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What `upgrade` and `upgrade --check` say, as their termination message, about a node that runs the image's
/// release already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpToDate {
    /// The release.
    pub up_to_date_at: String,
}

impl UpToDate {
    /// How it is said to people.
    pub const SENTENCE: &str = "node is already at ";

    /// What an applet of a version before 1.0 said, which was the sentence.
    pub fn from_sentence(message: &str) -> Option<Self> {
        let release = message.strip_prefix(Self::SENTENCE)?;
        Some(Self { up_to_date_at: release.to_owned() })
    }
}

impl fmt::Display for UpToDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SENTENCE, self.up_to_date_at)
    }
}

/// How an operation ended badly, as far as what is to be done about the node depends on it. People read why a
/// Job has failed in the termination message of its pod, and so it is no record: it is a clause of the
/// message, written by the applet and read by the controller from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEnd {
    /// The operation has succeeded, and nothing else knows.
    NotRecorded,
    /// An agent failed late: the node boots what it wrote next.
    Replaced,
    /// Nobody knows what an agent has written, which was ended in this boot …
    Interrupted,
    /// … or in an earlier one.
    CutOff,
}

impl BadEnd {
    pub const ALL: [Self; 4] = [Self::NotRecorded, Self::Replaced, Self::Interrupted, Self::CutOff];

    /// How it is said.
    pub const fn clause(self) -> &'static str {
        match self {
            Self::NotRecorded => "succeeded and is not run again, but its record could not be written",
            Self::Replaced => {
                "kairos-agent failed after it had replaced the image that the node boots, and is not run again; look at the node, and reboot it before another upgrade"
            }
            Self::Interrupted => {
                "an earlier try was interrupted while kairos-agent ran; look at the node before trying again"
            }
            Self::CutOff => {
                "the node rebooted while kairos-agent ran, and does not show that it was done; look at the node before trying again"
            }
        }
    }

    /// What the termination message of `upgrade` or `sentinel` says.
    pub fn read(message: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| message.contains(end.clause()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_said_in_a_sentence_is_read() {
        let found = UpToDate { up_to_date_at: "v2".into() };
        assert_eq!(UpToDate::from_sentence(&found.to_string()), Some(found));
        assert_eq!(UpToDate::from_sentence("nothing to do"), None);
    }

    #[test]
    fn every_bad_end_is_read_from_the_message_that_says_it() {
        for end in BadEnd::ALL {
            let message = format!("upgrading: {}: no space left", end.clause());
            assert_eq!(BadEnd::read(&message), Some(end), "{message}");
        }
        assert_eq!(BadEnd::read("exit code 1: no space left"), None);
    }
}

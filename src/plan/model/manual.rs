//! Where the manual explains what became of a node: the headings of `docs/failures.md`, by their anchors. The
//! message of a node that failed ends with one, so that who reads it finds what to do next.

use std::fmt;

use crate::api::text;

/// A section of the manual's page on failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    PreflightFailed,
    NotAdmitted,
    NotReady,
    OtherContent,
    DrainTimedOut,
    DrainRefused,
    WaiterDidNotStart,
    JobDidNotStart,
    JobFailed,
    NotRecorded,
    Interrupted,
    JobVanished,
    Deleted,
    NodeLost,
    Changed,
    RebootTimeout,
    FellBack,
    OtherRelease,
    NotVerified,
}

impl Section {
    pub const ALL: [Self; 19] = [
        Self::PreflightFailed,
        Self::NotAdmitted,
        Self::NotReady,
        Self::OtherContent,
        Self::DrainTimedOut,
        Self::DrainRefused,
        Self::WaiterDidNotStart,
        Self::JobDidNotStart,
        Self::JobFailed,
        Self::NotRecorded,
        Self::Interrupted,
        Self::JobVanished,
        Self::Deleted,
        Self::NodeLost,
        Self::Changed,
        Self::RebootTimeout,
        Self::FellBack,
        Self::OtherRelease,
        Self::NotVerified,
    ];

    /// The anchor of its heading.
    pub const fn anchor(self) -> &'static str {
        match self {
            Self::PreflightFailed => "preflight-failed",
            Self::NotAdmitted => "the-api-server-refuses-it",
            Self::NotReady => "not-ready-for-too-long",
            Self::OtherContent => "another-content-under-the-images-name",
            Self::DrainTimedOut => "drain-timed-out",
            Self::DrainRefused => "drain-refused",
            Self::WaiterDidNotStart => "the-reboot-waiter-did-not-start",
            Self::JobDidNotStart => "the-jobs-pod-did-not-start",
            Self::JobFailed => "job-failed",
            Self::NotRecorded => "success-that-could-not-be-recorded",
            Self::Interrupted => "an-agent-that-was-interrupted",
            Self::JobVanished => "job-not-found",
            Self::Deleted => "deleted-before-it-was-done",
            Self::NodeLost => "node-deleted-or-replaced",
            Self::Changed => "changed-by-somebody-else",
            Self::RebootTimeout => "reboottimeout",
            Self::FellBack => "the-node-booted-its-passive-image",
            Self::OtherRelease => "the-node-runs-another-release",
            Self::NotVerified => "not-verified",
        }
    }
}

/// As it stands at the end of a message.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{})", self.anchor())
    }
}

/// How the end of a message that names a section begins.
const MARK: &str = " (see docs: ";
/// The longest end that can name one; what looks like one and is longer was said by a container.
const LONGEST: usize = 80;
/// Messages that are cut shorter than this have more need of their beginning.
const ROOM_FOR_BOTH: usize = 200;

/// The message with this section at its end, in place of the one that it names.
pub fn explained_in(section: Section, message: &str) -> String {
    let end = message.rfind(MARK).filter(|at| message.len() - at <= LONGEST);
    format!("{}{section}", &message[..end.unwrap_or(message.len())])
}

/// A message of at most `most` bytes where it is stored: a long one is cut before the section that it names.
pub fn clipped(message: &str, most: usize) -> String {
    let at = message.rfind(MARK).filter(|at| message.len() - at <= LONGEST);
    let end = at.filter(|_| text::stored(message) > most && most >= ROOM_FOR_BOTH);
    let (text, section) = message.split_at(end.unwrap_or(message.len()));
    format!("{}{section}", text::clipped(text, most.saturating_sub(section.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_cut_still_names_its_section() {
        let long = format!("Job failed ({}){}", "x".repeat(2000), Section::JobFailed);
        let cut = clipped(&long, 1000);
        assert!(cut.len() <= 1000 && cut.ends_with("xx… (see docs: job-failed)"), "{cut}");
        assert!(cut.starts_with("Job failed (xx"), "{cut}");
        assert_eq!(clipped(&long, 60).len(), 60);
        assert_eq!(clipped("short (see docs: job-failed)", 1000), "short (see docs: job-failed)");
        // What a container says is no section of ours.
        let said = format!("{MARK}{}", "y".repeat(3000));
        assert!(clipped(&said, 1000).len() <= 1000, "however long what looks like one is");
    }

    #[test]
    fn a_message_names_one_section() {
        let section = Section::NotRecorded;
        let named = "no start in 60 s (see docs: success-that-could-not-be-recorded)";
        assert_eq!(explained_in(section, "no start in 60 s (see docs: job-failed)"), named);
        assert_eq!(explained_in(section, "no start in 60 s"), named);
    }

    #[test]
    fn each_section_is_a_heading_of_the_manual_and_stands_in_the_list_once() {
        let page = include_str!("../../../docs/failures.md");
        let anchor = |heading: &str| -> String {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
        };
        let headings: Vec<String> =
            page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
        let mut seen = Vec::new();
        for section in Section::ALL {
            assert!(headings.iter().any(|heading| heading == section.anchor()), "{section:?}");
            assert!(!seen.contains(&section), "{section:?} stands there twice");
            seen.push(section);
        }
    }
}

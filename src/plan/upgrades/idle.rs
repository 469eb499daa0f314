//! Whether a `Continuous` upgrade whose run is over takes nodes in further rounds at all, and a certain node.

use std::fmt;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    api::{
        names::{condition, reason},
        text::listed,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    plan::{facts::labels, model::snapshot::NodeView},
};

/// Why nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idle {
    Expired(Timestamp),
    Paused,
    /// Under `stopOnFailure`.
    Stopped,
    /// The last run ended before it had taken all its nodes.
    Unfinished,
    ReleaseUnknown,
    /// Nodes that were tried are out of service.
    OutOfService(Vec<String>),
}

impl Idle {
    /// What the upgrade itself says, whatever its nodes do.
    pub fn of(upgrade: &NodeOpUpgrade, status: &NodeOpUpgradeStatus, now: Timestamp) -> Option<Self> {
        let spec = &upgrade.spec;
        // Of one that was lost nobody knows what it was about to do.
        let open = status.counts.as_ref().is_none_or(|counts| counts.pending + counts.running > 0);
        let unproved = |one: &Condition| one.type_ == condition::VERIFIED && one.reason == reason::NOT_PROVED;
        let failed = status.counts.as_ref().is_some_and(|counts| counts.failed > 0)
            || status.conditions.iter().any(unproved);
        if let Some(time) = spec.not_after.as_ref().filter(|time| time.0 <= now) {
            Some(Self::Expired(time.0))
        } else if spec.paused == Some(true) {
            Some(Self::Paused)
        } else if spec.stop_on_failure == Some(true) && failed {
            Some(Self::Stopped)
        } else if open {
            Some(Self::Unfinished)
        } else {
            status.release.is_none().then_some(Self::ReleaseUnknown)
        }
    }

    /// Whether it ends without a change of the upgrade's run: by itself, or because somebody sets `paused` to
    /// false.
    fn passes(&self) -> bool {
        matches!(self, Self::Paused | Self::OutOfService(_))
    }
}

/// Whether an upgrade whose run is over takes a node, which that has not tried, in a later round: now, or when
/// what keeps it from that has passed. If not, the node is as the upgrade wants it, or nothing will be done
/// about it until the upgrade is changed.
pub fn takes(upgrade: &NodeOpUpgrade, status: &NodeOpUpgradeStatus, node: &NodeView, now: Timestamp) -> bool {
    if Idle::of(upgrade, status, now).is_some_and(|idle| !idle.passes()) {
        return false;
    }
    match node.release() {
        Some(runs) => status.release.as_ref() != Some(runs),
        // What it runs in this boot is still to be read, unless nobody reads it.
        None => !node.says_its_facts() && !labels::hands_off(node),
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "its time was over at {at:.0} (notAfter)"),
            Self::Paused => f.write_str("paused (spec.paused)"),
            Self::Stopped => f.write_str("the last run failed (stopOnFailure); change the upgrade to go on"),
            Self::Unfinished => f.write_str(
                "the last run ended before it had taken all its nodes; change the upgrade to go on",
            ),
            Self::ReleaseUnknown => f.write_str(
                "which release the image brings is not known, and so not which nodes do not run it",
            ),
            Self::OutOfService(nodes) => {
                write!(f, "tried by this run, and out of service since: {}", listed(nodes))
            }
        }
    }
}

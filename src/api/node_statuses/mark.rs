//! What the entries of nodes are looked for by.

use crate::api::nodeop::{NodeStatus, Phase};

/// Something that an entry says, and by which it is found among thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Pending,
    Preflight,
    Running,
    Completed,
    Failed,
    /// It is pending, and nothing else stands there but a message.
    Plain,
    /// It is pending, and more stands there.
    Remarkable,
    /// It has the UID of its node: the node was not given back yet.
    NotGivenBack,
    HoldsSlot,
    /// It has the name of a Job.
    HasJob,
    /// It has the release that the image brings.
    HasRelease,
    /// What the node runs was not proved.
    Unproved,
    /// It is over, given back, and still as long as it was.
    Uncompacted,
    /// It is done, and needed nothing.
    Skipped,
}

impl Mark {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Preflight,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Plain,
        Self::Remarkable,
        Self::NotGivenBack,
        Self::HoldsSlot,
        Self::HasJob,
        Self::HasRelease,
        Self::Unproved,
        Self::Uncompacted,
        Self::Skipped,
    ];

    /// That of all entries in a phase.
    pub fn of(phase: Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Preflight => Self::Preflight,
            Phase::Running => Self::Running,
            Phase::Completed => Self::Completed,
            Phase::Failed => Self::Failed,
        }
    }

    /// Whether an entry has it.
    pub fn is_on(self, status: &NodeStatus) -> bool {
        let phase = status.phase;
        match self {
            Self::Pending | Self::Preflight | Self::Running | Self::Completed | Self::Failed => {
                Self::of(phase) == self
            }
            Self::Plain => phase == Phase::Pending && is_bare(status),
            Self::Remarkable => phase == Phase::Pending && !is_bare(status),
            Self::NotGivenBack => status.node_uid.is_some(),
            Self::HoldsSlot => status.holds_slot == Some(true),
            Self::HasJob => status.job_name.is_some(),
            Self::HasRelease => status.target.is_some(),
            Self::Unproved => status.verified == Some(false),
            Self::Uncompacted => {
                let more = status.job_name.is_some()
                    || status.reboot_status.is_some()
                    || status.last_updated.is_some();
                phase.is_final() && status.node_uid.is_none() && more
            }
            Self::Skipped => status.is_skipped(),
        }
    }
}

/// Whether nothing stands in the entry besides its phase and its message.
fn is_bare(status: &NodeStatus) -> bool {
    matches!(
        status,
        NodeStatus {
            phase: _,
            step: None,
            job_name: None,
            message: _,
            reason: None,
            reboot_status: None,
            last_updated: None,
            node_uid: None,
            job_uid: None,
            attempt: None,
            drain_started_at: None,
            blocked_since: None,
            detaching_since: None,
            given_up: None,
            untouched: None,
            waiter_since: None,
            machine_id: None,
            control_plane: None,
            deadline: None,
            boot: None,
            succeeded_in: None,
            target: None,
            image: None,
            before: None,
            not_tried: None,
            verified: None,
            new_boot: None,
            holds_slot: None,
            since: None,
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_listed_under_its_number() {
        assert!(Mark::ALL.iter().enumerate().all(|(number, mark)| *mark as usize == number));
    }
}

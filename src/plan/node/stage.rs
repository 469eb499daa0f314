//! The stages of a node's life, and every way from one to the next.
//!
//! An operation's entry for a node is in exactly one stage. [`TRANSITIONS`] is the whole table:
//! `plan::check` holds every status that is planned against it, and the diagram of `docs/states.md` is drawn
//! from it.
//!
//! `Phase` and `Step` are what is stored and what users see; `state::State` and `At` are what that means,
//! each with the fields that it needs; a [`Stage`] is the one flat name of either, for the table.

use std::fmt;

use crate::api::nodeop::{NodeStatus, Phase, Step};

/// Where a node stands in an operation. What each stage is stands in [`Stage::meaning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Pending,
    Preflight,
    Claim,
    Drain,
    Job,
    Reboot,
    Verify,
    GivenUp,
    Completed,
    Failed,
}

impl Stage {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Preflight,
        Self::Claim,
        Self::Drain,
        Self::Job,
        Self::Reboot,
        Self::Verify,
        Self::GivenUp,
        Self::Completed,
        Self::Failed,
    ];

    /// The stage of an entry. `None`: no entry of ours looks like this; the Go operator wrote it, or somebody
    /// changed it.
    pub fn of(entry: &NodeStatus) -> Option<Self> {
        let worked_on = |step| match step {
            _ if entry.given_up.is_some() => Some(Self::GivenUp),
            Step::Claim => Some(Self::Claim),
            Step::Drain => Some(Self::Drain),
            Step::Job => Some(Self::Job),
            Step::Reboot => Some(Self::Reboot),
            Step::Verify => Some(Self::Verify),
            Step::Preflight => None,
        };
        match (entry.phase, entry.step) {
            (Phase::Pending, None) => Some(Self::Pending),
            (Phase::Preflight, Some(Step::Preflight)) => Some(Self::Preflight),
            (Phase::Running, Some(step)) => worked_on(step),
            (Phase::Completed, None) => Some(Self::Completed),
            (Phase::Failed, None) => Some(Self::Failed),
            _ => None,
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Pending => "a target that nothing was done for yet, or whose preflight has passed",
            Self::Preflight => "its preflight pod looks at the node, which is neither claimed nor cordoned",
            Self::Claim => {
                "taken: the node is being claimed and cordoned, and its reboot waiter starts if it is to be drained"
            }
            Self::Drain => {
                "the node is being drained, if that is asked for, beside its reboot waiter; then the Job is made, suspended"
            }
            Self::Job => "the Job is resumed once its UID is recorded, and runs",
            Self::Reboot => "the Job has succeeded, and the node is awaited in another boot",
            Self::Verify => {
                "the node has rebooted, and what it runs is compared with what the upgrade brought"
            }
            Self::GivenUp => "the reason is recorded, and what could still act on the node is being ended",
            Self::Completed => "done, or nothing had to be done",
            Self::Failed => "over without success",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A way from one stage to another, and when it is taken.
pub type Transition = (Stage, Stage, &'static str);

/// Every way that there is. A life begins in [`Stage::Pending`], when the operation chooses its targets.
pub const TRANSITIONS: &[Transition] = &[
    (
        Stage::Pending,
        Stage::Preflight,
        "it is to be asked: no preflight has passed in this boot, or one has more than an hour ago",
    ),
    (
        Stage::Pending,
        Stage::Claim,
        "it is the node's turn, nobody else has it, and its preflight, if there is one, has passed in this boot",
    ),
    (
        Stage::Pending,
        Stage::Completed,
        "the node was deleted before its turn, a newer upgrade decides what it runs, it had its attempt in this \
         round, or a later round takes it",
    ),
    (
        Stage::Pending,
        Stage::Failed,
        "it was not Ready for notReadyTimeoutSeconds, or the image stands for another content or release there",
    ),
    (Stage::Preflight, Stage::Pending, "passed, or to be asked again"),
    (Stage::Preflight, Stage::Claim, "passed, and it is the node's turn at once"),
    (Stage::Preflight, Stage::Completed, "the preflight says that there is nothing to do"),
    (Stage::Preflight, Stage::Failed, "the preflight refuses the node, or could not run"),
    (
        Stage::Claim,
        Stage::Pending,
        "another operation was first, the quorum is not kept any more, or the node must not be taken any more: it \
         is on hold, away, or has rebooted; the operation is paused, stopped or expired",
    ),
    (
        Stage::Claim,
        Stage::Drain,
        "claimed, and a drain or a reboot is asked for; where both are, once the reboot waiter is ready, or has no \
         room before the drain",
    ),
    (Stage::Claim, Stage::Job, "claimed, and neither is asked for"),
    (
        Stage::Claim,
        Stage::GivenUp,
        "the NodeOp was deleted; or the reboot waiter cannot start, takes too long, was lost too often or reads \
         another boot id than the kubelet",
    ),
    (
        Stage::Claim,
        Stage::Failed,
        "for any reason for which the node is given up in this stage, where nothing is left that could act; or \
         the node was deleted, or another machine has its name",
    ),
    (Stage::Drain, Stage::Job, "drained, the reboot waiter is ready, and the Job is made"),
    (
        Stage::Drain,
        Stage::GivenUp,
        "the NodeOp was deleted, or another one has claimed the node; the drain is refused or takes too long; the \
         reboot waiter cannot start, takes too long, was lost too often or reads another boot id than the \
         kubelet; the Job cannot be made, or somebody else has its name; or somebody changed the entry",
    ),
    (
        Stage::Drain,
        Stage::Failed,
        "for any reason for which the node is given up in this stage, where nothing is left that could act; or \
         the node was deleted, or another machine has its name",
    ),
    (Stage::Job, Stage::Reboot, "succeeded, and a reboot is asked for and due"),
    (Stage::Job, Stage::Completed, "succeeded, and no reboot is asked for or due"),
    (
        Stage::Job,
        Stage::GivenUp,
        "the Job failed, could not begin or vanished, or cannot be made or resumed; it runs another content, or \
         its record names another release; the NodeOp was deleted, or another one has claimed the node; before \
         the Job runs, its reboot waiter cannot start, takes too long, was lost too often or reads another boot \
         id than the kubelet; or somebody changed the entry",
    ),
    (
        Stage::Job,
        Stage::Failed,
        "for any reason for which the node is given up in this stage, where nothing is left that could act; or \
         the node was deleted, or another machine has its name",
    ),
    (Stage::Reboot, Stage::Verify, "another boot is proved, and this was an upgrade"),
    (
        Stage::Reboot,
        Stage::Completed,
        "another boot is proved, and for an upgrade what it runs, or none is due after all",
    ),
    (
        Stage::Reboot,
        Stage::GivenUp,
        "no other boot was seen in rebootTimeoutSeconds; the node started anew with the same boot id; the reboot \
         of an older operator is not proved; the Job's record, which came late, names another release; the \
         NodeOp was deleted; or somebody changed the entry",
    ),
    (
        Stage::Reboot,
        Stage::Failed,
        "for any reason for which the node is given up in this stage, where nothing is left that could act; it \
         booted and was not Ready in time; or the node was deleted, or another machine has its name",
    ),
    (Stage::Verify, Stage::Completed, "the release is proved, or cannot be known"),
    (Stage::Verify, Stage::GivenUp, "somebody changed the entry, and a reboot waiter is left that could act"),
    (
        Stage::Verify,
        Stage::Failed,
        "another release runs, another image was booted, or it did not stay Ready; somebody changed the entry, \
         and nothing is left that could act; or the node was deleted, or another machine has its name",
    ),
    (Stage::GivenUp, Stage::Job, "the Job succeeded before its end was seen"),
    (Stage::GivenUp, Stage::Reboot, "the node rebooted before its end was seen"),
    (Stage::GivenUp, Stage::Failed, "nothing of the operation can act on the node any more"),
];

/// Whether an entry may go from one stage to the other. Staying is no transition.
pub fn is_legal(from: Stage, to: Stage) -> bool {
    from == to || TRANSITIONS.iter().any(|(one, other, _)| (*one, *other) == (from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_reached_and_only_final_ones_are_not_left() {
        for stage in Stage::ALL {
            let reached = stage == Stage::Pending || TRANSITIONS.iter().any(|(_, to, _)| *to == stage);
            let left = TRANSITIONS.iter().any(|(from, ..)| *from == stage);
            assert!(reached, "{stage} is never reached");
            assert_eq!(left, !matches!(stage, Stage::Completed | Stage::Failed), "{stage}");
        }
        let mut pairs: Vec<_> = TRANSITIONS.iter().map(|(from, to, _)| (from, to)).collect();
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), TRANSITIONS.len(), "a way stands there twice");
    }

    #[test]
    fn an_entry_that_is_not_ours_is_in_no_stage() {
        let entry = |phase, step| NodeStatus { phase, step, ..NodeStatus::default() };
        assert_eq!(Stage::of(&entry(Phase::Running, None)), None, "the Go operator knows no steps");
        assert_eq!(Stage::of(&entry(Phase::Completed, Some(Step::Job))), None);
        assert_eq!(Stage::of(&entry(Phase::Running, Some(Step::Preflight))), None);
        let given_up = NodeStatus { given_up: Some("no".into()), ..entry(Phase::Running, Some(Step::Drain)) };
        assert_eq!(Stage::of(&given_up), Some(Stage::GivenUp));
    }
}

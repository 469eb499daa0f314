//! What the nodes of a NodeOp, and what else is known of it, come to: its phase, how it stands, and one
//! sentence.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        names::{self, reason},
        node_statuses::{Mark, NodeStatuses},
        nodeop::{Counts, NodeOp, Phase},
    },
    plan::{
        conditions::{self, Standing},
        model::{intent::Intent, snapshot::had_no_nodes},
        rollout::{
            not_taken::Stopped,
            status::{OpProgress, counts::to_i32},
            targets::NoTargets,
        },
    },
};

/// A NodeOp's nodes, and what is known of the whole.
pub struct View<'a> {
    pub op: &'a NodeOp,
    pub intent: &'a Intent,
    pub nodes: &'a NodeStatuses,
    pub counts: &'a Counts,
    pub progress: &'a OpProgress,
}

impl View<'_> {
    /// The phase that follows from the counts. `Completed` and `Failed` only when nothing is worked on and
    /// nothing will be; `Completed` never without a node.
    pub fn phase(&self) -> Phase {
        let (counts, progress) = (self.counts, self.progress);
        let open = counts.running > 0 || progress.slots.unreleased > 0;
        let more = counts.pending > 0 && progress.stopped.is_none() && !progress.deleting;
        if progress.no_targets.is_some() && progress.refused.is_none() {
            Phase::Pending
        } else if open {
            Phase::Running
        } else if progress.is_recording {
            if self.has_begun() { Phase::Running } else { Phase::Pending }
        } else if progress.refused.is_some() {
            Phase::Failed
        } else if more {
            if self.has_begun() { Phase::Running } else { Phase::Pending }
        } else if self.is_expired() && self.is_untouched() {
            Phase::Completed
        } else if counts.failed > 0 || counts.pending > 0 || counts.total == 0 {
            Phase::Failed
        } else {
            Phase::Completed
        }
    }

    /// Whether a node has been taken; those that a preflight skipped or failed never were. One that was taken
    /// and given back untouched before it was claimed does not count either.
    fn has_begun(&self) -> bool {
        let before = self.op.status.as_ref().and_then(|status| status.phase);
        before == Some(Phase::Running) && self.counts.completed + self.counts.failed > 0
    }

    /// Whether something is done for a node now.
    fn is_moving(&self) -> bool {
        self.counts.running > 0 || self.progress.slots.unreleased > 0 || self.nodes.any([Mark::Preflight])
    }

    pub fn standing(&self, phase: Phase, now: Timestamp) -> Standing {
        let reason = match phase {
            Phase::Completed | Phase::Failed if self.is_expired() && !self.has_all_ended() => {
                return Standing::Expired { untouched: phase == Phase::Completed };
            }
            Phase::Completed => return Standing::Completed,
            Phase::Failed if self.is_superseded() && !self.has_all_ended() => return Standing::Superseded,
            Phase::Failed => return Standing::Failed,
            Phase::Pending | Phase::Preflight | Phase::Running => self.reason(),
        };
        let conditions =
            self.op.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let blocked = reason == reason::BLOCKED && conditions::is_blocked_for_long(conditions, now);
        Standing::Open { reason, stalled: blocked }
    }

    /// Whether people hold all nodes that are left.
    fn is_on_hold(&self) -> bool {
        let held = self.progress.on_hold.len();
        held > 0 && to_i32(held) == self.counts.pending
    }

    /// Whether it would start something, were it not paused.
    pub fn is_paused(&self) -> bool {
        self.intent.paused && self.progress.stopped.is_none() && !self.progress.deleting
    }

    /// Whether its upgrade goes on with another NodeOp.
    fn is_superseded(&self) -> bool {
        matches!(self.progress.stopped, Some(Stopped::Superseded { .. }))
    }

    /// Whether its time is over.
    fn is_expired(&self) -> bool {
        matches!(self.progress.stopped, Some(Stopped::Expired(_)))
    }

    /// Whether nothing was started on any node.
    fn is_untouched(&self) -> bool {
        self.counts.failed == 0 && self.counts.completed == self.counts.skipped
    }

    /// Whether it has nodes, and each was taken or needed nothing.
    fn has_all_ended(&self) -> bool {
        self.counts.total > 0 && self.counts.pending == 0
    }

    fn reason(&self) -> &'static str {
        let progress = self.progress;
        if progress.failures.first.is_some() {
            reason::BLOCKED
        } else if self.is_superseded() {
            reason::SUPERSEDED
        } else if self.is_expired() && !progress.no_targets.as_ref().is_some_and(NoTargets::is_known) {
            reason::EXPIRED
        } else if self.is_paused() {
            reason::PAUSED
        } else if progress.no_targets.as_ref().is_some_and(|why| why.is_known() || had_no_nodes(self.op)) {
            reason::NO_NODES
        } else if self.is_moving() {
            reason::ROLLING_OUT
        } else if self.is_on_hold() {
            reason::ON_HOLD
        } else if progress.blocked.is_some() {
            reason::NODES_OUT_OF_SERVICE
        } else {
            reason::WAITING
        }
    }

    pub fn sentence(&self, phase: Phase) -> String {
        let Counts { total, pending, running, completed, failed, .. } = self.counts;
        let progress = self.progress;
        if let Some(why) = &progress.refused {
            return why.to_string();
        }
        let stopped = progress
            .stopped
            .as_ref()
            .map(|why| format!("; nothing more is started: {why}"))
            .unwrap_or_default();
        match phase {
            Phase::Completed if self.is_expired() && !self.has_all_ended() => {
                format!("no node was taken{stopped}")
            }
            Phase::Completed if *total == 1 => "1 node completed".into(),
            Phase::Completed => format!("all {total} nodes completed"),
            Phase::Failed if *total == 0 && self.is_superseded() => {
                format!("no node was taken{stopped}")
            }
            Phase::Failed if *total == 0 => {
                "its nodes are not in its status any more, and what was done on them is not known; create the NodeOp again".into()
            }
            Phase::Failed if *pending > 0 => {
                let why = progress.stopped.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let were = if *pending == 1 { "was" } else { "were" };
                format!("{failed} of {total} nodes failed, {completed} completed, {pending} {were} not started{why}")
            }
            Phase::Failed => format!("{failed} of {total} nodes failed, {completed} completed"),
            Phase::Pending | Phase::Preflight | Phase::Running => {
                let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                let counts = format!("{completed} of {total} nodes completed, {running} in progress{failed}{stopped}");
                let paused = self.is_paused().then(|| "paused: nothing new is started until spec.paused is false".to_owned());
                let why = paused.or_else(|| self.waits_for());
                let mut text = match &progress.no_targets {
                    Some(why) => why.to_string(),
                    None => why.map_or_else(|| counts.clone(), |why| format!("{why}; {counts}")),
                };
                if let Some(first) = progress.on_hold.first().filter(|_| progress.stopped.is_none()) {
                    let more = if progress.on_hold.len() > 1 { " and others" } else { "" };
                    text.push_str(&format!("; {first}{more} held by the label {}", names::HOLD));
                }
                if progress.deleting {
                    text.push_str("; being deleted, nodes in progress are released");
                }
                if let Some(error) = progress.failures.first.as_ref().filter(|error| !text.contains(error.as_str())) {
                    text.push_str("; ");
                    text.push_str(error);
                }
                text
            }
        }
    }

    /// What the operation as a whole waits for, if it works on no node.
    fn waits_for(&self) -> Option<String> {
        if self.counts.running > 0 {
            return None;
        }
        let slots = &self.progress.slots;
        let first = || self.progress.first.as_ref().filter(|first| !first.why.is_empty());
        let unreleased = slots.unreleased_why.as_ref().map(ToString::to_string);
        let held = || self.progress.blocked.as_ref().map(|why| format!("waiting: {why}"));
        unreleased
            .or_else(held)
            .or_else(|| first().map(|first| format!("{} (node {})", first.why, first.node)))
    }
}

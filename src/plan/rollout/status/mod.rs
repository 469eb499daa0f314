//! From the nodes' statuses to the NodeOp's: phase, counts, conditions, one sentence, and whether it is worth
//! a write.

mod counts;
mod shorten;
mod verified;

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

pub use self::counts::count;
use self::counts::to_i32;
use self::{shorten::shorten, verified::verified};
use crate::{
    api::{
        names::{self, condition, reason},
        node_statuses::{Change, Mark, NodeStatuses},
        nodeop::{Counts, NodeOp, NodeOpStatus, NodeStatus, Phase},
        upgrade::UpgradePhase,
    },
    plan::{
        conditions::{self, Moment, Standing},
        model::{
            action::{Action, Notice},
            effects::Effects,
            failing::{self, FailureSummary},
            intent::Intent,
            snapshot::Snapshot,
            time::later,
        },
        rollout::{
            expiry,
            not_taken::{Refused, Stopped},
            slots::{self, Slots},
            targets::NoTargets,
        },
    },
};

/// Between two writes that change nothing but messages.
const MESSAGES_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// How the operation as a whole stands, beyond what the nodes say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpProgress {
    /// Slots that nobody works on: they are taken, and while a node is not released the operation is not
    /// over.
    pub slots: Slots,
    /// Nothing more is started, and why: a node failed, or is not proved, under `stopOnFailure`.
    pub stopped: Option<Stopped>,
    /// The NodeOp is being deleted.
    pub deleting: bool,
    /// It cannot go on at all, and why.
    pub refused: Option<Refused>,
    /// It has no node, and why.
    pub no_targets: Option<NoTargets>,
    /// Nodes have ended, and say first that they were tried.
    pub is_recording: bool,
    /// Nodes wait for slots that nodes out of service hold, and for nothing else.
    pub held: bool,
    /// Nodes that somebody holds by a label.
    pub on_hold: Vec<String>,
    /// The first node, in order, that is not started, and why.
    pub first: Option<(String, String)>,
    /// What it wants done or known, and what keeps failing.
    pub failures: FailureSummary,
}

impl OpProgress {
    /// Whether nodes that are out of service hold every slot.
    pub fn are_slots_held(&self, intent: &Intent) -> bool {
        intent.concurrency.is_some_and(|limit| self.slots.out_of_service.len() >= limit)
    }
}

/// Whether it was said that no node matches. That stays so while somebody new is looked at.
fn had_no_nodes(op: &NodeOp) -> bool {
    let conditions = op.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == condition::PROGRESSING && condition.reason == reason::NO_NODES)
}

/// A NodeOp's nodes, and what is known of the whole.
struct View<'a> {
    op: &'a NodeOp,
    intent: &'a Intent,
    nodes: &'a NodeStatuses,
    counts: &'a Counts,
    progress: &'a OpProgress,
}

impl View<'_> {
    /// The phase that follows from the counts. `Completed` and `Failed` only when nothing is worked on and
    /// nothing will be; `Completed` never without a node.
    fn phase(&self) -> Phase {
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

    fn standing(&self, phase: Phase, now: Timestamp) -> Standing {
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
    fn is_paused(&self) -> bool {
        self.intent.paused && self.progress.stopped.is_none() && !self.progress.deleting
    }

    /// Whether its upgrade was changed and asks for another run.
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
        } else if self.is_expired() {
            reason::EXPIRED
        } else if self.is_paused() {
            reason::PAUSED
        } else if progress.no_targets.as_ref().is_some_and(|why| why.is_known() || had_no_nodes(self.op)) {
            reason::NO_NODES
        } else if self.is_moving() {
            reason::ROLLING_OUT
        } else if self.is_on_hold() {
            reason::ON_HOLD
        } else if progress.held {
            reason::NODES_OUT_OF_SERVICE
        } else {
            reason::WAITING
        }
    }

    fn sentence(&self, phase: Phase) -> String {
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
                    text.push_str(&format!("; {first}{more} held by the label {}=true", names::HOLD));
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
        let first = || self.progress.first.as_ref().filter(|(_, why)| !why.is_empty());
        let unreleased = slots.unreleased_why.as_ref().map(|(node, why)| slots::not_released(node, why));
        unreleased.or_else(|| first().map(|(node, why)| format!("{why} (node {node})")))
    }
}

/// The status of a NodeOp whose nodes stand like this.
pub fn summarize(op: &NodeOp, nodes: NodeStatuses, progress: &OpProgress, now: Timestamp) -> NodeOpStatus {
    let (mut counts, intent, at) =
        (count(&nodes), Intent::of(op), Moment { generation: op.metadata.generation, now });
    let view = View { op, intent: &intent, nodes: &nodes, counts: &counts, progress };
    let phase = view.phase();
    let (message, standing, paused) =
        (view.sentence(phase), view.standing(phase, now), view.is_paused() && !phase.is_final());
    if paused {
        counts.current = format!("{} (paused)", counts.current).trim().to_owned();
    }
    let mut conditions = op.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    conditions::set(&mut conditions, standing, &message, at);
    if intent.upgrade && phase.is_final() {
        let (status, reason, message) = verified(&intent, &nodes);
        conditions::set_condition(&mut conditions, condition::VERIFIED, (status, reason), &message, at);
    }
    let recorded = op.status.as_ref().and_then(|status| status.release.clone());
    NodeOpStatus {
        release: recorded
            .or_else(|| nodes.marked([Mark::Targeted]).find_map(|(_, node)| node.target.clone())),
        phase: Some(phase),
        conditions,
        message: Some(message),
        node_statuses: nodes,
        observed_generation: op.metadata.generation,
        counts: Some(counts),
        image: op.status.as_ref().and_then(|status| status.image.clone()),
        images: op.status.as_ref().map(|status| status.images.clone()).unwrap_or_default(),
        last_updated: op.status.as_ref().and_then(|status| status.last_updated.clone()),
    }
}

/// Writes the status if it differs, as one of the effects of this pass, and says with it what was to be
/// said. A change of messages alone waits until a second after the last write, and until nothing is being
/// asked: the plan that follows the answers is made at once, and says what came of them.
pub fn write(snapshot: &Snapshot, op: &Arc<NodeOp>, mut status: NodeOpStatus, effects: Effects) -> Effects {
    let mut effects = effects;
    let now = snapshot.now;
    let old = op.status.as_ref();
    shorten(old, &mut status);
    if old == Some(&status) {
        return effects;
    }
    let urgent = old.is_none_or(|old| !differ_in_messages_alone(old, &status));
    if !urgent && effects.questions.iter().any(|question| failing::of(snapshot, question).is_none()) {
        return effects;
    }
    // A stamp that lies in the future is of a clock that was wrong, and so an old one.
    let last = old
        .and_then(|old| old.last_updated.as_ref())
        .filter(|time| time.0 <= now)
        .map(|time| later(time.0, MESSAGES_EVERY));
    if let Some(at) = last.filter(|at| !urgent && now < *at) {
        effects.add(Effects::wake_at(at));
        return effects;
    }
    status.last_updated = Some(Time(now));
    let mut notices = notices(old, &status);
    notices.extend(expiry::notice(op, &status));
    notices.append(&mut effects.notices);
    effects.add(Action::PatchStatus { op: op.clone(), status: Box::new(status), notices });
    effects
}

/// Whether nothing else changed. Most entries did not change at all, and few are looked at twice.
fn differ_in_messages_alone(old: &NodeOpStatus, new: &NodeOpStatus) -> bool {
    let bare = |status: &NodeOpStatus| {
        let mut bare = NodeOpStatus { message: None, ..status.without_nodes() };
        bare.conditions.iter_mut().for_each(|condition| condition.message.clear());
        bare
    };
    let silent = |node: &NodeStatus| NodeStatus { message: None, ..node.clone() };
    let alike = |old: Option<&NodeStatus>, new: Option<&NodeStatus>| old.map(silent) == new.map(silent);
    bare(old) == bare(new)
        && new.node_statuses.changes(&old.node_statuses).all(|Change { old, new, .. }| alike(old, new))
}

/// One Event per transition of the NodeOp and of each node.
fn notices(old: Option<&NodeOpStatus>, new: &NodeOpStatus) -> Vec<Notice> {
    let mut said = Vec::new();
    let none = NodeStatuses::default();
    for Change { name, old: before, new } in
        new.node_statuses.changes(old.map_or(&none, |old| &old.node_statuses))
    {
        let Some(node) = new else { continue };
        if before.is_some_and(|before| before.phase == node.phase) || node.phase == Phase::Pending {
            continue;
        }
        let message = node.message.clone().unwrap_or_default();
        let (warning, reason, text) = match node.phase {
            Phase::Preflight | Phase::Pending => continue,
            Phase::Running => (false, "NodeStarted", format!("node {name} is taken")),
            Phase::Completed => (false, "NodeCompleted", format!("node {name}: {message}")),
            Phase::Failed => (true, "NodeFailed", format!("node {name}: {message}")),
        };
        said.push(Notice { warning, reason, message: text, node: Some(name.clone()) });
    }
    let phase = |status: &NodeOpStatus| status.phase.map(UpgradePhase::from);
    let before = old.map_or((None, [].as_slice()), |old| (phase(old), old.conditions.as_slice()));
    said.extend(conditions::notice(
        before,
        (phase(new), &new.conditions),
        new.message.as_deref().unwrap_or_default(),
    ));
    said
}

#[cfg(test)]
mod tests;

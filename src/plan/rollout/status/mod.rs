//! From the nodes' statuses to the NodeOp's: phase, counts, conditions, one sentence, and whether it is worth
//! a write.

mod counts;
mod drift;
mod shorten;
mod verified;
mod view;
mod write;

use k8s_openapi::jiff::Timestamp;

use self::view::View;
pub use self::{
    counts::count,
    drift::{Drifted, find as find_drifted},
    shorten::shorten,
    verified::{Verified, verified},
    write::write,
};
use crate::{
    api::{
        names::condition,
        node_statuses::NodeStatuses,
        nodeop::{NodeOp, NodeOpStatus},
    },
    plan::{
        conditions::{self, Moment},
        model::{failing::FailureSummary, intent::Intent},
        rollout::{
            not_taken::{Refused, Stopped},
            out_of_service::{OutOfService, Slots},
            targets::{self, NoTargets},
        },
    },
};

/// How the operation as a whole stands, beyond what the nodes say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpProgress {
    /// Slots that nobody works on: they are taken, and while a node is not released the operation is not
    /// over.
    pub slots: Slots,
    /// Why nothing more is started; see [`Stopped`].
    pub stopped: Option<Stopped>,
    /// The NodeOp is being deleted.
    pub deleting: bool,
    /// It cannot go on at all, and why.
    pub refused: Option<Refused>,
    /// For a node in progress nothing can be made, perhaps because of what was made ahead of other nodes' turns.
    pub starves: bool,
    /// It has no node, and why.
    pub no_targets: Option<NoTargets>,
    /// Nodes have ended, and say first that they were tried.
    pub is_recording: bool,
    /// Nodes wait for slots that nodes out of service hold, and for nothing else; the first of those.
    pub blocked: Option<OutOfService>,
    /// Nodes that somebody holds by a label.
    pub on_hold: Vec<String>,
    /// The first node, in order, that is not started, and why.
    pub first: Option<FirstWaiting>,
    /// Nodes of an upgrade that were done and run another release by now; of one that has none in progress.
    pub drifted: Vec<Drifted>,
    /// The first thing that keeps failing for it, and how many nodes it holds up.
    pub failures: FailureSummary,
}

/// A node that is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstWaiting {
    pub node: String,
    /// What it waits for, as its own message says it; empty if that says nothing.
    pub why: String,
}

impl OpProgress {
    /// Whether nodes that are out of service hold every slot, and none of them is to be taken.
    pub fn are_slots_held(&self, intent: &Intent) -> bool {
        let slots = &self.slots;
        let full = intent.concurrency.is_some_and(|limit| slots.out_of_service.len() >= limit);
        full && slots.to_be_taken.is_empty()
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
    let absent = targets::absent(op, &nodes).map(|absent| format!("; {absent}")).unwrap_or_default();
    let message = message + &absent;
    if paused {
        counts.current = format!("{} (paused)", counts.current).trim().to_owned();
    }
    let mut conditions = op.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    conditions::set(&mut conditions, standing, &message, at);
    if intent.upgrade && phase.is_final() {
        let Verified { status, reason, message } = verified(&intent, &nodes, &progress.drifted);
        conditions::set_condition(&mut conditions, condition::VERIFIED, (status, reason), &message, at);
    }
    NodeOpStatus {
        release: op.status.as_ref().and_then(|status| status.release.clone()),
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

#[cfg(test)]
mod tests;

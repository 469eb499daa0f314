//! Who is next: one NodeOp's claimed nodes are advanced, and free slots are given to the next nodes in order.
//!
//! All NodeOps are planned one after the other on one snapshot, the oldest first, and each sees what the ones
//! before it took in the same plan ([`Shared`]): a limit across nodes cannot be kept by decisions that see
//! one object each.

mod admit;
mod adopt;
mod attempts;
mod compact;
mod expiry;
mod finalizer;
mod not_taken;
mod others;
mod preflight;
mod prestart;
mod slots;
pub mod status;
mod targets;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{admit::Shared, others::age, targets::order};
use self::{not_taken::Stopped, status::OpProgress, targets::Targets};
use crate::{
    api::{
        names,
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    },
    plan::{
        image,
        model::{
            action::Action,
            effects::{Effects, Planned, Reasons},
            failing::FailureSummary,
            snapshot::{Snapshot, Standing},
        },
        node::{
            self,
            context::{Next, Op},
            legacy,
        },
        release, upgrades,
    },
};

/// Whether nothing is left to do about a NodeOp, which is over. Nearly all are, and a plan passes them by.
pub fn is_at_rest(snapshot: &Snapshot, op: &NodeOp) -> bool {
    op.is_over()
        && !op.has_our_finalizer()
        && op.metadata.deletion_timestamp.is_none()
        && op.spec.ttl_seconds_after_finished.is_none()
        && op.metadata.uid.as_ref().is_some_and(|uid| snapshot.pods.open_of_owner(uid).next().is_none())
}

/// Plans one NodeOp.
pub fn plan(snapshot: &Snapshot, object: &Arc<NodeOp>, shared: &mut Shared) -> Planned<Reasons> {
    let op = Op::of(object);
    let mut effects = preflight::sweep(snapshot, &op);
    let value = effects.take(match &object.status {
        Some(_) if object.is_over() => conclude(snapshot, &op),
        Some(status) if legacy::is_legacy(status) => adopt::plan(snapshot, &op, status),
        // A record of nodes under no phase (somebody edited it) is a record all the same: chosen anew, what
        // is done would be done again. So is one of a run from which somebody removed the nodes.
        Some(status) if status.phase == Some(Phase::Running) || !status.node_statuses.is_empty() => {
            roll(snapshot, &op, status, shared)
        }
        _ if op.deleting => conclude(snapshot, &op),
        _ if upgrades::may_start(snapshot, object) => start(snapshot, &op),
        _ => Reasons::default().into(),
    });
    Planned { value, effects }
}

/// Records the targets, or why there are none.
fn start(snapshot: &Snapshot, op: &Op) -> Planned<Reasons> {
    // Whatever has a status of ours was looked at before.
    if op.object.status.is_none() {
        match adopt::may_have_begun(snapshot, op) {
            Ok(false) => {}
            Ok(true) => return adopt::plan(snapshot, op, &NodeOpStatus::default()),
            Err(question) => return Planned::from(Reasons::default()).with(question),
        }
    }
    let stopped = stops(snapshot, op, &NodeStatuses::default());
    let Planned { value: (nodes, progress), effects } = match stopped {
        // It has no nodes, and is to have none.
        Some(_) => (BTreeMap::new(), OpProgress { stopped, ..OpProgress::default() }).into(),
        None => targets(snapshot, op).with(expires(op)),
    };
    let mut status = status::summarize(&op.object, nodes.into(), &progress, snapshot.now);
    if op.object.status.is_none() {
        // What its run has run, a later round of it is compared with.
        status.images.extend(upgrades::contents_of_run(snapshot, &op.object));
    }
    Planned { value: Reasons::default(), effects: status::write(snapshot, &op.object, status, effects) }
}

/// The nodes of a NodeOp that has none yet.
fn targets(snapshot: &Snapshot, op: &Op) -> Planned<(BTreeMap<String, NodeStatus>, OpProgress)> {
    let without = |why| (BTreeMap::new(), OpProgress { no_targets: Some(why), ..OpProgress::default() });
    targets::choose(snapshot, &op.object).map(|targets| match targets {
        Targets::Chosen(nodes) => (nodes, OpProgress::default()),
        Targets::Missing(why) => without(why),
    })
}

/// One pass over a NodeOp under way.
fn roll(snapshot: &Snapshot, op: &Op, old: &NodeOpStatus, shared: &mut Shared) -> Planned<Reasons> {
    let mut effects = release::expire_waiters(snapshot, op).effects;
    let mut waiting = Reasons::default();
    let mut nodes = old.node_statuses.clone();
    let stopped = stops(snapshot, op, &nodes);
    if nodes.any([Mark::Running]) {
        effects.add(Effects::act(finalizer::add(op)));
    }
    let mut failures = FailureSummary::default();
    for (name, node) in old.node_statuses.marked([Mark::Running, Mark::Preflight]) {
        let planned = if node.phase == Phase::Running {
            node::advance(snapshot, op, name, node)
        } else {
            preflight::advance(snapshot, op, name, node, stopped.is_some())
        };
        let error = planned.effects.keeps_failing(snapshot);
        match effects.take(planned) {
            Next::Become(next) => nodes.insert(name, *next),
            Next::Wait(why) => {
                let why = failures.complete(why, error);
                nodes.say(name, &why.message);
                waiting.insert(name.clone(), why);
            }
        }
    }
    // What else ends a rollout is not of this pass's making.
    let stopped = stopped.or_else(|| fails(op, &nodes));
    if stopped.is_some() {
        preflight::withdraw(snapshot, op, &mut nodes);
    }
    let slots = slots::find(snapshot, op, &old.node_statuses, &mut nodes, &mut failures, &mut waiting);
    let slots = effects.take(slots);
    let mut progress =
        OpProgress { slots, stopped, deleting: op.deleting, failures, ..OpProgress::default() };
    effects.add(admit::fill(snapshot, op, &mut nodes, &mut progress, &mut waiting, shared));
    if progress.refused.is_some() {
        preflight::withdraw(snapshot, op, &mut nodes);
    }
    let nothing_starts =
        op.deleting || op.intent.paused || progress.stopped.is_some() || progress.refused.is_some();
    effects.add(if nothing_starts || progress.are_slots_held(&op.intent) {
        prestart::withdraw(snapshot, op, &nodes)
    } else {
        prestart::prepare(snapshot, op, &nodes)
    });
    if progress.stopped.is_none() && nodes.any([Mark::Pending, Mark::Preflight, Mark::Running]) {
        effects.add(expires(op));
    }
    effects.add(attempts::record(snapshot, op, &old.node_statuses, &mut nodes, &mut progress, &mut waiting));
    compact::compact(snapshot, op, &mut nodes);
    let mut status = status::summarize(&op.object, nodes, &progress, snapshot.now);
    image::record(snapshot, &op.object, &mut status);
    Planned { value: waiting, effects: status::write(snapshot, &op.object, status, effects) }
}

/// Why nothing more is started, whatever slots are free.
fn stops(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> Option<Stopped> {
    let superseded = upgrades::superseded(snapshot, &op.object);
    let superseded = superseded.map(|upgrade| Stopped::Superseded { upgrade });
    let expired = || op.intent.not_after.filter(|at| *at <= snapshot.now).map(Stopped::Expired);
    fails(op, nodes).or(superseded).or_else(expired)
}

/// When an operation that has nodes to take starts nothing more.
fn expires(op: &Op) -> Effects {
    op.intent.not_after.map(Effects::wake_at).unwrap_or_default()
}

/// Under `stopOnFailure`: a node failed, or what an upgraded one runs is not proved. A canary that proves
/// nothing has not passed. What a Job of the Go operator brought nobody can prove, so there the next node is
/// the canary.
fn fails(op: &Op, nodes: &NodeStatuses) -> Option<Stopped> {
    if !op.intent.stop_on_failure {
        return None;
    }
    if let Some((name, _)) = nodes.marked([Mark::Failed]).next() {
        return Some(Stopped::NodeFailed(name.clone()));
    }
    let of_ours =
        |name: &str, node: &NodeStatus| node.job_name.as_ref().is_some_and(|job| op.is_job_name(name, job));
    let unproved = |name: &str, node: &NodeStatus| node.phase == Phase::Completed && of_ours(name, node);
    let (name, _) = nodes.marked([Mark::Unproved]).find(|(name, node)| unproved(name, node))?;
    Some(Stopped::NodeNotProved(name.clone()))
}

/// A finished (or never started) NodeOp: once no node is claimed any more, what was granted is taken back and
/// the finalizer goes. The Go operator's finalizer goes too.
fn conclude(snapshot: &Snapshot, op: &Op) -> Planned<Reasons> {
    let held = snapshot.nodes.that_are(Standing::Held).any(|node| {
        node.claimed_by.as_ref() == Some(&op.id) || (op.deleting && node.holders().contains(&op.id))
    });
    let nothing = Planned::from(Reasons::default());
    let withdrawn =
        op.object.status.as_ref().map(|status| prestart::withdraw(snapshot, op, &status.node_statuses));
    let mut effects = withdrawn.unwrap_or_default();
    let old = op.object.metadata.finalizers.clone().unwrap_or_default();
    // A waiter that still looks around after its reboot needs what was granted; one that is deleted does not.
    let lingers = !op.deleting && !effects.take(release::expire_waiters(snapshot, op));
    if held || lingers {
        return nothing.with(effects);
    }
    if !op.object.has_our_finalizer() {
        return nothing.with(effects).with(expiry::sweep(snapshot, op));
    }
    let finalizers = old.into_iter().filter(|finalizer| !names::is_our_finalizer(finalizer)).collect();
    nothing.with(effects).with(Action::Finalize { op: op.object.clone(), finalizers })
}

#[cfg(test)]
mod tests;

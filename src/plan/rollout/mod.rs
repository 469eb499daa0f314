//! Who is next: one NodeOp's nodes in hand are advanced, and free slots are given to the next nodes in order.
//!
//! All NodeOps are planned one after the other on one snapshot, the oldest first, and each sees what the ones before it
//! took in the same plan ([`Shared`]): a limit across nodes cannot be kept by decisions that see one object each.

mod admit;
mod adopt;
mod finalizer;
mod others;
mod preflight;
mod prestart;
pub mod status;
mod targets;

use std::{collections::BTreeMap, sync::Arc};

use self::status::Whole;
pub use self::{admit::Shared, others::age};
use crate::{
    api::{
        names,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    },
    plan::{
        image,
        model::{
            action::{Action, Plan},
            failing::{self, Mark, Troubles},
            question::Question,
            snapshot::Snapshot,
        },
        node::{
            self, legacy,
            turn::{Next, Op},
        },
        release, upgrades,
    },
};

/// Plans one NodeOp.
pub fn plan(s: &Snapshot, object: &Arc<NodeOp>, shared: &mut Shared, plan: &mut Plan) {
    let op = Op::of(object);
    preflight::sweep(s, &op, plan);
    match &object.status {
        Some(status) if status.phase.is_some_and(Phase::is_final) => conclude(s, &op, plan),
        Some(status) if legacy::is_legacy(status) => adopt::plan(s, &op, status, plan),
        // A record of nodes under no phase (somebody edited it) is a record all the same: chosen anew, what is done would be done again.
        Some(status) if status.phase.is_some() || !status.node_statuses.is_empty() => roll(s, &op, status, shared, plan),
        _ if op.deleting => conclude(s, &op, plan),
        _ if upgrades::may_start(s, object) => start(s, &op, plan),
        _ => {}
    }
}

/// Records the targets.
fn start(s: &Snapshot, op: &Op, plan: &mut Plan) {
    match adopt::may_have_begun(s, op, plan) {
        Some(false) => {}
        Some(true) => return adopt::plan(s, op, &NodeOpStatus::default(), plan),
        None => return,
    }
    let nodes = targets::choose(s, &op.object);
    let status = status::summarize(&op.object, nodes, &Whole::default(), s.now);
    status::write(s, &op.object, status, plan);
}

/// One pass over a NodeOp under way.
fn roll(s: &Snapshot, op: &Op, old: &NodeOpStatus, shared: &mut Shared, plan: &mut Plan) {
    release::expire_waiters(s, op, plan);
    let mut nodes = old.node_statuses.clone();
    let stopped = op.intent.stop_on_failure && nodes.values().any(|node| node.phase == Phase::Failed);
    let mut troubles = Troubles::default();
    for (name, node) in nodes.iter_mut().filter(|(_, node)| matches!(node.phase, Phase::Running | Phase::Preflight)) {
        let mark = Mark::set(plan);
        let next = if node.phase == Phase::Running {
            node::advance(s, op, name, node, plan)
        } else {
            preflight::advance(s, op, name, node, stopped, plan)
        };
        let trouble = mark.lift(s, plan);
        apply(op, name, node, next, |why| troubles.complete(why, trouble), plan);
    }
    let stopped = stopped || (op.intent.stop_on_failure && nodes.values().any(|node| node.phase == Phase::Failed));
    if stopped {
        nodes.values_mut().for_each(|node| preflight::withdraw(s.now, node));
    }
    let unreleased = unreleased(s, op, &old.node_statuses, &mut nodes, &mut troubles, plan);
    let mut whole = Whole { unreleased, stopped, deleting: op.deleting, refused: None, troubles };
    admit::fill(s, op, &mut nodes, &mut whole, shared, plan);
    if whole.refused.is_some() {
        nodes.values_mut().for_each(|node| preflight::withdraw(s.now, node));
    }
    if op.deleting || stopped || whole.refused.is_some() {
        prestart::withdraw(s, op, &nodes, plan);
    } else {
        prestart::prepare(s, op, &nodes, plan);
    }
    let mut status = status::summarize(&op.object, nodes, &whole, s.now);
    image::record(s, &op.object, &mut status);
    status::write(s, &op.object, status, plan);
}

/// Puts a step's result into the status, and the reason to wait where readers and tests look for it.
fn apply(op: &Op, name: &str, node: &mut NodeStatus, next: Next, complete: impl FnOnce(String) -> String, plan: &mut Plan) {
    match next {
        Next::Become(next) => *node = *next,
        Next::Wait(why) => {
            let why = complete(why);
            plan.waiting.insert((op.me.key(), name.to_owned()), why.clone());
            node.message = Some(why);
        }
    }
}

/// Nodes that are no longer worked on and not proved to be given back: each holds its slot.
///
/// That a node is free again stands in status, like that it was taken: a view of the node that is older than our claim
/// shows it free as well, and a leader with such a view would take one node too many. So a live read proves it.
fn unreleased(
    s: &Snapshot,
    op: &Op,
    old: &BTreeMap<String, NodeStatus>,
    nodes: &mut BTreeMap<String, NodeStatus>,
    troubles: &mut Troubles,
    plan: &mut Plan,
) -> usize {
    let mut count = 0;
    for (name, entry) in nodes.iter_mut().filter(|(_, entry)| entry.phase != Phase::Running) {
        let Some(uid) = entry.node_uid.clone() else { continue };
        let question = Question::Node(name.clone());
        let node = s.nodes.get(name).filter(|node| node.uid == uid);
        if let Some(node) = node.filter(|node| node.claimed_by.as_ref() == Some(&op.me)) {
            count += 1;
            if let Some(trouble) = release::node(s, node).trouble(s) {
                troubles.note(trouble);
            }
        } else if old.get(name).is_some_and(|old| old.phase == Phase::Running) {
            // Not before it stands in status that the node is given up: a claim may be under way that relies on it.
            count += 1;
        } else if s.answer(&question).is_some() {
            entry.node_uid = None;
        } else {
            failing::of(s, &question).into_iter().for_each(|trouble| troubles.note(trouble));
            plan.questions.insert(question);
            count += 1;
        }
    }
    count
}

/// A finished (or never started) NodeOp: once no node is claimed any more, what was granted is taken back and the
/// finalizer goes. The Go operator's finalizer goes too.
fn conclude(s: &Snapshot, op: &Op, plan: &mut Plan) {
    let held =
        s.nodes.values().any(|node| node.claimed_by.as_ref() == Some(&op.me) || (op.deleting && node.cordoned_by.as_ref() == Some(&op.me)));
    if let Some(status) = &op.object.status {
        prestart::withdraw(s, op, &status.node_statuses, plan);
    }
    let old = op.object.metadata.finalizers.clone().unwrap_or_default();
    let ours = [names::FINALIZER, names::LEGACY_FINALIZER];
    // A waiter that still looks around after its reboot needs what was granted; one that is deleted does not.
    let lingers = !op.deleting && !release::expire_waiters(s, op, plan);
    if held || lingers || !old.iter().any(|finalizer| ours.contains(&finalizer.as_str())) {
        return;
    }
    let finalizers = old.into_iter().filter(|finalizer| !ours.contains(&finalizer.as_str())).collect();
    plan.actions.push(Action::Conclude { op: op.object.clone(), finalizers });
}

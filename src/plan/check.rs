//! What must never be, checked on a snapshot and on the plan made from it. Property tests call it after every
//! plan.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    api::nodeop::{NodeOpStatus, NodeStatus, Phase},
    plan::{
        conditions,
        model::{
            action::Action,
            effects::{Effects, Plan},
            id::Key,
            intent::Intent,
            snapshot::Snapshot,
        },
        node::{
            legacy,
            stage::{self, Stage},
            state::Entry,
        },
        release, rollout,
    },
};

/// The broken invariants of a plan, as sentences; empty if all hold.
pub fn broken(snapshot: &Snapshot, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    for action in &plan.actions {
        if let Action::PatchStatus { op, status, .. } = action {
            let before = op.status.as_ref();
            if before.is_some_and(|before| is_changed_after_its_end(before, status)) {
                found.push(format!("a finished NodeOp is written: {:?}", op.metadata.name));
            }
            let running = status.node_statuses.values().filter(|node| node.phase == Phase::Running).count();
            let before_running = before
                .map_or(0, |b| b.node_statuses.values().filter(|node| node.phase == Phase::Running).count());
            if Intent::of(op).concurrency.is_some_and(|limit| running > limit.max(before_running)) {
                found.push(format!("{running} nodes are worked on at once of {:?}", op.metadata.name));
            }
            let over = status.phase == Some(Phase::Completed) && !conditions::is_expired(&status.conditions);
            if over && status.node_statuses.is_empty() {
                found.push(format!("{:?} is completed without a node", op.metadata.name));
            }
            if status.phase == Some(Phase::Pending) && running > 0 {
                found.push(format!("{:?} is pending, and {running} nodes are worked on", op.metadata.name));
            }
            for (name, entry) in before.iter().flat_map(|b| &b.node_statuses) {
                let after = status.node_statuses.get(name);
                // A final entry changes in nothing but who holds its slot.
                let without_slot = |of: Option<&NodeStatus>| {
                    of.map(|of| NodeStatus { node_uid: None, holds_slot: None, ..of.clone() })
                };
                let taken =
                    after.is_some_and(|after| after.node_uid.is_some() && after.node_uid != entry.node_uid);
                // The Go operator called a node completed before it had rebooted.
                let rebooting = legacy::is_legacy_reboot(before, entry);
                if entry.phase.is_final()
                    && !rebooting
                    && (taken || without_slot(after) != without_slot(Some(entry)))
                {
                    found.push(format!("the final entry of {name} changes"));
                }
            }
        }
    }
    found.extend(plan.actions.iter().flat_map(unheard_of));
    found.extend(unexplained(snapshot, plan));
    found.extend(spinning(snapshot, plan));
    found.extend(passed_by(snapshot));
    found
}

/// Whether more is written of a NodeOp that is over than of which generation of the spec its status is.
pub fn is_changed_after_its_end(before: &NodeOpStatus, after: &NodeOpStatus) -> bool {
    let bare = |status: &NodeOpStatus| {
        let mut bare = NodeOpStatus { observed_generation: None, ..status.clone() };
        bare.conditions.iter_mut().for_each(|condition| condition.observed_generation = None);
        bare
    };
    before.is_over() && bare(before) != bare(after)
}

/// NodeOps that a plan passes by as finished, and for which there would have been something to do.
fn passed_by(snapshot: &Snapshot) -> Vec<String> {
    let recorded = snapshot.finished.iter().map(|op| Arc::new(op.nodeop()));
    let at_rest =
        snapshot.ops.values().cloned().chain(recorded).filter(|op| rollout::is_at_rest(snapshot, op));
    let planned = at_rest.map(|op| {
        // One that is over has no node that it waits for.
        let releases = release::Releases::default();
        let planned = rollout::plan_nodeop(snapshot, &op, &releases, &mut rollout::Shared::default());
        (op, planned)
    });
    let wanted = planned.filter(|(_, planned)| planned.effects != Effects::default());
    wanted
        .map(|(op, planned)| format!("{:?} is passed by: {:?}", op.metadata.name, planned.effects))
        .collect()
}

/// Entries of a status that are in no stage of a node's life, or come from one that does not lead there. What
/// the Go operator wrote is not measured by our table.
fn unheard_of(action: &Action) -> Vec<String> {
    let Action::PatchStatus { op, status, .. } = action else { return Vec::new() };
    let before = op.status.as_ref();
    if before.is_some_and(NodeOpStatus::is_legacy) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, entry) in &status.node_statuses {
        let from = before.and_then(|before| before.node_statuses.get(name)).map(Stage::of);
        // Without an entry before, it is a target that was just chosen, or a Job of the Go operator's that is
        // taken over.
        let to = Stage::of(entry);
        match (from.unwrap_or(to), to) {
            (Some(from), Some(to)) if !stage::is_legal(from, to) => {
                found.push(format!("{name} goes from {from} to {to}, which is no way in plan::node::stage"));
            }
            (Some(_), None) => found.push(format!("{name} is in no stage: {entry:?}")),
            (Some(_), Some(_)) if has_moved(before, name, entry) && !is_read_back(entry) => {
                found.push(format!("{name} is read as something else than was written: {entry:?}"));
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
    }
    found
}

/// Whether more of an entry is written than its message: what is only waited for stays as somebody wrote it.
fn has_moved(before: Option<&NodeOpStatus>, name: &str, entry: &NodeStatus) -> bool {
    let bare = |entry: &NodeStatus| NodeStatus { message: None, ..entry.clone() };
    let old = before.and_then(|before| before.node_statuses.get(name));
    old.is_none_or(|old| bare(old) != bare(entry))
}

/// Whether an entry says the same once it was parsed and written again: no field is without a meaning, and
/// none that its stage needs is missing.
fn is_read_back(entry: &NodeStatus) -> bool {
    Entry::parse(entry).is_ok_and(|parsed| parsed.record() == *entry)
}

/// A plan that would be made again at once, with the same result, for ever.
fn spinning(snapshot: &Snapshot, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    if !plan.questions.is_empty() && plan.questions.iter().all(|question| snapshot.answer(question).is_some())
    {
        found.push(format!("asks again only what was answered: {:?}", plan.questions));
    }
    if let Some(at) = plan.wake_at.filter(|at| *at <= snapshot.now) {
        found.push(format!("wakes at {at}, which is not after {}", snapshot.now));
    }
    found
}

/// Whether it is said why the node waits.
fn is_explained(plan: &Plan, op: &Key, node: &str, entry: &NodeStatus) -> bool {
    let Some(reasons) = plan.waiting.get(op) else { return false };
    reasons.nodes.contains_key(node) || (reasons.others.is_some() && entry.phase == Phase::Pending)
}

/// Nodes that are not finished or still hold their slot, and are neither moved by this plan nor said to wait
/// for anything.
fn unexplained(snapshot: &Snapshot, plan: &Plan) -> Vec<String> {
    let written: BTreeMap<_, _> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::PatchStatus { op, status, .. } => {
                Some(((op.metadata.namespace.clone(), op.metadata.name.clone()), status))
            }
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for (key, op) in &snapshot.ops {
        let Some(status) = op.status.as_ref().filter(|status| !status.phase.is_some_and(Phase::is_final))
        else {
            continue;
        };
        let holds = |entry: &NodeStatus| {
            !entry.phase.is_final() || entry.node_uid.is_some() || entry.holds_slot == Some(true)
        };
        for (name, entry) in status.node_statuses.iter().filter(|(_, entry)| holds(entry)) {
            let moved = written
                .get(&(op.metadata.namespace.clone(), op.metadata.name.clone()))
                .and_then(|w| w.node_statuses.get(name));
            let explained = is_explained(plan, key, name, entry) || moved.is_some_and(|moved| moved != entry);
            if !explained {
                found.push(format!("{}/{} on {name} stands still without a reason: {entry:?}", key.0, key.1));
            }
        }
    }
    found
}

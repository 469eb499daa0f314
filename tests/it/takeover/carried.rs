//! What follows over many plans, with what they want of statuses and nodes carried out: for worlds in which
//! one operation waits for another.

use std::sync::Arc;

use kairos_operator::{
    api::{child, nodeop::NodeOp},
    plan::model::{
        action::{Action, NodeChange},
        id::OpRef,
        snapshot::{NodeView, Snapshot},
    },
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::answered;
use crate::simulation::image_check;

/// Plans and carries out, until nothing more is written; returns everything else that was wanted. `seen` is
/// shown the world before each plan.
pub fn carried_out(s: &mut Snapshot, mut seen: impl FnMut(&Snapshot)) -> Vec<Action> {
    let mut others = Vec::new();
    for _ in 0..60 {
        let wanted = answered(s).actions;
        let written = wanted.iter().filter(|action| carry_out(s, action)).count();
        if written == 0 {
            s.answers.clear();
            others.extend(wanted);
            return others;
        }
        others.extend(wanted.into_iter().filter(|action| !is_written(action)));
        s.now = s.now.checked_add(SignedDuration::from_secs(10)).unwrap();
        seen(s);
    }
    panic!("it never rests: {others:?}");
}

fn is_written(action: &Action) -> bool {
    let looks = matches!(action, Action::CreatePreflightPod { op, .. } if image_check::is_one(op));
    looks
        || matches!(
            action,
            Action::PatchStatus { .. }
                | Action::SetFinalizers { .. }
                | Action::Finalize { .. }
                | Action::PatchNode { .. }
                | Action::PatchUpgradeStatus { .. }
                | Action::CreateChild { .. }
                | Action::PropagateSpec { .. }
        )
}

/// Writes what is to be written; whether it was that kind of an action.
fn carry_out(s: &mut Snapshot, action: &Action) -> bool {
    match action {
        Action::PatchStatus { op, status, .. } => {
            change(s, op, |op| op.status = Some(status.as_ref().clone()));
        }
        Action::SetFinalizers { op, finalizers } | Action::Finalize { op, finalizers } => {
            change(s, op, |op| op.metadata.finalizers = Some(finalizers.clone()));
        }
        Action::PropagateSpec { child, steering, .. } => change(s, child, |op| {
            (op.spec.concurrency, op.spec.paused) = (steering.concurrency, Some(steering.paused));
            op.spec.stop_on_failure = Some(steering.stop_on_failure);
        }),
        Action::PatchNode { name, change, .. } => {
            let node = patched(&s.nodes[name], change);
            s.nodes.insert(name.clone(), Arc::new(node));
        }
        Action::PatchUpgradeStatus { upgrade, status, .. } => {
            let mut upgrade = upgrade.as_ref().clone();
            upgrade.status = Some(status.as_ref().clone());
            let key = ("ns".to_owned(), upgrade.metadata.name.clone().unwrap());
            s.upgrades.insert(key, Arc::new(upgrade));
        }
        Action::CreateChild { upgrade, name } => {
            let mut op = child::node_op(upgrade, name);
            op.metadata.uid = Some(format!("{name}-uid"));
            op.metadata.generation = Some(1);
            op.metadata.creation_timestamp = Some(Time(s.now));
            s.ops.entry(OpRef::of(&op).key()).or_insert_with(|| Arc::new(op));
        }
        Action::CreatePreflightPod { op, node, name } if image_check::is_one(op) => {
            s.pods.insert(("ns".into(), name.clone()), Arc::new(image_check::passed(op, node, name)));
        }
        _ => {}
    }
    is_written(action)
}

fn change(s: &mut Snapshot, op: &NodeOp, change: impl FnOnce(&mut NodeOp)) {
    let key = OpRef::of(op).key();
    let mut op = s.ops[&key].as_ref().clone();
    change(&mut op);
    s.ops.insert(key, Arc::new(op));
}

fn patched(node: &NodeView, change: &NodeChange) -> NodeView {
    let mut node = node.clone();
    node.unschedulable = change.unschedulable.unwrap_or(node.unschedulable);
    if change.kept_cordon.is_some() || change.cordoned_by.is_some() {
        node.cordoned_by = change.cordoned_by.clone().flatten();
        node.kept_cordon = change.kept_cordon.as_deref().cloned();
    }
    node.claimed_by = change.claimed_by.clone().unwrap_or(node.claimed_by);
    for (name, value) in &change.annotations {
        match value {
            Some(value) => drop(node.annotations.insert(name.clone(), value.clone())),
            None => drop(node.annotations.remove(name)),
        }
    }
    node
}

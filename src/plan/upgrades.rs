//! NodeOpUpgrades: each makes one NodeOp of its own name, once, and shows that one's status.
//!
//! Its NodeOp's UID is recorded before that NodeOp may start (see [`may_start`]), so a NodeOp that is missing later has
//! run or been deleted, and is never made again. A NodeOp of the name that is somebody else's is not touched.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};

use super::{
    action::{Action, Plan},
    question::Question,
    snapshot::{Key, OpRef, Snapshot},
    step::later,
};
use crate::api::{
    names::condition,
    nodeop::{NodeOp, NodeStatus, Phase},
    upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
};

/// Between two writes that only follow the nodes' steps and messages; the NodeOp itself shows them at once.
const DETAILS_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Above so many nodes only those are copied that are unfinished or failed.
const COPIED_WHOLE: usize = 1000;

/// Plans every NodeOpUpgrade.
pub fn plan(s: &Snapshot, plan: &mut Plan) {
    for (key, upgrade) in &s.upgrades {
        let over = upgrade.status.as_ref().and_then(|status| status.phase).is_some_and(UpgradePhase::is_final);
        if over || upgrade.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match s.ops.get(key) {
            Some(child) if owned_by(child, upgrade) => follow(s, upgrade, child, plan),
            Some(_) => write(s, upgrade, foreign(upgrade), plan),
            None => absent(s, key, upgrade, plan),
        }
    }
}

fn owner_uid(op: &NodeOp) -> Option<&str> {
    let owners = op.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == "NodeOpUpgrade").map(|owner| owner.uid.as_str())
}

fn owned_by(op: &NodeOp, upgrade: &NodeOpUpgrade) -> bool {
    owner_uid(op).is_some() && owner_uid(op) == upgrade.metadata.uid.as_deref()
}

/// Whether a NodeOp may start: one that a NodeOpUpgrade controls waits until that one's status names it.
pub fn may_start(s: &Snapshot, op: &NodeOp) -> bool {
    let Some(owner) = owner_uid(op) else { return true };
    let key = (op.metadata.namespace.clone().unwrap_or_default(), op.metadata.name.clone().unwrap_or_default());
    let upgrade = s.upgrades.get(&key).filter(|upgrade| upgrade.metadata.uid.as_deref() == Some(owner));
    let recorded = upgrade.and_then(|upgrade| upgrade.status.as_ref()).and_then(|status| status.node_op_uid.as_ref());
    recorded.is_some() && recorded == op.metadata.uid.as_ref()
}

fn base(upgrade: &NodeOpUpgrade) -> NodeOpUpgradeStatus {
    let mut status = upgrade.status.clone().unwrap_or_default();
    status.observed_generation = upgrade.metadata.generation;
    status.node_op_name = upgrade.metadata.name.clone();
    status
}

/// No NodeOp of the name is in the cache.
fn absent(s: &Snapshot, key: &Key, upgrade: &Arc<NodeOpUpgrade>, plan: &mut Plan) {
    let mut status = base(upgrade);
    if let Some(uid) = status.node_op_uid.clone() {
        let child = Question::Op(OpRef { namespace: key.0.clone(), name: key.1.clone(), uid });
        if !s.is_gone(&child) {
            plan.questions.insert(child);
            return;
        }
        status.phase = Some(UpgradePhase::Failed);
        status.message = Some("Upgrade operation failed: its NodeOp was deleted. Nothing is run twice: create the upgrade again".into());
        return write(s, upgrade, status, plan);
    }
    // The Go operator's object whose NodeOp is gone: it has run, or nobody knows.
    if status.phase.is_some_and(|phase| phase != UpgradePhase::Initializing) {
        status.phase = Some(UpgradePhase::Failed);
        status.message = Some("Upgrade operation failed: its NodeOp is gone. Nothing is run twice: create the upgrade again".into());
        return write(s, upgrade, status, plan);
    }
    if status.phase.is_none() {
        status.phase = Some(UpgradePhase::Initializing);
        status.message = Some("NodeOp is being created".into());
        return write(s, upgrade, status, plan);
    }
    plan.actions.push(Action::MakeChild { upgrade: upgrade.clone() });
}

fn foreign(upgrade: &NodeOpUpgrade) -> NodeOpUpgradeStatus {
    let mut status = base(upgrade);
    let name = status.node_op_name.clone().unwrap_or_default();
    status.phase = Some(UpgradePhase::Initializing);
    status.message = Some(format!("a NodeOp {name} exists that this upgrade did not create: delete it, or give the upgrade another name"));
    status
}

/// The upgrade's NodeOp is there: record it, pass changes on, show its status.
fn follow(s: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, child: &Arc<NodeOp>, plan: &mut Plan) {
    let mut status = base(upgrade);
    let recorded = status.node_op_uid.clone();
    if recorded.is_some() && recorded != child.metadata.uid {
        status.phase = Some(UpgradePhase::Failed);
        status.message = Some("Upgrade operation failed: its NodeOp was replaced. Nothing is run twice: create the upgrade again".into());
        return write(s, upgrade, status, plan);
    }
    let (from, to) = (&upgrade.spec, &child.spec);
    if (from.concurrency, from.stop_on_failure) != (to.concurrency, to.stop_on_failure) && child.metadata.deletion_timestamp.is_none() {
        let (concurrency, stop_on_failure) = (from.concurrency, from.stop_on_failure);
        plan.actions.push(Action::PassOn { child: child.clone(), concurrency, stop_on_failure });
    }
    status.node_op_uid = child.metadata.uid.clone();
    match &child.status {
        None => {
            status.phase = Some(UpgradePhase::Initializing);
            status.message = Some("NodeOp created".into());
        }
        Some(shown) => {
            status.phase = shown.phase.map(UpgradePhase::from);
            status.message = Some(sentence(shown.phase, shown.message.as_deref().unwrap_or_default()));
            status.node_statuses = copied(&shown.node_statuses);
            status.counts = shown.counts.clone();
            status.conditions = conditions(&shown.conditions, upgrade.metadata.generation);
        }
    }
    write(s, upgrade, status, plan);
}

/// The Go operator's sentence, and after it what there is to say.
fn sentence(phase: Option<Phase>, detail: &str) -> String {
    let what = match phase {
        Some(Phase::Completed) => "completed successfully",
        Some(Phase::Failed) => "failed",
        Some(Phase::Running | Phase::Preflight) => "is running",
        Some(Phase::Pending) | None => "is pending",
    };
    if detail.is_empty() { format!("Upgrade operation {what}") } else { format!("Upgrade operation {what}: {detail}") }
}

fn copied(nodes: &BTreeMap<String, NodeStatus>) -> BTreeMap<String, NodeStatus> {
    let whole = nodes.len() <= COPIED_WHOLE;
    let copy = nodes.iter().filter(|(_, node)| whole || node.phase != Phase::Completed);
    let times = |node: &NodeStatus| NodeStatus {
        phase: node.phase,
        step: node.step,
        job_name: node.job_name.clone(),
        message: node.message.clone(),
        reboot_status: node.reboot_status,
        last_updated: node.last_updated.clone(),
        verified: node.verified,
        ..NodeStatus::default()
    };
    copy.map(|(name, node)| (name.clone(), times(node))).collect()
}

fn conditions(shown: &[Condition], generation: Option<i64>) -> Vec<Condition> {
    shown.iter().map(|condition| Condition { observed_generation: generation, ..condition.clone() }).collect()
}

/// Writes the status if it differs: at once if a phase changed, else at most every few seconds.
fn write(s: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, mut status: NodeOpUpgradeStatus, plan: &mut Plan) {
    let old = upgrade.status.as_ref();
    if old == Some(&status) {
        return;
    }
    let urgent = old.is_none_or(|old| phases(old) != phases(&status));
    let last = old.and_then(|old| old.last_updated.as_ref()).map(|time| later(time.0, DETAILS_EVERY));
    if let Some(at) = last.filter(|at| !urgent && s.now < *at) {
        return plan.wake(at);
    }
    if status.conditions.is_empty() {
        status.conditions = vec![progressing(&status, s)];
    }
    status.last_updated = Some(Time(s.now));
    plan.actions.push(Action::UpgradeStatus { upgrade: upgrade.clone(), status: Box::new(status) });
}

type Phases<'a> = (Option<UpgradePhase>, Option<&'a String>, BTreeMap<&'a String, Phase>);

fn phases(status: &NodeOpUpgradeStatus) -> Phases<'_> {
    (status.phase, status.node_op_uid.as_ref(), status.node_statuses.iter().map(|(name, node)| (name, node.phase)).collect())
}

/// Before there is a NodeOp to copy from.
fn progressing(status: &NodeOpUpgradeStatus, s: &Snapshot) -> Condition {
    let failed = status.phase == Some(UpgradePhase::Failed);
    Condition {
        type_: if failed { condition::FAILED.into() } else { condition::PROGRESSING.into() },
        status: "True".into(),
        reason: if failed { "Failed".into() } else { "Initializing".into() },
        message: status.message.clone().unwrap_or_default(),
        observed_generation: status.observed_generation,
        last_transition_time: Time(s.now),
    }
}

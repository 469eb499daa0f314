//! NodeOpUpgrades: each makes one NodeOp of its own name, once, and shows that one's status.
//!
//! Its NodeOp's UID is recorded before that NodeOp may start (see [`may_start`]), so a NodeOp that is missing
//! later has run or been deleted, and is never made again. A NodeOp of the name that is somebody else's is
//! not touched.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};

use crate::{
    api::{
        names::reason,
        nodeop::{NodeOp, NodeStatus, Phase},
        owner,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        conditions::{self, Moment, Standing},
        model::{
            action::Action,
            effects::Effects,
            failing,
            id::{Key, OpRef},
            question::Question,
            snapshot::Snapshot,
            time::later,
        },
    },
};

/// Between two writes that only follow the nodes' steps and messages; the NodeOp itself shows them at once.
const DETAILS_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Above this number of nodes only those are copied that are worked on, or failed.
const MAX_COPIED_ENTRIES: usize = 1000;

/// Plans every NodeOpUpgrade.
pub fn plan(snapshot: &Snapshot) -> Effects {
    let mut effects = Effects::default();
    for (key, upgrade) in &snapshot.upgrades {
        let over =
            upgrade.status.as_ref().and_then(|status| status.phase).is_some_and(UpgradePhase::is_final);
        if over || upgrade.metadata.deletion_timestamp.is_some() {
            continue;
        }
        effects.add(match snapshot.ops.get(key) {
            Some(child) if owned_by(child, upgrade) => follow(snapshot, upgrade, child),
            Some(_) => foreign(snapshot, upgrade),
            None => absent(snapshot, key, upgrade),
        });
    }
    effects
}

fn owned_by(op: &NodeOp, upgrade: &NodeOpUpgrade) -> bool {
    let owner = owner::upgrade_uid(&op.metadata);
    owner.is_some() && owner == upgrade.metadata.uid.as_deref()
}

/// Whether a NodeOp may start: one that a NodeOpUpgrade controls waits until that one's status names it.
pub fn may_start(snapshot: &Snapshot, op: &NodeOp) -> bool {
    let Some(owner) = owner::upgrade_uid(&op.metadata) else { return true };
    let key =
        (op.metadata.namespace.clone().unwrap_or_default(), op.metadata.name.clone().unwrap_or_default());
    let upgrade =
        snapshot.upgrades.get(&key).filter(|upgrade| upgrade.metadata.uid.as_deref() == Some(owner));
    let recorded =
        upgrade.and_then(|upgrade| upgrade.status.as_ref()).and_then(|status| status.node_op_uid.as_ref());
    recorded.is_some() && recorded == op.metadata.uid.as_ref()
}

fn base(upgrade: &NodeOpUpgrade) -> NodeOpUpgradeStatus {
    let mut status = upgrade.status.clone().unwrap_or_default();
    status.observed_generation = upgrade.metadata.generation;
    status.node_op_name = upgrade.metadata.name.clone();
    status
}

/// No NodeOp of the name is in the cache.
fn absent(snapshot: &Snapshot, key: &Key, upgrade: &Arc<NodeOpUpgrade>) -> Effects {
    let status = base(upgrade);
    if let Some(uid) = status.node_op_uid.clone() {
        let child = Question::Op(OpRef { namespace: key.0.clone(), name: key.1.clone(), uid });
        if !snapshot.is_gone(&child) {
            return child.into();
        }
        let why = "Upgrade operation failed: its NodeOp was deleted. Nothing is run twice: create the upgrade again";
        return say(snapshot, upgrade, status, reason::FAILED, why.into());
    }
    // The Go operator's object whose NodeOp is gone: it has run, or nobody knows. It wrote its first status
    // after the NodeOp.
    let legacy = upgrade.status.as_ref().is_some_and(|status| status.observed_generation.is_none());
    if legacy || status.phase.is_some_and(|phase| phase != UpgradePhase::Initializing) {
        let why =
            "Upgrade operation failed: its NodeOp is gone. Nothing is run twice: create the upgrade again";
        return say(snapshot, upgrade, status, reason::FAILED, why.into());
    }
    let make = Action::CreateChild { upgrade: upgrade.clone() };
    let error = failing::of(snapshot, &make);
    let mut effects = Effects::act(Some(make).filter(|_| status.phase.is_some()));
    let (reason, why) = match error {
        Some(error) => (reason::BLOCKED, format!("NodeOp is being created; {error}")),
        None => (reason::INITIALIZING, "NodeOp is being created".into()),
    };
    effects.add(say(snapshot, upgrade, status, reason, why));
    effects
}

fn foreign(snapshot: &Snapshot, upgrade: &Arc<NodeOpUpgrade>) -> Effects {
    let status = base(upgrade);
    let name = status.node_op_name.clone().unwrap_or_default();
    let why = format!(
        "a NodeOp {name} exists that this upgrade did not create: delete it, or give the upgrade another name"
    );
    say(snapshot, upgrade, status, reason::NAME_TAKEN, why)
}

/// Writes what there is to say without a NodeOp to copy it from.
fn say(
    snapshot: &Snapshot,
    upgrade: &Arc<NodeOpUpgrade>,
    mut status: NodeOpUpgradeStatus,
    reason: &'static str,
    why: String,
) -> Effects {
    let phase = if reason == reason::FAILED { UpgradePhase::Failed } else { UpgradePhase::Initializing };
    (status.phase, status.message) = (Some(phase), Some(why));
    own_conditions(snapshot, &mut status, reason);
    write(snapshot, upgrade, status)
}

/// The upgrade's NodeOp is there: record it, pass changes on, show its status.
fn follow(snapshot: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, child: &Arc<NodeOp>) -> Effects {
    let mut effects = Effects::default();
    let mut status = base(upgrade);
    let recorded = status.node_op_uid.clone();
    if recorded.is_some() && recorded != child.metadata.uid {
        let why = "Upgrade operation failed: its NodeOp was replaced. Nothing is run twice: create the upgrade again";
        return say(snapshot, upgrade, status, reason::FAILED, why.into());
    }
    let mut error = None;
    // What may be changed. A NodeOp is given `false` by the server where an upgrade says nothing.
    let of = |concurrency: i32, paused: Option<bool>, stop: Option<bool>| {
        (concurrency, paused.unwrap_or(false), stop.unwrap_or(false))
    };
    let is = of(child.spec.concurrency, child.spec.paused, child.spec.stop_on_failure);
    // An upgrade's 0 (all at once) is what it began with: who has slowed its NodeOp down by hand since is not
    // overruled, and the server would not let us either.
    let concurrency =
        if upgrade.spec.concurrency == 0 { child.spec.concurrency } else { upgrade.spec.concurrency };
    let wanted = of(concurrency, upgrade.spec.paused, upgrade.spec.stop_on_failure);
    if wanted != is && child.metadata.deletion_timestamp.is_none() {
        let (concurrency, paused, stop_on_failure) = wanted;
        let pass_on = Action::PropagateSpec { child: child.clone(), concurrency, paused, stop_on_failure };
        error = failing::of(snapshot, &pass_on);
        effects.add(pass_on);
    }
    status.node_op_uid = child.metadata.uid.clone();
    match &child.status {
        None => {
            status.phase = Some(UpgradePhase::Initializing);
            status.message = Some("NodeOp created".into());
            own_conditions(snapshot, &mut status, reason::INITIALIZING);
        }
        Some(shown) => {
            status.phase = shown.phase.map(UpgradePhase::from);
            status.message = Some(sentence(shown.phase, shown.message.as_deref().unwrap_or_default()));
            status.node_statuses = copied(&shown.node_statuses);
            status.counts = shown.counts.clone();
            status.image = shown.image.clone();
            status.release = shown.release.clone();
            status.conditions = conditions(&shown.conditions, upgrade.metadata.generation);
        }
    }
    if let (Some(message), Some(error)) = (&mut status.message, error) {
        message.push_str(&format!("; {error}"));
    }
    effects.add(write(snapshot, upgrade, status));
    effects
}

/// The Go operator's sentence, and after it what there is to say.
fn sentence(phase: Option<Phase>, detail: &str) -> String {
    let what = match phase {
        Some(Phase::Completed) => "completed successfully",
        Some(Phase::Failed) => "failed",
        Some(Phase::Running | Phase::Preflight) => "is running",
        Some(Phase::Pending) | None => "is pending",
    };
    if detail.is_empty() {
        format!("Upgrade operation {what}")
    } else {
        format!("Upgrade operation {what}: {detail}")
    }
}

fn copied(nodes: &BTreeMap<String, NodeStatus>) -> BTreeMap<String, NodeStatus> {
    let progress = nodes.len() <= MAX_COPIED_ENTRIES;
    let tells = |node: &NodeStatus| !matches!(node.phase, Phase::Pending | Phase::Completed);
    let copy = nodes.iter().filter(|(_, node)| progress || tells(node));
    let times = |node: &NodeStatus| NodeStatus {
        phase: node.phase,
        step: node.step,
        job_name: node.job_name.clone(),
        message: node.message.clone(),
        reboot_status: node.reboot_status,
        last_updated: node.last_updated.clone(),
        verified: node.verified,
        holds_slot: node.holds_slot,
        ..NodeStatus::default()
    };
    copy.map(|(name, node)| (name.clone(), times(node))).collect()
}

fn conditions(shown: &[Condition], generation: Option<i64>) -> Vec<Condition> {
    shown.iter().map(|condition| Condition { observed_generation: generation, ..condition.clone() }).collect()
}

/// Writes the status if it differs: at once if a phase or a condition changed, else at most every few
/// seconds.
fn write(snapshot: &Snapshot, upgrade: &Arc<NodeOpUpgrade>, mut status: NodeOpUpgradeStatus) -> Effects {
    let old = upgrade.status.as_ref();
    if old == Some(&status) {
        return Effects::default();
    }
    let urgent = old.is_none_or(|old| shown(old) != shown(&status));
    // A stamp that lies in the future is of a clock that was wrong, and so an old one.
    let last = old
        .and_then(|old| old.last_updated.as_ref())
        .filter(|time| time.0 <= snapshot.now)
        .map(|time| later(time.0, DETAILS_EVERY));
    if let Some(at) = last.filter(|at| !urgent && snapshot.now < *at) {
        return Effects::wake_at(at);
    }
    status.last_updated = Some(Time(snapshot.now));
    let before = old.map_or((None, [].as_slice()), |old| (old.phase, old.conditions.as_slice()));
    let notices = conditions::notice(
        before,
        (status.phase, &status.conditions),
        status.message.as_deref().unwrap_or_default(),
    );
    let notices = notices.into_iter().collect();
    Action::PatchUpgradeStatus { upgrade: upgrade.clone(), status: Box::new(status), notices }.into()
}

/// What is shown at once: phases, and what the conditions say besides their messages.
type Shown<'a> = (Option<UpgradePhase>, Option<&'a String>, BTreeMap<&'a String, Phase>, Vec<[&'a str; 3]>);

fn shown(status: &NodeOpUpgradeStatus) -> Shown<'_> {
    let conditions =
        status.conditions.iter().map(|condition| [&*condition.type_, &*condition.status, &*condition.reason]);
    let nodes = status.node_statuses.iter().map(|(name, node)| (name, node.phase));
    (status.phase, status.node_op_uid.as_ref(), nodes.collect(), conditions.collect())
}

/// Where there is no NodeOp to copy them from.
fn own_conditions(snapshot: &Snapshot, status: &mut NodeOpUpgradeStatus, reason: &'static str) {
    let blocked =
        reason == reason::BLOCKED && conditions::is_blocked_for_long(&status.conditions, snapshot.now);
    let standing = match reason {
        reason::FAILED => Standing::Failed,
        _ => Standing::Open { reason, stalled: blocked || reason == reason::NAME_TAKEN },
    };
    let at = Moment { generation: status.observed_generation, now: snapshot.now };
    conditions::set(&mut status.conditions, standing, status.message.as_deref().unwrap_or_default(), at);
}

#[cfg(test)]
mod tests;

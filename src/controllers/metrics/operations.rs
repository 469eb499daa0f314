//! Gauges of operations and nodes, derived anew from the statuses at each plan: a restart of the operator loses
//! none, and what is gone leaves none behind.
//!
//! An operation is what a user made: a NodeOpUpgrade with its NodeOp, or a NodeOp alone. Counting its nodes is
//! work for each of thousands of them, so it is done once for each version of an object; between two plans
//! few have changed.
//!
//! Their number is bounded. Every operation that is not over is shown; of those that are over the newest
//! [`MAX_OVER`] that ended within a day ([`SHOWN_AFTER_END`]). So an alert on a failed one lasts long enough to
//! be seen, ends by itself when nobody deletes the object, and a cluster that keeps thousands of finished
//! objects has no thousands of series. Nodes are shown while they are in progress.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Error,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    exposition::gauges,
    families::{
        BLOCKED_PODS, BLOCKED_SINCE, Family, LAST_PROGRESS, NODES, PHASE, STALLED, START, STEP_DEADLINE,
        STEP_START, WAITING,
    },
    progress::{Counted, OperationKind, Remembered, step, step_name},
};
use crate::{
    api::{
        names::condition,
        nodeop::{Counts, NodeOp, NodeOpStatus, NodeStatus, Phase, Step},
        owner,
        upgrade::{NodeOpUpgrade, UpgradePhase},
    },
    plan::model::{
        action::Plan,
        id::{Key, OpRef},
        snapshot::Snapshot,
        why::WaitReason,
    },
};

/// Operations that are over, at most.
const MAX_OVER: usize = 50;
/// For how long they are shown.
const SHOWN_AFTER_END: SignedDuration = SignedDuration::from_hours(24);

/// The phases of an operation; `Deleting` is none of its status.
const OPERATION_PHASES: [&str; 6] = ["Initializing", "Pending", "Running", "Completed", "Failed", DELETING];
const DELETING: &str = "Deleting";
/// The phases of a node, in their order.
const NODE_PHASES: [Phase; 5] =
    [Phase::Pending, Phase::Preflight, Phase::Running, Phase::Completed, Phase::Failed];

const fn node_phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Preflight => "Preflight",
        Phase::Running => "Running",
        Phase::Completed => "Completed",
        Phase::Failed => "Failed",
    }
}

const fn phase_name(phase: UpgradePhase) -> &'static str {
    match phase {
        UpgradePhase::Initializing => "Initializing",
        UpgradePhase::Pending => "Pending",
        UpgradePhase::Running => "Running",
        UpgradePhase::Completed => "Completed",
        UpgradePhase::Failed => "Failed",
    }
}

/// What is shown of one operation.
#[derive(Debug)]
struct Shown {
    namespace: String,
    name: String,
    kind: OperationKind,
    phase: &'static str,
    stalled: bool,
    created: Option<i64>,
    targets: Targets,
    /// How many targets wait for each reason; nothing is waited for once it is over.
    waiting: Option<[i64; WaitReason::ALL.len()]>,
}

/// The targets of an operation, counted.
#[derive(Clone, Debug, Default)]
struct Targets {
    nodes: [i64; NODE_PHASES.len()],
    last_progress: Option<i64>,
}

impl Targets {
    /// As they were counted in a status. Of what is over, the cache keeps no more; and a NodeOpUpgrade whose
    /// NodeOp is gone has no more to say.
    fn said(counts: Option<&Counts>) -> Self {
        let Counts { pending, running, completed, failed, .. } = counts.cloned().unwrap_or_default();
        Self { nodes: [pending, 0, running, completed, failed].map(i64::from), last_progress: None }
    }
}

/// A node in progress.
#[derive(Clone, Debug)]
struct InProgress {
    node: String,
    step: Step,
    since: Option<i64>,
    deadline: Option<i64>,
    blocked_since: Option<i64>,
}

/// What is known of a version of a NodeOp.
#[derive(Debug)]
struct Known {
    object: Arc<NodeOp>,
    targets: Targets,
    in_progress: Vec<InProgress>,
}

/// All that is shown, and what it is derived from.
#[derive(Debug, Default)]
pub struct Operations {
    known: BTreeMap<Key, Known>,
    /// With the NodeOp's UID.
    remembered: BTreeMap<Key, (String, Remembered)>,
    shown: Vec<Shown>,
    /// By node and step. Two operations may be at the preflight of one node for a moment.
    steps: BTreeMap<(String, &'static str), InProgress>,
    /// By node: pods whose eviction is refused, and since when the drain is blocked.
    drains: BTreeMap<String, (i64, Option<i64>)>,
}

impl Operations {
    /// Takes over what a plan was made from, and why it leaves nodes where they are.
    pub fn planned(&mut self, snapshot: &Snapshot, plan: &Plan, counted: &Counted) {
        self.known.retain(|key, _| snapshot.ops.contains_key(key));
        for (key, op) in &snapshot.ops {
            if !self.known.get(key).is_some_and(|known| Arc::ptr_eq(&known.object, op)) {
                self.known.insert(key.clone(), Known::of(op));
            }
        }
        self.remembered.retain(|key, (uid, remembered)| {
            let op = snapshot.ops.get(key).filter(|op| op.metadata.uid.as_ref() == Some(uid));
            op.iter().for_each(|op| remembered.look(snapshot, op, counted));
            op.is_some() && !remembered.is_empty()
        });
        self.show_nodes(snapshot);
        self.show_operations(snapshot, plan);
    }

    /// Takes over a status that was written in place of the one that stands in `op`.
    pub fn recorded(&mut self, op: &NodeOp, status: &NodeOpStatus, counted: &Counted) {
        let OpRef { namespace, name, uid } = OpRef::of(op);
        let (of, remembered) = self.remembered.entry((namespace, name)).or_default();
        if *of != uid {
            (*of, *remembered) = (uid, Remembered::default());
        }
        remembered.recorded(op, status, counted);
    }

    fn show_nodes(&mut self, snapshot: &Snapshot) {
        self.steps.clear();
        self.drains.clear();
        for at in self.known.values().flat_map(|known| &known.in_progress) {
            let key = (at.node.clone(), step_name(at.step));
            self.steps.entry(key).or_insert_with(|| at.clone());
            if at.step == Step::Drain {
                self.drains.insert(at.node.clone(), (0, at.blocked_since));
            }
        }
        for eviction in snapshot.evictions.values().filter(|eviction| eviction.refusal.is_some()) {
            if let Some((blocked, _)) = self.drains.get_mut(&eviction.node) {
                *blocked += 1;
            }
        }
    }

    fn show_operations(&mut self, snapshot: &Snapshot, plan: &Plan) {
        let mut waiting: BTreeMap<&Key, [i64; WaitReason::ALL.len()]> = BTreeMap::new();
        for ((key, _), why) in &plan.waiting {
            let counts = waiting.entry(key).or_insert([0; WaitReason::ALL.len()]);
            counts.get_mut(why.reason as usize).into_iter().for_each(|count| *count += 1);
        }
        let reasons = |key: &Key| waiting.get(key).copied().unwrap_or_default();
        let (mut open, mut over) = (Vec::new(), Vec::new());
        let mut add = |key: &Key, object: Object<'_>, targets: Targets| match object.ended() {
            Some(at) if later_than_a_day(at, snapshot.now) => {}
            Some(at) => over.push((Reverse(at), object.shown(key, targets, None))),
            None => open.push(object.shown(key, targets, Some(reasons(key)))),
        };
        for (key, upgrade) in &snapshot.upgrades {
            let child = self.known.get(key).filter(|known| is_child(&known.object, upgrade));
            let said = || upgrade.status.as_ref().and_then(|status| status.counts.as_ref());
            let targets = child.map_or_else(|| Targets::said(said()), |known| known.targets.clone());
            add(key, Object::of_upgrade(upgrade), targets);
        }
        for (key, known) in &self.known {
            if !snapshot.upgrades.get(key).is_some_and(|upgrade| is_child(&known.object, upgrade)) {
                add(key, Object::of_op(&known.object), known.targets.clone());
            }
        }
        over.sort_by_key(|(at, _)| *at);
        open.extend(over.into_iter().take(MAX_OVER).map(|(_, shown)| shown));
        self.shown = open;
    }
}

fn later_than_a_day(ended: Timestamp, now: Timestamp) -> bool {
    now.duration_since(ended) > SHOWN_AFTER_END
}

/// Whether a NodeOp is the one that an upgrade made.
fn is_child(op: &NodeOp, upgrade: &NodeOpUpgrade) -> bool {
    let uid = owner::upgrade_uid(&op.metadata);
    uid.is_some() && uid == upgrade.metadata.uid.as_deref()
}

/// What both kinds say of themselves.
struct Object<'a> {
    meta: &'a ObjectMeta,
    kind: OperationKind,
    phase: UpgradePhase,
    conditions: &'a [Condition],
    last_updated: Option<&'a Time>,
}

impl<'a> Object<'a> {
    fn of_upgrade(upgrade: &'a NodeOpUpgrade) -> Self {
        let status = upgrade.status.as_ref();
        Self {
            meta: &upgrade.metadata,
            kind: OperationKind::NodeOpUpgrade,
            phase: status.and_then(|status| status.phase).unwrap_or(UpgradePhase::Initializing),
            conditions: status.map(|status| status.conditions.as_slice()).unwrap_or_default(),
            last_updated: status.and_then(|status| status.last_updated.as_ref()),
        }
    }

    /// One that stands for itself, also if it is left of a NodeOpUpgrade that is gone: another one of that
    /// name may be there by now, and no two operations may have the same labels.
    fn of_op(op: &'a NodeOp) -> Self {
        let status = op.status.as_ref();
        Self {
            meta: &op.metadata,
            kind: OperationKind::NodeOp,
            phase: status.and_then(|status| status.phase).unwrap_or_default().into(),
            conditions: status.map(|status| status.conditions.as_slice()).unwrap_or_default(),
            last_updated: status.and_then(|status| status.last_updated.as_ref()),
        }
    }

    fn condition(&self, type_: &str) -> Option<&'a Condition> {
        self.conditions.iter().find(|one| one.type_ == type_ && one.status == "True")
    }

    fn deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// When it was over; nothing while it is not, or while its deletion is under way.
    fn ended(&self) -> Option<Timestamp> {
        if !self.phase.is_final() || self.deleting() {
            return None;
        }
        let end = self.condition(condition::COMPLETE).or_else(|| self.condition(condition::FAILED));
        // The cache keeps no conditions of what is over. Its status is not written any more.
        let end = end.map(|end| &end.last_transition_time).or(self.last_updated);
        Some(end.map_or(Timestamp::UNIX_EPOCH, |end| end.0))
    }

    fn shown(
        &self,
        (namespace, name): &Key,
        targets: Targets,
        waiting: Option<[i64; WaitReason::ALL.len()]>,
    ) -> Shown {
        Shown {
            namespace: namespace.clone(),
            name: name.clone(),
            kind: self.kind,
            phase: if self.deleting() { DELETING } else { phase_name(self.phase) },
            stalled: waiting.is_some() && self.condition(condition::STALLED).is_some(),
            created: seconds(self.meta.creation_timestamp.as_ref()),
            targets,
            waiting,
        }
    }
}

fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

impl Known {
    fn of(op: &Arc<NodeOp>) -> Self {
        let status = op.status.as_ref();
        let forgotten = status.filter(|status| status.node_statuses.is_empty());
        let mut targets = Targets::said(forgotten.and_then(|status| status.counts.as_ref()));
        targets.last_progress = seconds(forgotten.and_then(|status| status.last_updated.as_ref()));
        let mut in_progress = Vec::new();
        for (node, entry) in status.iter().flat_map(|status| &status.node_statuses) {
            targets.nodes.get_mut(entry.phase as usize).into_iter().for_each(|count| *count += 1);
            targets.last_progress = targets.last_progress.max(seconds(entry.last_updated.as_ref()));
            in_progress.extend(step(entry).map(|step| InProgress::of(node, step, entry)));
        }
        targets.last_progress = targets.last_progress.max(seconds(op.metadata.creation_timestamp.as_ref()));
        Self { object: op.clone(), targets, in_progress }
    }
}

impl InProgress {
    fn of(node: &str, step: Step, entry: &NodeStatus) -> Self {
        Self {
            node: node.to_owned(),
            step,
            since: seconds(entry.last_updated.as_ref()),
            deadline: seconds(entry.deadline.as_ref()),
            blocked_since: seconds(entry.blocked_since.as_ref()),
        }
    }
}

/// Writes them for a scrape.
#[derive(Debug)]
pub struct Gauges(pub Arc<Mutex<Operations>>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_each = |family: &Family, rows: fn(&Shown) -> Vec<Row<'_>>| {
            let rows = operations.shown.iter().flat_map(|one| rows(one).into_iter().map(|row| one.row(row)));
            gauges(&mut encoder, family, rows)
        };
        of_each(&PHASE, Shown::phases)?;
        of_each(&NODES, Shown::nodes)?;
        of_each(&START, |one| alone(one.created))?;
        of_each(&LAST_PROGRESS, |one| alone(one.targets.last_progress))?;
        of_each(&STALLED, |one| alone(Some(i64::from(one.stalled))))?;
        of_each(&WAITING, Shown::reasons)?;
        let steps = || operations.steps.iter().map(|((node, step), at)| (vec![node.as_str(), step], at));
        let begun = steps().filter_map(|(labels, at)| Some((labels, at.since?)));
        gauges(&mut encoder, &STEP_START, begun)?;
        let ends = steps().filter_map(|(labels, at)| Some((labels, at.deadline?)));
        gauges(&mut encoder, &STEP_DEADLINE, ends)?;
        let drains = || operations.drains.iter().map(|(node, drain)| (vec![node.as_str()], drain));
        gauges(&mut encoder, &BLOCKED_PODS, drains().map(|(labels, (pods, _))| (labels, *pods)))?;
        let blocked = drains().filter_map(|(labels, (_, since))| Some((labels, (*since)?)));
        gauges(&mut encoder, &BLOCKED_SINCE, blocked)
    }
}

/// A label besides those of the operation, and the value.
type Row<'a> = (Option<&'a str>, i64);

/// One value, if it is known, without a further label.
fn alone(value: Option<i64>) -> Vec<Row<'static>> {
    value.into_iter().map(|value| (None, value)).collect()
}

impl Shown {
    /// The labels of the operation and perhaps one more, and the value.
    fn row<'a>(&'a self, (label, value): Row<'a>) -> (Vec<&'a str>, i64) {
        let operation = [self.namespace.as_str(), self.name.as_str(), self.kind.name()];
        (operation.into_iter().chain(label).collect(), value)
    }

    fn phases(&self) -> Vec<Row<'_>> {
        OPERATION_PHASES.into_iter().map(|phase| (Some(phase), i64::from(phase == self.phase))).collect()
    }

    fn nodes(&self) -> Vec<Row<'_>> {
        let named = NODE_PHASES.into_iter().map(node_phase_name).map(Some);
        named.zip(self.targets.nodes).collect()
    }

    fn reasons(&self) -> Vec<Row<'_>> {
        let named = WaitReason::ALL.into_iter().map(|reason| Some(reason.name()));
        named.zip(self.waiting.into_iter().flatten()).collect()
    }
}

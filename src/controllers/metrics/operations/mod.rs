//! Gauges of operations and nodes, derived anew from the statuses at each plan: a restart of the operator
//! loses none, and what is gone leaves none behind.
//!
//! An operation is what a user made: a NodeOpUpgrade with its NodeOp, or a NodeOp alone. Counting its nodes
//! is work for each of thousands of them, so it is done once for each version of an object; between two
//! plans few have changed.
//!
//! Their number is bounded. Of operations that are over the newest [`MAX_OVER`] are shown that ended within
//! a day ([`SHOWN_AFTER_END`]). So an alert on a failed one lasts long enough to be seen, ends by itself
//! when nobody deletes the object, and a cluster that keeps thousands of finished objects has no thousands
//! of series. All others are shown, up to [`MAX_OPEN`]: who makes thousands of them must not make a scrape
//! larger than the memory that the operator has. Nodes are shown while they are in progress.

mod shown;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Error,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use self::shown::{Object, Row, Shown, Targets, alone, seconds};
use super::{
    exposition::gauges,
    families::{
        BLOCKED_PODS, BLOCKED_SINCE, Family, LAST_PROGRESS, NODES, PHASE, STALLED, START, STEP_DEADLINE,
        STEP_START, WAITING,
    },
    progress::{Counted, Remembered, step, step_name},
};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Step},
        owner,
        upgrade::NodeOpUpgrade,
    },
    plan::model::{
        effects::Plan,
        id::{Key, OpRef},
        snapshot::{FinishedOp, FinishedOps, Snapshot},
        why::WaitReason,
    },
};

/// Operations that are not over, at most: those that run come first, then the oldest.
const MAX_OPEN: usize = 200;
/// Operations that are over, at most.
const MAX_OVER: usize = 50;
/// For how long they are shown.
const SHOWN_AFTER_END: SignedDuration = SignedDuration::from_hours(24);

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
    /// The newest NodeOps of which a record is kept, as they are shown, and what they were found in.
    newest: Option<(FinishedOps, Vec<(Timestamp, Shown)>)>,
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
            match self.known.get_mut(key) {
                Some(known) if Arc::ptr_eq(&known.object, op) => {}
                Some(known) => *known = known.followed_by(op),
                None => drop(self.known.insert(key.clone(), Known::of(op))),
            }
        }
        self.remembered.retain(|key, (uid, remembered)| {
            let op = snapshot.ops.get(key).filter(|op| op.metadata.uid.as_ref() == Some(uid));
            let Some(op) = op else { return false };
            remembered.look(snapshot, op, counted);
            !remembered.is_empty()
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
        for (node, (blocked, _)) in &mut self.drains {
            let tried = snapshot.evictions.get(node).into_iter().flat_map(|pods| pods.values());
            let refused = tried.filter(|eviction| eviction.refusal.is_some()).count();
            *blocked = i64::try_from(refused).unwrap_or(i64::MAX);
        }
    }

    fn show_operations(&mut self, snapshot: &Snapshot, plan: &Plan) {
        let reasons = |key: &Key| {
            let mut counts = [0; WaitReason::ALL.len()];
            let Some(reasons) = plan.waiting.get(key) else { return counts };
            let others =
                reasons.others.iter().map(|(why, nodes)| (why, i64::try_from(*nodes).unwrap_or(i64::MAX)));
            for (why, nodes) in reasons.nodes.values().map(|why| (why, 1)).chain(others) {
                if let Some(count) = counts.get_mut(why.reason as usize) {
                    *count += nodes;
                }
            }
            counts
        };
        let (mut open, mut over) = (Vec::new(), Vec::new());
        let mut add = |key: &Key, object: Object<'_>, targets: Targets, reasons| match object.ended() {
            Some(at) if later_than_a_day(at, snapshot.now) => {}
            Some(at) => over.push((Reverse(at), object.shown(key, targets, None))),
            None => open.push(object.shown(key, targets, Some(reasons))),
        };
        for (key, upgrade) in &snapshot.upgrades {
            let run = present_run(key, upgrade);
            let child = self.known.get(&run).filter(|known| is_child(&known.object, upgrade));
            let said = || upgrade.status.as_ref().and_then(|status| status.counts.as_ref());
            let targets = child.map_or_else(|| Targets::said(said()), |known| known.targets.clone());
            add(key, Object::of_upgrade(upgrade), targets, reasons(&run));
        }
        for (key, known) in &self.known {
            let owner = owner::upgrade(&known.object.metadata);
            let maker = owner.and_then(|owner| snapshot.upgrades.get(&(key.0.clone(), owner.name.clone())));
            if !maker.is_some_and(|upgrade| is_child(&known.object, upgrade)) {
                add(key, Object::of_op(&known.object), known.targets.clone(), reasons(key));
            }
        }
        if !self.newest.as_ref().is_some_and(|(found_in, _)| found_in.is_same(&snapshot.finished)) {
            self.newest = Some((snapshot.finished.clone(), newest(snapshot)));
        }
        let newest = self.newest.iter().flat_map(|(_, newest)| newest);
        let newest = newest.filter(|(ended, _)| !later_than_a_day(*ended, snapshot.now));
        over.extend(newest.map(|(ended, shown)| (Reverse(*ended), shown.clone())));
        open.sort_by_key(|one| (!one.is_running(), one.created));
        open.truncate(MAX_OPEN);
        over.sort_by_key(|(at, _)| *at);
        open.extend(over.into_iter().take(MAX_OVER).map(|(_, shown)| shown));
        self.shown = open;
    }
}

fn later_than_a_day(ended: Timestamp, now: Timestamp) -> bool {
    now.duration_since(ended) > SHOWN_AFTER_END
}

/// Of the NodeOps of which a record is kept, those that may be shown, and when each has ended. There may be a
/// hundred thousand.
fn newest(snapshot: &Snapshot) -> Vec<(Timestamp, Shown)> {
    let of_a_day = snapshot.finished.iter().filter(|op| !later_than_a_day(op.ended(), snapshot.now));
    let mut newest: Vec<_> = of_a_day.collect();
    newest.sort_unstable_by_key(|op| (Reverse(op.ended()), op.path()));
    newest.truncate(MAX_OVER);
    let shown = |op: &FinishedOp| {
        let known = Known::of(&Arc::new(op.nodeop()));
        let object = Object::of_op(&known.object);
        (object.ended().unwrap_or_else(|| op.ended()), object.shown(&op.key(), known.targets, None))
    };
    newest.into_iter().map(shown).collect()
}

/// The NodeOp of an upgrade's present run. Those of earlier runs are not shown beside it.
fn present_run(key: &Key, upgrade: &NodeOpUpgrade) -> Key {
    let name = upgrade.status.as_ref().and_then(|status| status.node_op_name.clone());
    (key.0.clone(), name.unwrap_or_else(|| key.1.clone()))
}

/// Whether a NodeOp is one that an upgrade made.
fn is_child(op: &NodeOp, upgrade: &NodeOpUpgrade) -> bool {
    let uid = owner::upgrade_uid(&op.metadata);
    uid.is_some() && uid == upgrade.metadata.uid.as_deref()
}

impl Known {
    fn of(op: &Arc<NodeOp>) -> Self {
        let status = op.status.as_ref();
        let forgotten = status.filter(|status| status.node_statuses.is_empty());
        let mut targets = Targets::said(forgotten.and_then(|status| status.counts.as_ref()));
        targets.last_progress = seconds(forgotten.and_then(|status| status.last_updated.as_ref()));
        let mut in_progress = Vec::new();
        for nodes in status.iter().map(|status| &status.node_statuses) {
            targets.count(nodes);
            targets.last_progress = targets.last_progress.max(seconds(nodes.last_updated()));
            let open = nodes.marked([Mark::Preflight, Mark::Running]);
            in_progress
                .extend(open.filter_map(|(node, entry)| Some(InProgress::of(node, step(entry)?, entry))));
        }
        targets.last_progress = targets.last_progress.max(seconds(op.metadata.creation_timestamp.as_ref()));
        Self { object: op.clone(), targets, in_progress }
    }

    /// The next version. With very many targets the times of those that are done are not kept, and the last
    /// progress is what it was.
    fn followed_by(&self, op: &Arc<NodeOp>) -> Self {
        let mut next = Self::of(op);
        if self.object.metadata.uid == op.metadata.uid {
            next.targets.last_progress = next.targets.last_progress.max(self.targets.last_progress);
        }
        next
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

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    /// A site keeps a hundred thousand, and plans twenty times a second.
    #[test]
    fn what_is_finished_is_looked_through_once_as_long_as_nothing_comes_or_goes() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let finished = |number: usize| {
            let op = json!({"metadata": {"name": format!("op{number}"), "namespace": "ns", "resourceVersion": "7", "generation": 1,
                    "uid": format!("0d8f5c1e-93a5-4b6e-9d0a-0000000000{number:02}"), "creationTimestamp": "2023-11-14T00:00:00Z"},
                "spec": {}, "status": {"phase": "Failed", "observedGeneration": 1, "lastUpdated": "2023-11-14T22:00:00Z"}});
            FinishedOp::of(&serde_json::from_value(op).unwrap()).unwrap()
        };
        let snapshot = |records: usize, now| {
            let finished = (0..records).map(finished).collect();
            Snapshot { now, finished, ..Snapshot::default() }
        };
        let counted = Counted::registered(&mut Registry::default());
        let mut operations = Operations::default();
        let mut shown = |snapshot: &Snapshot, forgets: bool| {
            // If they are looked through again, they are found again.
            operations
                .newest
                .iter_mut()
                .for_each(|(_, newest)| newest.truncate(if forgets { 1 } else { 50 }));
            operations.planned(snapshot, &Plan::default(), &counted);
            operations.shown.len()
        };
        let few = snapshot(3, now);
        assert_eq!(shown(&few, false), 3);
        assert_eq!(shown(&few, true), 1, "nothing has come or gone");
        assert_eq!(shown(&snapshot(2, now), true), 2, "something has gone");
        let later = Snapshot { now: now + SHOWN_AFTER_END, ..snapshot(3, now) };
        assert_eq!(shown(&later, false), 0, "they ended more than a day ago");
    }
}

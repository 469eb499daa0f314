//! What is counted and timed when a node goes on: found by comparing a status that was written with the one
//! before it. A later look at the object would come too late: of one that is over its nodes are forgotten.
//!
//! What went on before this process led it does not count. Times are those in the status where they stand
//! there; how long a node took from the beginning, and how long its pull took, stands nowhere, so it is
//! remembered here and lost with the process.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use prometheus_client::{
    metrics::{counter::Counter, family::Family as Series, histogram::Histogram},
    registry::Registry,
};

use super::{
    exposition::{labelled, register},
    families::{
        BLOCKED_DURATION, DRAIN_DURATION, FINISHED, Family, JOB_DURATION, NODE_DURATION, PULL_DURATION,
        REBOOT_DURATION,
    },
};
use crate::{
    api::{
        node_statuses::{self, NodeStatuses},
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
        owner,
    },
    plan::model::{
        id::OpRef,
        snapshot::{PodView, Role, Snapshot},
    },
};

/// Seconds: what a node does takes from seconds to an hour.
const BUCKETS: [f64; 11] = [5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];

/// Whose operation it is: that of a NodeOpUpgrade, or a NodeOp's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    NodeOp,
    NodeOpUpgrade,
}

impl OperationKind {
    pub const ALL: [Self; 2] = [Self::NodeOp, Self::NodeOpUpgrade];

    /// The kind of the operation that a NodeOp carries out.
    pub fn of(op: &NodeOp) -> Self {
        if owner::upgrade_uid(&op.metadata).is_some() { Self::NodeOpUpgrade } else { Self::NodeOp }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeOp => "NodeOp",
            Self::NodeOpUpgrade => "NodeOpUpgrade",
        }
    }
}

/// How a node ended: result and reason.
type Ending = (&'static str, &'static str);

const UPGRADED: Ending = ("upgraded", "Finished");
const SUCCEEDED: Ending = ("succeeded", "Finished");
/// The Job found that there was nothing to do.
const NEEDLESS: Ending = ("skipped", "Job");
/// How a node may end otherwise: skipped or failed, and where it was before.
const ENDINGS: [Ending; 9] = [
    ("skipped", "NotStarted"),
    ("skipped", "Preflight"),
    ("failed", "NotStarted"),
    ("failed", "Preflight"),
    ("failed", "Claim"),
    ("failed", "Drain"),
    ("failed", "Job"),
    ("failed", "Reboot"),
    ("failed", "Verify"),
];

/// Where a node is that is not over.
pub const fn step_name(step: Step) -> &'static str {
    match step {
        Step::Preflight => "Preflight",
        Step::Claim => "Claim",
        Step::Drain => "Drain",
        Step::Job => "Job",
        Step::Reboot => "Reboot",
        Step::Verify => "Verify",
    }
}

/// The step of a node in progress.
pub fn step(entry: &NodeStatus) -> Option<Step> {
    match entry.phase {
        Phase::Preflight => Some(Step::Preflight),
        Phase::Running => Some(entry.step.unwrap_or(Step::Claim)),
        Phase::Pending | Phase::Completed | Phase::Failed => None,
    }
}

type Times = Series<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// The counters and histograms of nodes.
#[derive(Clone, Debug)]
pub struct Counted {
    finished: Series<[(&'static str, &'static str); 3], Counter>,
    nodes: Times,
    drains: Times,
    blocked: Times,
    jobs: Times,
    reboots: Times,
    pulls: Times,
}

impl Counted {
    /// All from 0.
    pub fn registered(registry: &mut Registry) -> Self {
        let mut times = |family: &Family| {
            let times = Times::new_with_constructor(|| Histogram::new(BUCKETS));
            for kind in OperationKind::ALL {
                let _ = times.get_or_create(&labelled(family, [kind.name()]));
            }
            register(registry, family, times.clone());
            times
        };
        let counted = Self {
            finished: Series::default(),
            nodes: times(&NODE_DURATION),
            drains: times(&DRAIN_DURATION),
            blocked: times(&BLOCKED_DURATION),
            jobs: times(&JOB_DURATION),
            reboots: times(&REBOOT_DURATION),
            pulls: times(&PULL_DURATION),
        };
        for kind in OperationKind::ALL {
            for (result, reason) in ENDINGS.into_iter().chain([UPGRADED, SUCCEEDED, NEEDLESS]) {
                let _ = counted.finished.get_or_create(&labelled(&FINISHED, [kind.name(), result, reason]));
            }
        }
        register(registry, &FINISHED, counted.finished.clone());
        counted
    }
}

fn observe(times: &Times, family: &Family, kind: OperationKind, from: Timestamp, to: Timestamp) {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    times.get_or_create(&labelled(family, [kind.name()])).observe(seconds);
}

/// What is remembered of one NodeOp between plans.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// When its nodes in progress were taken.
    taken: BTreeMap<String, Timestamp>,
    /// Since when nodes have had a pod that no container of has begun yet.
    pulling: BTreeMap<String, Timestamp>,
}

/// One entry of a status, as it was and as it is.
struct Change<'a> {
    kind: OperationKind,
    old: &'a NodeStatus,
    from: Option<Step>,
    new: &'a NodeStatus,
    to: Option<Step>,
    /// When the node came where it is.
    at: Timestamp,
    /// When that was written.
    now: Timestamp,
}

impl Remembered {
    /// Counts what has changed in a NodeOp by the status that was written.
    pub fn recorded(&mut self, op: &NodeOp, status: &NodeOpStatus, counted: &Counted) {
        let Some(now) = time(&status.last_updated) else { return };
        let kind = OperationKind::of(op);
        let none = NodeStatuses::default();
        let before = op.status.as_ref().map_or(&none, |status| &status.node_statuses);
        let unknown = NodeStatus::default();
        for node_statuses::Change { name, old, new } in status.node_statuses.changes(before) {
            let (Some(new), old) = (new, old.unwrap_or(&unknown)) else { continue };
            let (from, to) = (step(old), step(new));
            if from == to && old.phase == new.phase && old.blocked_since == new.blocked_since {
                continue;
            }
            let at = time(&new.last_updated).unwrap_or(now);
            let change = Change { kind, old, from, new, to, at, now };
            change.time(counted);
            self.remember(name, &change, counted);
            if new.phase.is_final() && !old.phase.is_final() {
                let (result, reason) = change.ending(op);
                counted.finished.get_or_create(&labelled(&FINISHED, [kind.name(), result, reason])).inc();
            }
        }
    }

    /// Remembers what began, and times what came to its end.
    fn remember(&mut self, name: &str, change: &Change<'_>, counted: &Counted) {
        let Change { kind, old, from, new, to, at, now: _ } = *change;
        let runs = |entry: &NodeStatus| entry.phase == Phase::Running;
        if runs(new) && !runs(old) {
            self.taken.insert(name.to_owned(), at);
        }
        // It may also go back to where it was before it was taken.
        let taken = if runs(new) { None } else { self.taken.remove(name) };
        if let Some(taken) = taken.filter(|_| new.phase.is_final()) {
            observe(&counted.nodes, &NODE_DURATION, kind, taken, at);
        }
        if from != to {
            self.pulling.remove(name);
            // Whoever had no preflight pulls the image now.
            let unasked = (from, to) == (Some(Step::Claim), Some(Step::Job)) && old.boot.is_none();
            if to == Some(Step::Preflight) || unasked {
                self.pulling.insert(name.to_owned(), at);
            }
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.pulling.is_empty()
    }

    /// Looks whether a container has begun where one was waited for.
    pub fn look(&mut self, snapshot: &Snapshot, op: &NodeOp, counted: &Counted) {
        let (id, kind) = (OpRef::of(op), OperationKind::of(op));
        self.pulling.retain(|node, since| {
            let began = has_begun(snapshot, op, &id, node);
            if began {
                observe(&counted.pulls, &PULL_DURATION, kind, *since, snapshot.now);
            }
            !began
        });
    }
}

fn has_begun(snapshot: &Snapshot, op: &NodeOp, id: &OpRef, node: &str) -> bool {
    let Some(entry) = op.status.as_ref().and_then(|status| status.node_statuses.get(node)) else {
        return false;
    };
    let begun = |pod: &PodView| !pod.deleting && pod.has_begun();
    if entry.phase == Phase::Preflight {
        return snapshot.pods_of_on(id, Role::Preflight, node).any(|pod| begun(pod));
    }
    let (Some(name), Some(uid)) = (&entry.job_name, &entry.job_uid) else { return false };
    snapshot.pods_of_job(&id.namespace, name, uid).any(|pod| pod.node == node && begun(pod))
}

fn time(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|time| time.0)
}

impl Change<'_> {
    /// Times the step that the node has come through.
    fn time(&self, counted: &Counted) {
        let Self { kind, old, from, new, to, at, now } = *self;
        if from == Some(Step::Drain)
            && let Some(blocked) = time(&old.blocked_since)
            && (to != from || new.blocked_since.is_none())
        {
            // That the drain goes on again is no change of the step, and has no date.
            observe(&counted.blocked, &BLOCKED_DURATION, kind, blocked, if to == from { now } else { at });
        }
        if from == to || new.phase == Phase::Failed {
            return;
        }
        let (since, times, family) = match from {
            Some(Step::Drain) => (&old.drain_started_at, &counted.drains, &DRAIN_DURATION),
            Some(Step::Job) => (&old.last_updated, &counted.jobs, &JOB_DURATION),
            Some(Step::Reboot) => (&old.last_updated, &counted.reboots, &REBOOT_DURATION),
            Some(Step::Preflight | Step::Claim | Step::Verify) | None => return,
        };
        if let Some(since) = time(since) {
            observe(times, family, kind, since, at);
        }
    }

    /// How a node ended.
    fn ending(&self, op: &NodeOp) -> Ending {
        let reason = self.from.map_or("NotStarted", step_name);
        let reboots = op.spec.reboot_on_success == Some(true);
        let needless = reboots && self.new.reboot_status == Some(RebootStatus::NotRequested);
        match (self.new.phase, self.old.phase) {
            (Phase::Failed, _) => ("failed", reason),
            (_, Phase::Running) if needless => NEEDLESS,
            (_, Phase::Running) if op.spec.upgrade.is_some() => UPGRADED,
            (_, Phase::Running) => SUCCEEDED,
            (_, Phase::Pending | Phase::Preflight | Phase::Completed | Phase::Failed) => ("skipped", reason),
        }
    }
}

//! What is shown of one operation, whichever kind it is of.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::Timestamp,
};

use crate::{
    api::{
        ended::ended,
        names::condition,
        node_statuses::{Mark, NodeStatuses},
        nodeop::{Counts, NodeOp, Phase},
        upgrade::{NodeOpUpgrade, UpgradePhase},
    },
    controllers::metrics::progress::OperationKind,
    plan::model::{id::Key, why::WaitReason},
};

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
#[derive(Clone, Debug)]
pub struct Shown {
    namespace: String,
    name: String,
    kind: OperationKind,
    phase: &'static str,
    pub stalled: bool,
    pub created: Option<i64>,
    pub targets: Targets,
    /// How many targets wait for each reason; nothing is waited for once it is over.
    waiting: Option<[i64; WaitReason::ALL.len()]>,
}

/// The targets of an operation, counted.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    nodes: [i64; NODE_PHASES.len()],
    pub last_progress: Option<i64>,
}

impl Targets {
    /// Counts these.
    pub fn count(&mut self, nodes: &NodeStatuses) {
        for (count, phase) in self.nodes.iter_mut().zip(NODE_PHASES) {
            *count += i64::try_from(nodes.count(Mark::of(phase))).unwrap_or(i64::MAX);
        }
    }

    /// As they were counted in a status. Of what is over, the cache keeps no more; and a NodeOpUpgrade whose
    /// NodeOp is gone has no more to say.
    pub fn said(counts: Option<&Counts>) -> Self {
        let Counts { pending, running, completed, failed, .. } = counts.cloned().unwrap_or_default();
        Self { nodes: [pending, 0, running, completed, failed].map(i64::from), last_progress: None }
    }
}

/// What both kinds say of themselves.
pub struct Object<'a> {
    meta: &'a ObjectMeta,
    kind: OperationKind,
    phase: UpgradePhase,
    conditions: &'a [Condition],
    last_updated: Option<&'a Time>,
}

impl<'a> Object<'a> {
    pub fn of_upgrade(upgrade: &'a NodeOpUpgrade) -> Self {
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
    pub fn of_op(op: &'a NodeOp) -> Self {
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
    pub fn ended(&self) -> Option<Timestamp> {
        if !self.phase.is_final() || self.deleting() {
            return None;
        }
        // The cache keeps no conditions of what is over. Its status is not written any more.
        let end = ended(self.conditions).or_else(|| self.last_updated.map(|time| time.0));
        Some(end.unwrap_or(Timestamp::UNIX_EPOCH))
    }

    pub fn shown(
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

pub fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

/// A label besides those of the operation, and the value.
pub type Row<'a> = (Option<&'a str>, i64);

/// One value, if it is known, without a further label.
pub fn alone(value: Option<i64>) -> Vec<Row<'static>> {
    value.into_iter().map(|value| (None, value)).collect()
}

impl Shown {
    pub fn is_running(&self) -> bool {
        self.phase == phase_name(UpgradePhase::Running)
    }

    /// The labels of the operation and perhaps one more, and the value.
    pub fn row<'a>(&'a self, (label, value): Row<'a>) -> (Vec<&'a str>, i64) {
        let operation = [self.namespace.as_str(), self.name.as_str(), self.kind.name()];
        (operation.into_iter().chain(label).collect(), value)
    }

    pub fn phases(&self) -> Vec<Row<'_>> {
        OPERATION_PHASES.into_iter().map(|phase| (Some(phase), i64::from(phase == self.phase))).collect()
    }

    pub fn nodes(&self) -> Vec<Row<'_>> {
        let named = NODE_PHASES.into_iter().map(node_phase_name).map(Some);
        named.zip(self.targets.nodes).collect()
    }

    pub fn reasons(&self) -> Vec<Row<'_>> {
        let named = WaitReason::ALL.into_iter().map(|reason| Some(reason.name()));
        named.zip(self.waiting.into_iter().flatten()).collect()
    }
}

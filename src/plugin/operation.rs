//! A NodeOp or a NodeOpUpgrade, as far as people look at it: the two have the same status.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta},
};
use serde_json::Value;

use super::{
    connection::Connection,
    failure::{self, Doing, Result, WHETHER_ONE_RUNS},
    target::Kind,
};
use crate::api::{
    ended::ended,
    names,
    nodeop::{Counts, NodeOp, NodeStatus, Phase},
    owner,
    run::Run,
    text::one_line,
    upgrade::{NodeOpUpgrade, UpgradePhase},
};

/// What an operation runs, and in which round, if it follows the first one of its run.
fn with_round(what: &str, round: i64) -> String {
    let round = if round > 0 { format!(" (round {round})") } else { String::new() };
    format!("{}{round}", one_line(what))
}

/// Whether its spec was changed since an operator has looked. The first look is another matter.
fn is_changed(seen: Option<i64>, meta: &ObjectMeta) -> bool {
    seen.is_some_and(|seen| seen > 0 && Some(seen) < meta.generation)
}

/// What an operation's status says, or that nobody has looked: where no operator runs nothing else tells.
fn said(phase: UpgradePhase, message: Option<String>, seen: Option<i64>, meta: &ObjectMeta) -> String {
    let message = message.unwrap_or_default();
    if is_changed(seen, meta) {
        let before = if message.is_empty() { message } else { format!("{message}; ") };
        return format!(
            "{before}its spec was changed, and no operator has looked at that yet: {WHETHER_ONE_RUNS}"
        );
    }
    if message.is_empty() && phase == UpgradePhase::Pending {
        return format!("no operator has looked at it yet: {WHETHER_ONE_RUNS}");
    }
    message
}

/// An operation and where it stands.
#[derive(Clone, Debug)]
pub struct Operation {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The upgrade that made it, of a NodeOp that belongs to one.
    pub upgrade: Option<String>,
    /// The NodeOp that does it: itself, or that of an upgrade's present run.
    pub node_op: String,
    pub created: Option<Timestamp>,
    pub deleting: bool,
    pub paused: bool,
    /// What it runs: an upgrade's image, or a command.
    pub what: String,
    pub phase: UpgradePhase,
    pub message: String,
    pub counts: Counts,
    pub nodes: BTreeMap<String, NodeStatus>,
    pub conditions: Vec<Condition>,
    pub last_updated: Option<Timestamp>,
    /// The object as it was read, less what the API server keeps for itself.
    pub object: Value,
}

impl Operation {
    pub fn of_op(op: &NodeOp) -> Self {
        let (spec, status) = (&op.spec, op.status.clone().unwrap_or_default());
        let what = match (&spec.upgrade, &spec.command) {
            (Some(_), _) => spec.image.clone().unwrap_or_default(),
            (None, Some(command)) if !command.is_empty() => command.join(" "),
            (None, _) => spec.image.clone().unwrap_or_default(),
        };
        let phase = status.phase.map_or(UpgradePhase::Pending, Into::into);
        // One that is over stays so, whatever is changed.
        let seen = status.observed_generation.filter(|_| !phase.is_final());
        Self {
            phase,
            message: said(phase, status.message, seen, &op.metadata),
            counts: status.counts.unwrap_or_default(),
            nodes: status.node_statuses.into(),
            conditions: status.conditions,
            last_updated: status.last_updated.map(|time| time.0),
            paused: spec.paused.unwrap_or(false),
            what: with_round(&what, Run::of(&op.metadata).map_or(0, |run| run.round)),
            upgrade: owner::upgrade(&op.metadata).map(|owner| owner.name.clone()),
            ..Self::of(Kind::NodeOp, &op.metadata, serde_json::to_value(op).unwrap_or_default())
        }
    }

    pub fn of_upgrade(upgrade: &NodeOpUpgrade) -> Self {
        let (spec, status) = (&upgrade.spec, upgrade.status.clone().unwrap_or_default());
        let of =
            Self::of(Kind::Upgrade, &upgrade.metadata, serde_json::to_value(upgrade).unwrap_or_default());
        let phase = status.phase.unwrap_or(UpgradePhase::Pending);
        let seen = status.observed_generation;
        // Over is what its spec asked for before.
        let (phase, message) = match phase.is_final() && is_changed(seen, &upgrade.metadata) {
            true => (UpgradePhase::Pending, None),
            false => (phase, status.message),
        };
        let message = said(phase, message, seen, &upgrade.metadata);
        Self {
            phase,
            message,
            node_op: status.node_op_name.unwrap_or_else(|| of.name.clone()),
            counts: status.counts.unwrap_or_default(),
            nodes: status.node_statuses.into(),
            conditions: status.conditions,
            last_updated: status.last_updated.map(|time| time.0),
            paused: spec.paused.unwrap_or(false),
            what: with_round(&spec.image, status.round.map_or(0, |round| round.number)),
            ..of
        }
    }

    fn of(kind: Kind, meta: &ObjectMeta, mut object: Value) -> Self {
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        Self {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            upgrade: None,
            node_op: meta.name.clone().unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            paused: false,
            what: String::new(),
            phase: UpgradePhase::Pending,
            message: String::new(),
            counts: Counts::default(),
            nodes: BTreeMap::new(),
            conditions: Vec::new(),
            last_updated: None,
            object,
        }
    }

    /// The oldest first, as the operator serves them.
    pub fn by_age(&self, other: &Self) -> std::cmp::Ordering {
        (self.created, &self.namespace, &self.name).cmp(&(other.created, &other.namespace, &other.name))
    }

    pub fn is_over(&self) -> bool {
        self.phase.is_final()
    }

    /// Whether nothing follows: a `Continuous` upgrade takes nodes that join or drift after its run is over,
    /// too.
    pub fn is_over_for_good(&self) -> bool {
        self.is_over() && (self.deleting || self.object["spec"]["mode"] != "Continuous")
    }

    pub fn has_failed(&self) -> bool {
        self.phase == UpgradePhase::Failed
    }

    /// Whether it is this NodeOp that does it.
    pub fn is_done_by(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.node_op == name
    }

    /// As people name it: `nou/up1`.
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind.short(), self.name)
    }

    /// With its namespace: `NodeOpUpgrade default/up1`.
    pub fn full(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Its phase as a word, with what a reader would not expect of it.
    pub fn phase_word(&self) -> String {
        let phase = format!("{:?}", self.phase);
        match (self.deleting, self.paused && !self.is_over_for_good()) {
            (true, _) => format!("{phase} (being deleted)"),
            (false, true) => format!("{phase} (paused)"),
            (false, false) => phase,
        }
    }

    /// Nodes that are worked on.
    pub fn under_way(&self) -> impl Iterator<Item = (&String, &NodeStatus)> {
        self.nodes.iter().filter(|(_, node)| matches!(node.phase, Phase::Running | Phase::Preflight))
    }

    /// When it was over, as its condition says.
    pub fn ended(&self) -> Option<Timestamp> {
        ended(&self.conditions).or(self.last_updated).filter(|_| self.is_over())
    }
}

/// All operations of one namespace, or of all: upgrades, and the NodeOps that belong to none. The oldest,
/// which are served first, come first.
pub async fn list(
    connection: &Connection,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<Operation>> {
    let (upgrades, ops) = read(connection, namespace, labels).await?;
    let alone = ops.iter().filter(|op| owner::upgrade_uid(&op.metadata).is_none());
    let mut all: Vec<Operation> =
        upgrades.iter().map(Operation::of_upgrade).chain(alone.map(Operation::of_op)).collect();
    all.sort_by(Operation::by_age);
    Ok(all)
}

/// All operations, and the NodeOps of earlier runs of upgrades.
pub async fn list_with_earlier_runs(
    connection: &Connection,
    namespace: Option<&str>,
) -> Result<Vec<Operation>> {
    let (upgrades, ops) = read(connection, namespace, None).await?;
    let mut all: Vec<Operation> = upgrades.iter().map(Operation::of_upgrade).collect();
    let is_present = |op: &Operation| {
        op.upgrade.is_some() && all.iter().any(|upgrade| upgrade.is_done_by(&op.namespace, &op.name))
    };
    let others: Vec<Operation> = ops.iter().map(Operation::of_op).filter(|op| !is_present(op)).collect();
    all.extend(others);
    Ok(all)
}

async fn read(
    connection: &Connection,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<(Vec<NodeOpUpgrade>, Vec<NodeOp>)> {
    let place = || namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
    let params = labels.map_or_else(ListParams::default, |labels| ListParams::default().labels(labels));
    let upgrades = match namespace {
        Some(namespace) => Api::<NodeOpUpgrade>::namespaced(connection.client.clone(), namespace),
        None => Api::all(connection.client.clone()),
    };
    let ops = match namespace {
        Some(namespace) => Api::<NodeOp>::namespaced(connection.client.clone(), namespace),
        None => Api::all(connection.client.clone()),
    };
    let upgrades = upgrades.list(&params).await.doing(|| format!("listing NodeOpUpgrades in {}", place()))?;
    let ops = match ops.list(&params).await {
        // Those who upgrade and no more need not see NodeOps.
        Err(error) if failure::is_forbidden(&error) && !upgrades.items.is_empty() => Vec::new(),
        ops => ops.doing(|| format!("listing NodeOps in {}", place()))?.items,
    };
    Ok((upgrades.items, ops))
}

/// Completes an upgrade whose own status leaves out the nodes that are done, since there are too many.
pub async fn complete(connection: &Connection, operation: &mut Operation) {
    let all = usize::try_from(operation.counts.total).unwrap_or(0);
    if operation.kind != Kind::Upgrade || operation.nodes.len() >= all {
        return;
    }
    let api = Api::<NodeOp>::namespaced(connection.client.clone(), &operation.namespace);
    // What the upgrade says itself is worth showing without it.
    if let Ok(Some(op)) = api.get_opt(&operation.node_op).await
        && op.labels().get(names::UPGRADE_NAME).is_some()
    {
        operation.nodes = op.status.map(|status| status.node_statuses.into()).unwrap_or_default();
    }
}

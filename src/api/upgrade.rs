//! `NodeOpUpgrade`: what chosen nodes are to run. It makes a NodeOp for each run, and shows the status of the
//! present one.
//!
//! Only what an upgrade needs to be told: image and nodes are enough for a safe one. [`super::child`] says
//! what the NodeOp looks like, and [`super::run`] which changes of the spec are another run.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the keys of two printer columns for one attribute given twice"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::LocalObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::rounds::{EarlierRun, MAX_LOST, Round, RunResult};
use super::{
    custom::custom,
    image_content::ImageContent,
    node_statuses::NodeStatuses,
    nodeop::{Counts, DrainOptions, LoadBalancer, NodeStatus, Phase},
    pull_policy::PullPolicy,
    schema,
};

/// What to upgrade to, on which nodes, and how. It may be changed at any time: a change of `concurrency`,
/// `paused`, `stopOnFailure`, `notAfter` or `mode` steers the run that is under way, and any other one is a
/// new run. That begins when the one before it has ended, which then takes no further node; nodes in progress
/// go on to their end.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operator.kairos.io",
    version = "v1alpha1",
    kind = "NodeOpUpgrade",
    root = "NodeOpUpgradeDerived",
    namespaced,
    status = "NodeOpUpgradeStatus",
    shortname = "nou",
    category = "kairos",
    derive = "Default",
    derive = "PartialEq",
    doc = "What chosen nodes are to run: it makes a NodeOp, which upgrades, reboots and checks them, control-plane nodes first, and shows that one's status. A change of its spec is another run, with a NodeOp of its own. Whoever may create a NodeOpUpgrade is root on the nodes.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Done",
        type_ = "string",
        json_path = ".status.counts.done",
        description = "Nodes finished of all, failed ones included."
    ),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(
        name = "Current",
        type_ = "string",
        json_path = ".status.counts.current",
        description = "Nodes in progress, and whether it is paused."
    ),
    printcolumn(
        name = "Release",
        type_ = "string",
        json_path = ".status.release",
        description = "What the image brings, once a node has looked at it."
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "Where it stands, and what it waits for."
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::nodeopupgrade)]
pub struct NodeOpUpgradeSpec {
    /// The Kairos image to upgrade to. The kairos-agent in it does the upgrade.
    #[schemars(length(min = 1), transform = schema::image)]
    pub image: String,
    /// When a node pulls the image. Unset: what Kubernetes does, `Always` for the tag `latest` and for no
    /// tag, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace with which nodes pull the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Which nodes. Unset: all Linux nodes, of which those that are not Kairos are skipped.
    /// Chosen once; nodes that join later are included with `mode: Continuous` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: Option<LabelSelector>,
    /// Whether it is over once its nodes are upgraded (default `Once`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many nodes may be in progress at once; 0, the default, means all, though never more than 400
    /// of more than a thousand. Control-plane nodes always go one at a time if the upgrade cordons or
    /// reboots. A node that failed counts until it is uncordoned and Ready, or deleted. May be changed while
    /// the upgrade runs, but not to 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub concurrency: i32,
    /// While true (default false) no further node is started; nodes in progress finish. If true from the
    /// beginning, the nodes are chosen on resuming. May be changed while the upgrade runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Start no further node once one has failed, or once it could not be proved what it runs (default
    /// false). May be changed while the upgrade runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on_failure: Option<bool>,
    /// Nothing new is started at or after this time (RFC 3339, for example `2027-01-31T00:00:00Z`), by the
    /// operator's clock; nodes in progress go on to their end. If nothing was started by then, it is
    /// `Completed` with the reason `Expired`: what is restored or created again long after it was meant to
    /// run does not run. Unset: never. May be changed while the upgrade runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::time)]
    pub not_after: Option<Time>,
    /// Upgrade the active image, and reboot into it (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_active: Option<bool>,
    /// Upgrade the recovery image (default false). Alone it needs no cordon, drain or reboot. A node whose
    /// active image is at the release already gets it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_recovery: Option<bool>,
    /// Upgrade without comparing releases (default false): also a node that runs the image's release already,
    /// or a newer one, or that has not booted yet what an earlier upgrade has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Pass `--debug` to kairos-agent (default false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    /// Uncordon a node that failed (default false). A node that failed before its upgrade started is always
    /// uncordoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncordon_on_failure: Option<bool>,
    /// Paths that are left out of the new image. Needs a kairos-agent that knows `--exclude-path` (Kairos 3.6
    /// and later).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = schema::excluded_paths)]
    pub exclude_paths: Vec<String>,
    /// How nodes are drained. Unset fields have the defaults of an upgrade, which differ from a NodeOp's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::upgrade_drain")]
    pub drain_options: Option<DrainOptions>,
    /// Whether load balancers leave a node before it is drained. Not for the recovery image alone, under
    /// which a node stays in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// How often the upgrade is tried again on a node before the node is failed (default 2). Never after a
    /// success of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit: Option<i32>,
    /// Seconds that the check for the release may take on one node, from its container's start (default 120).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub preflight_timeout_seconds: Option<i32>,
    /// Seconds that a node may take to pull the image (default 1800). A preflight whose pod the kubelet
    /// refuses or ends is made again for as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pull_timeout_seconds: Option<i32>,
    /// Seconds that the upgrade may take on one node, retries included (default 3600).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds from the upgrade's success until the node must be back in a new boot (default 1800).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub reboot_timeout_seconds: Option<i32>,
    /// Seconds from the new boot until the node must have proved that it runs the new release (default 300).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub verify_timeout_seconds: Option<i32>,
    /// Seconds that a rebooted node must have been Ready before the next one is taken (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// Seconds after which a node that is not Ready, and so could not be started, is failed. Unset or 0: it
    /// is waited for without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub not_ready_timeout_seconds: Option<i32>,
    /// Preflights at a time, each of which pulls the image (default: as many as `concurrency`, at least 3 and
    /// at most 50).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub preflight_concurrency: Option<i32>,
    /// How many NodeOps of earlier runs are kept, with their Jobs and logs (default 3). Of those that are
    /// over the oldest goes first, and one that failed after those that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub history_limit: Option<i32>,
}

custom!(
    /// As the API server has it.
    NodeOpUpgrade,
    NodeOpUpgradeDerived,
    NodeOpUpgradeSpec,
    NodeOpUpgradeStatus
);

/// What a NodeOpUpgrade does once its run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Nothing, until its spec asks for another run.
    #[default]
    Once,
    /// Nodes that join later, and nodes that do not run the image's release any more, are upgraded as well,
    /// in further rounds of the run. A node has one attempt in a run: one that failed is tried again only
    /// once the spec asks for another run.
    Continuous,
}

/// How many earlier runs are kept, if the spec does not say.
const HISTORY_LIMIT: i32 = 3;
/// How many earlier runs are kept at most, whatever the spec says.
const MAX_HISTORY: i32 = 20;

impl NodeOpUpgradeSpec {
    /// How many earlier runs are kept.
    pub fn kept_runs(&self) -> usize {
        let limit = self.history_limit.unwrap_or(HISTORY_LIMIT).clamp(0, MAX_HISTORY);
        usize::try_from(limit).unwrap_or_default()
    }

    /// Whether it goes on with nodes that join or drift.
    pub fn is_continuous(&self) -> bool {
        self.mode == Some(Mode::Continuous)
    }
}

/// What came of a NodeOpUpgrade: the status of the NodeOp of its present run, and what came of earlier runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::not_null)]
pub struct NodeOpUpgradeStatus {
    /// `Initializing`, `Pending`, `Running`, `Completed` or `Failed`; the last two are final until the spec
    /// asks for another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<UpgradePhase>,
    /// Name of the NodeOp of the present run: the upgrade's own for the first one, and with eight digits
    /// behind it for each later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_op_name: Option<String>,
    /// UID of that NodeOp, recorded before it may start: an upgrade never runs twice because somebody deleted
    /// its NodeOp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_op_uid: Option<String>,
    /// Hash of what decides the present run: all of the spec but what only steers a run. A change after
    /// which it is the same is no other run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Since when the present run is, and at which round: with `mode: Continuous` further rounds follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
    /// Earlier runs whose NodeOps are kept, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 20, "x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<EarlierRun>,
    /// One sentence on where the upgrade stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The targets by node name; above a thousand nodes only those that are worked on, and the first 500 that
    /// failed. The NodeOp has them all.
    #[serde(default, skip_serializing_if = "NodeStatuses::is_empty")]
    #[schemars(with = "BTreeMap<String, NodeStatus>", extend("x-kubernetes-map-type" = "atomic"))]
    pub node_statuses: NodeStatuses,
    /// The generation of the spec that this status follows; -1 before the operator has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Progressing`, `Complete` and `Failed`; `Ready`, `Reconciling` and `Stalled`; and `Verified`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
    /// Counts of targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The image with the digest of the content that is run, `name:tag@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the image's name stood for in this run, by the nodes' architectures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub images: Vec<ImageContent>,
    /// The release that the image brings, as the first node that looked at it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Last change of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
}

impl NodeOpUpgradeStatus {
    /// All that it says but the entries of the nodes, which may be thousands.
    pub fn without_nodes(&self) -> Self {
        let Self {
            phase,
            node_op_name,
            node_op_uid,
            run,
            round,
            history,
            message,
            node_statuses: _,
            observed_generation,
            conditions,
            counts,
            image,
            images,
            release,
            last_updated,
        } = self;
        Self {
            phase: *phase,
            node_op_name: node_op_name.clone(),
            node_op_uid: node_op_uid.clone(),
            run: run.clone(),
            round: round.clone(),
            history: history.clone(),
            message: message.clone(),
            node_statuses: NodeStatuses::default(),
            observed_generation: *observed_generation,
            conditions: conditions.clone(),
            counts: counts.clone(),
            image: image.clone(),
            images: images.clone(),
            release: release.clone(),
            last_updated: last_updated.clone(),
        }
    }
}

/// Where an upgrade stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradePhase {
    /// Its NodeOp is being made.
    Initializing,
    /// No node has been taken yet.
    Pending,
    /// Under way.
    Running,
    /// Finished well. Final until the spec asks for another run.
    Completed,
    /// Finished badly. Final until the spec asks for another run.
    Failed,
}

impl UpgradePhase {
    /// Whether the run is over, and nothing follows unless the spec asks for another one.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

impl From<Phase> for UpgradePhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Preflight | Phase::Running => Self::Running,
            Phase::Completed => Self::Completed,
            Phase::Failed => Self::Failed,
        }
    }
}

//! `NodeOp`: one operation on chosen nodes, run once.
//!
//! Field names, types and defaults of the Go operator stand; what is ours is optional.

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

pub use super::{
    counts::Counts,
    load_balancer::LoadBalancer,
    node_status::{NodeStatus, RebootStatus, Step},
};
use super::{
    custom::custom, image_content::ImageContent, node_statuses::NodeStatuses, pull_policy::PullPolicy, schema,
};

/// The most nodes that a NodeOp names.
pub const MAX_NODE_NAMES: usize = 100;

/// What to run, on which nodes, and how. It cannot be changed once created, except `concurrency`, `paused`,
/// `stopOnFailure` and `notAfter`; where a NodeOpUpgrade made it, these are changed there.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operator.kairos.io",
    version = "v1alpha1",
    kind = "NodeOp",
    root = "NodeOpDerived",
    namespaced,
    status = "NodeOpStatus",
    shortname = "nop",
    category = "kairos",
    derive = "Default",
    derive = "PartialEq",
    doc = "One operation, run once on each chosen node: cordoned and drained if asked, a command in a privileged container with the host's root mounted writable, a reboot if asked. Whoever may create a NodeOp is root on the nodes.",
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
#[schemars(transform = schema::nodeop)]
pub struct NodeOpSpec {
    /// Which nodes. Unset: all Linux nodes. Chosen once; nodes that join later are not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: Option<LabelSelector>,
    /// Of the nodes that `nodeSelector` matches only those with these names. Unset: all of them. A name that
    /// no such node has at the beginning is passed over, and the message says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = schema::node_names)]
    pub node_names: Vec<String>,
    /// The command, as the container's entrypoint. An empty list runs the image's own entrypoint. It runs in
    /// a privileged container, in which the host's root is mounted at `hostMountPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::command)]
    pub command: Option<Vec<String>>,
    /// Upgrade Kairos instead of running a command. Set by a NodeOpUpgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeOptions>,
    /// Where the host's root is mounted, writable, in the container. The variable `HOST_DIR` says it to the
    /// command. An empty one, as a template writes of a value that is not set, is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::mount_path, extend("default" = "/host"))]
    pub host_mount_path: Option<String>,
    /// The image. Unset: the controller's default (`NODEOP_DEFAULT_IMAGE`, else `busybox:latest`). Name one:
    /// what a tag `latest` stands for changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::image)]
    pub image: Option<String>,
    /// When a node pulls the image, also the preflight's. Unset: what Kubernetes does, `Always` for the tag
    /// `latest` and for no tag, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace with which nodes pull the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Make the node unschedulable first, and schedulable again after success. A node that somebody else had
    /// cordoned stays cordoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub cordon: Option<bool>,
    /// Uncordon a node that failed. A node that failed before its operation started is always uncordoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub uncordon_on_failure: Option<bool>,
    /// Eviction of the node's pods before the operation; needs `cordon: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_options: Option<DrainOptions>,
    /// Whether load balancers leave the node first; needs `cordon: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Reboot the node after the operation succeeded, and wait until it is back in a new boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub reboot_on_success: Option<bool>,
    /// How often the operation is tried again on a node before the node is failed (default 6; an upgrade's
    /// 2). It is never tried again after its success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit: Option<i32>,
    /// How many nodes may be in progress at once; 0, the default, means all, though never more than 400
    /// of more than a thousand. Control-plane nodes always go one at a time if the operation cordons or
    /// reboots. A node that failed counts until it is uncordoned and Ready, or deleted. May be changed while
    /// the operation runs, but not to 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub concurrency: i32,
    /// While true no further node is started; nodes in progress finish. If true from the beginning, the nodes
    /// are chosen on resuming. May be changed while it runs; that of an upgrade on its NodeOpUpgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub paused: Option<bool>,
    /// Start no further node once one has failed, or once it could not be proved what an upgraded node runs.
    /// May be changed while the operation runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub stop_on_failure: Option<bool>,
    /// Nothing new is started at or after this time (RFC 3339, for example `2027-01-31T00:00:00Z`), by the
    /// operator's clock; nodes in progress go on to their end. If nothing was started by then, it is
    /// `Completed` with the reason `Expired`: what is restored or created again long after it was meant to run
    /// does not run. Unset: never. May be changed while the operation runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::time)]
    pub not_after: Option<Time>,
    /// Decides, before the node is touched, whether it needs the operation, with the container runtime's
    /// default capabilities and the host's root read-only. With or without it, the image is looked at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
    /// Seconds that the operation may take on one node, retries included (default 86400; an upgrade's 3600).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds that a node may take to pull the image (default 1800). A preflight whose pod the kubelet
    /// refuses or ends is made again for as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pull_timeout_seconds: Option<i32>,
    /// Seconds from the operation's success until the node must be back in a new boot (default 1800).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub reboot_timeout_seconds: Option<i32>,
    /// Seconds from the new boot until the node must have proved what it runs (default 300). For upgrades.
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
    /// Seconds after which the NodeOp is deleted once it is over, with its Jobs and their logs. Unset: it
    /// stays. Nothing is deleted that something would create again, to run again: Helm, Argo CD, Flux, k3s or
    /// k0s from their directories of manifests, and others that leave a mark on what they manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60))]
    pub ttl_seconds_after_finished: Option<i32>,
}

custom!(
    /// As the API server has it.
    NodeOp,
    NodeOpDerived,
    NodeOpSpec,
    NodeOpStatus
);

/// What `upgrade` does on a node; see `NodeOpUpgrade` for the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::upgrade)]
pub struct UpgradeOptions {
    /// Upgrade the active image, and reboot.
    #[serde(default)]
    pub active: bool,
    /// Upgrade the recovery image.
    #[serde(default)]
    pub recovery: bool,
    /// Upgrade even if the node already runs the image's release, or has not booted yet what an earlier
    /// upgrade has written.
    #[serde(default)]
    pub force: bool,
    /// Pass `--debug` to kairos-agent.
    #[serde(default)]
    pub debug: bool,
    /// Paths that are left out of the new image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = schema::excluded_paths)]
    pub exclude_paths: Vec<String>,
    /// Seconds that the check for the release may take on one node, from its container's start (default 120).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub preflight_timeout_seconds: Option<i32>,
}

/// Which pods are evicted before an operation, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainOptions {
    /// Drain the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub enabled: Option<bool>,
    /// Also evict pods that no controller would make again. If false they are left where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub force: Option<bool>,
    /// Seconds that a pod gets to end; unset or -1: the pod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub grace_period_seconds: Option<i32>,
    /// Leave the pods of DaemonSets. If false they are evicted, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub ignore_daemon_sets: Option<bool>,
    /// Also evict pods with emptyDir volumes, whose data is lost. If false they are left where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub delete_empty_dir_data: Option<bool>,
    /// Seconds after which the drain is given up and the node failed, uncordoned and untouched; 0 or unset:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub timeout_seconds: Option<i32>,
    /// Refuse, as `kubectl drain` does, instead of leaving pods: not one eviction, and the node fails with
    /// the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub strict: Option<bool>,
    /// Evict only pods that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub pod_selector: Option<LabelSelector>,
    /// Leave pods that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub skip: Option<LabelSelector>,
    /// Seconds after the end of its grace period from which a pod that is being deleted is no longer waited
    /// for, whatever the state of its node, as with `kubectl drain --skip-wait-for-delete-timeout`; 0 or
    /// unset: always waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub skip_wait_for_delete_timeout_seconds: Option<i32>,
}

/// A short check that runs on a node ahead of the operation, with the container runtime's default
/// capabilities and the host's root mounted read-only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preflight {
    /// The command. Exit 0 with nothing in `/dev/termination-log`: the operation goes on. Exit 0 with a
    /// message there: the node needs nothing and is `Completed`. Anything else: it is run again, with growing
    /// pauses, until `activeDeadlineSeconds` are over; then the node is `Failed`, untouched. Exit codes 126
    /// and 127, by which a shell says that a command cannot be run, fail it at once.
    #[schemars(length(min = 1), transform = schema::command)]
    pub command: Vec<String>,
    /// The image; unset: the operation's. `imagePullPolicy` holds for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::image)]
    pub image: Option<String>,
    /// Seconds that the check may take, all its tries together, from its container's first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 120))]
    pub active_deadline_seconds: Option<i32>,
}

/// What came of a NodeOp.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::not_null)]
pub struct NodeOpStatus {
    /// `Pending`, `Running`, `Completed` or `Failed`; the last two are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence on where the operation stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Every target, by node name. With more than a thousand targets, those that are done have their phase,
    /// their message and what is proved, and no more: an object may not be larger than 1.5 MiB.
    #[serde(default, skip_serializing_if = "NodeStatuses::is_empty")]
    #[schemars(with = "BTreeMap<String, NodeStatus>", extend("x-kubernetes-map-type" = "atomic"))]
    pub node_statuses: NodeStatuses,
    /// The generation of the spec that this status follows; -1 before the operator has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Progressing`, `Complete` and `Failed`; `Ready`, `Reconciling` and `Stalled`; for upgrades,
    /// `Verified`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = schema::conditions)]
    pub conditions: Vec<Condition>,
    /// Counts of targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The image with the digest of the content that is run, `name:tag@sha256:…`. With several of them, for
    /// several architectures, see `images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What each image's name stood for on the first node of each architecture. A node on which it stands for
    /// another content is failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageContent>,
    /// The release that an upgrade's image brings, as the first node that looked at it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Last change of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
}

impl NodeOpStatus {
    /// All that it says but the entries of the nodes, which may be thousands.
    pub fn without_nodes(&self) -> Self {
        let Self {
            phase,
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

/// Where an operation, or a node within it, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not started.
    #[default]
    Pending,
    /// A node's preflight runs; the node is untouched.
    Preflight,
    /// Under way.
    Running,
    /// Finished well. Final.
    Completed,
    /// Finished badly. Final.
    Failed,
}

impl Phase {
    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

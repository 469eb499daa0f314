//! What a plan can ask for. `act` carries each out with a few requests and never decides.
//!
//! Match it without `_` and destructure it without `..`: a new action must break the build, not pass in
//! silence.

use std::{fmt, sync::Arc};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        nodeop::{NodeOp, NodeOpStatus},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    contract::Succeeded,
    plan::model::{
        id::{Key, OpRef},
        identity::{Id, Identified},
        lifecycle::Lifecycle,
        snapshot::{JobView, NodeView, PodView},
    },
};

pub use crate::plan::model::{node_change::NodeChange, notice::Notice};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Patch the status to what follows from `op`, at its resourceVersion; then say the `notices`.
    PatchStatus { op: Arc<NodeOp>, status: Box<NodeOpStatus>, notices: Vec<Notice> },
    /// Set the NodeOp's finalizers, at its resourceVersion.
    SetFinalizers { op: Arc<NodeOp>, finalizers: Vec<String> },
    /// Take back what was granted to the NodeOp's waiters, then set its finalizers.
    Finalize { op: Arc<NodeOp>, finalizers: Vec<String> },
    /// Delete a NodeOp that is over, or was never begun, and is not kept any longer.
    DeleteOp { op: OpRef },
    /// Patch a node, at its resourceVersion, in one patch.
    PatchNode { name: String, resource_version: String, change: NodeChange },
    /// Patch what a node's conditions say of an operation, at its resourceVersion. They are part of its
    /// status, which no patch of the node itself reaches.
    PatchNodeConditions { name: String, resource_version: String, change: ConditionChange, at: Timestamp },
    /// Create the NodeOp, of this name, of the run that a NodeOpUpgrade asks for.
    CreateChild { upgrade: Arc<NodeOpUpgrade>, name: String },
    /// Propagate what may be changed in a NodeOpUpgrade's spec to its NodeOp; then say so on the NodeOp.
    PropagateSpec { child: Arc<NodeOp>, steering: Steering, notice: Box<Notice> },
    /// Patch the status to what follows from `upgrade`, at its resourceVersion; then say the `notices`.
    PatchUpgradeStatus { upgrade: Arc<NodeOpUpgrade>, status: Box<NodeOpUpgradeStatus>, notices: Vec<Notice> },
    /// Create the pod that reads a node's facts; `last_error` says why the last one failed.
    /// `waited_for`: an upgrade waits for what it reads.
    CreateFactsPod {
        node: String,
        node_uid: String,
        name: String,
        attempt: i32,
        last_error: Option<String>,
        waited_for: bool,
    },
    /// Create the preflight pod of a node.
    CreatePreflightPod { op: Arc<NodeOp>, node: String, name: String },
    /// Grant the waiter of a node what it needs, then create it.
    CreateWaiter {
        op: Arc<NodeOp>,
        node: String,
        name: String,
        job: String,
        /// What is recorded of the Job, if it has succeeded: it may be gone by now.
        succeeded: Option<Succeeded>,
    },
    /// Create the node's Job, suspended; if the node can, with a container that holds its lock for the
    /// command.
    CreateJob { op: Arc<NodeOp>, node: String, locks: bool, name: String },
    /// Resume the Job whose UID is recorded, as we see it: one that has been settled since is not. Then say
    /// the notice on its NodeOp.
    ResumeJob { job: Target, resource_version: String, op: Arc<NodeOp>, notice: Option<Box<Notice>> },
    /// Extend the deadline of a Job whose pod has succeeded, or one of the Go operator's an end.
    ExtendJob { job: Target, deadline_seconds: i64 },
    /// Settle a Job: suspend one whose operation has succeeded in this boot, and say so on it: a container of
    /// somebody else keeps it running.
    SettleJob { job: Target, boot: String },
    /// Delete a Job of ours, and its pods: before it, or in the background.
    DeleteJob { job: Target, after_its_pods: bool, why: &'static str },
    /// Delete a pod of ours.
    DeletePod { pod: Target, why: &'static str },
    /// Evict a pod from `node`, unless it is another pod or elsewhere by now.
    Evict { node: String, pod: Target, grace_period_seconds: Option<i64> },
}

/// The object that something is done for: where somebody who waits for it will look.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    Op(OpRef),
    Upgrade(Arc<NodeOpUpgrade>),
    Node(String),
    Job(Target),
    Pod(Target),
}

/// What an action patches at the resourceVersion that the planner saw. A newer one will do, if the object says
/// the same in all that the planner reads.
#[derive(Debug, PartialEq, Eq)]
pub enum PlannedFrom<'a> {
    Node { name: &'a str, resource_version: &'a mut String },
    Job { job: &'a Target, resource_version: &'a mut String },
}

impl Action {
    /// Changes a node as it was seen.
    pub fn patch_node(node: &NodeView, change: NodeChange) -> Self {
        let (name, resource_version) = (node.name.clone(), node.resource_version.clone());
        Self::PatchNode { name, resource_version, change }
    }

    /// For whom it is done.
    pub fn about(&self) -> Option<About> {
        Some(match self {
            Self::PatchStatus { op, .. }
            | Self::SetFinalizers { op, .. }
            | Self::Finalize { op, .. }
            | Self::PropagateSpec { child: op, .. }
            | Self::CreatePreflightPod { op, .. }
            | Self::CreateWaiter { op, .. }
            | Self::CreateJob { op, .. } => About::Op(OpRef::of(op)),
            Self::DeleteOp { op } => About::Op(op.clone()),
            Self::PatchNode { name, change, .. } => match &change.claimed_by {
                Some(Some(op)) => About::Op(op.clone()),
                Some(None) | None => About::Node(name.clone()),
            },
            Self::CreateChild { upgrade, .. } | Self::PatchUpgradeStatus { upgrade, .. } => {
                About::Upgrade(upgrade.clone())
            }
            Self::CreateFactsPod { node, .. } => About::Node(node.clone()),
            Self::ResumeJob { job, .. }
            | Self::ExtendJob { job, .. }
            | Self::SettleJob { job, .. }
            | Self::DeleteJob { job, .. } => About::Job(job.clone()),
            Self::DeletePod { pod, .. } => About::Pod(pod.clone()),
            // What holds up an eviction stands in the message of the node that is drained. Nothing waits for
            // what a node's conditions say.
            Self::Evict { .. } | Self::PatchNodeConditions { .. } => return None,
        })
    }

    /// The NodeOp that it writes to.
    pub fn writes(&self) -> Option<OpRef> {
        match self {
            Self::PatchStatus { op, .. }
            | Self::SetFinalizers { op, .. }
            | Self::Finalize { op, .. }
            | Self::PropagateSpec { child: op, .. } => Some(OpRef::of(op)),
            Self::DeleteOp { op } => Some(op.clone()),
            Self::PatchNode { .. }
            | Self::PatchNodeConditions { .. }
            | Self::CreateChild { .. }
            | Self::PatchUpgradeStatus { .. }
            | Self::CreateFactsPod { .. }
            | Self::CreatePreflightPod { .. }
            | Self::CreateWaiter { .. }
            | Self::CreateJob { .. }
            | Self::ResumeJob { .. }
            | Self::ExtendJob { .. }
            | Self::SettleJob { .. }
            | Self::DeleteJob { .. }
            | Self::DeletePod { .. }
            | Self::Evict { .. } => None,
        }
    }

    /// What it patches as it was seen, for whoever knows a newer version of that.
    pub fn planned_from(&mut self) -> Option<PlannedFrom<'_>> {
        match self {
            Self::PatchNode { name, resource_version, .. }
            | Self::PatchNodeConditions { name, resource_version, .. } => {
                Some(PlannedFrom::Node { name, resource_version })
            }
            Self::ResumeJob { job, resource_version, .. } => Some(PlannedFrom::Job { job, resource_version }),
            Self::PatchStatus { .. }
            | Self::SetFinalizers { .. }
            | Self::Finalize { .. }
            | Self::DeleteOp { .. }
            | Self::CreateChild { .. }
            | Self::PropagateSpec { .. }
            | Self::PatchUpgradeStatus { .. }
            | Self::CreateFactsPod { .. }
            | Self::CreatePreflightPod { .. }
            | Self::CreateWaiter { .. }
            | Self::CreateJob { .. }
            | Self::ExtendJob { .. }
            | Self::SettleJob { .. }
            | Self::DeleteJob { .. }
            | Self::DeletePod { .. }
            | Self::Evict { .. } => None,
        }
    }
}

impl Identified for Action {
    fn id(&self) -> Id {
        let op = |op: &NodeOp| OpRef::of(op).to_string();
        let upgrade = |upgrade: &NodeOpUpgrade| {
            format!("{}@{}", upgrade_path(upgrade), upgrade.metadata.uid.as_deref().unwrap_or_default())
        };
        let made = |op: &NodeOp, name: &str| format!("{} of {}", name, OpRef::of(op));
        let target = |target: &Target| format!("{target}@{}", target.uid);
        let (does, to) = match self {
            Self::PatchStatus { op: of, .. } => ("patch status", op(of)),
            Self::SetFinalizers { op: of, .. } => ("set finalizers", op(of)),
            Self::Finalize { op: of, .. } => ("finalize", op(of)),
            Self::DeleteOp { op: of } => ("delete op", of.to_string()),
            Self::PropagateSpec { child, .. } => ("propagate spec", op(child)),
            Self::PatchNode { name, .. } => ("patch node", name.clone()),
            Self::PatchNodeConditions { name, .. } => ("patch node conditions", name.clone()),
            Self::CreateChild { upgrade: of, name } => ("create child", format!("{name} of {}", upgrade(of))),
            Self::PatchUpgradeStatus { upgrade: of, .. } => ("patch upgrade status", upgrade(of)),
            // Not by their names: those are others after each boot that a node reports, and it may report
            // boots without an end.
            Self::CreateFactsPod { node, attempt, .. } => {
                ("create facts pod", format!("{attempt} of {node}"))
            }
            Self::CreatePreflightPod { op, node, .. } => ("create preflight pod", made(op, node)),
            Self::CreateWaiter { op, name, .. } => ("create waiter", made(op, name)),
            Self::CreateJob { op, name, .. } => ("create job", made(op, name)),
            Self::ResumeJob { job, .. } => ("resume job", target(job)),
            Self::ExtendJob { job, .. } => ("extend job", target(job)),
            Self::SettleJob { job, .. } => ("settle job", target(job)),
            Self::DeleteJob { job, .. } => ("delete job", target(job)),
            Self::DeletePod { pod, .. } => ("delete pod", target(pod)),
            Self::Evict { pod, .. } => ("evict", target(pod)),
        };
        Id::Action { does, to }
    }
}

/// What may be changed of an operation under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    pub concurrency: i32,
    pub paused: bool,
    pub stop_on_failure: bool,
    pub not_after: Option<Timestamp>,
}

/// An object that an action is about; one of another UID is not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Target {
    /// Exactly this pod.
    pub fn of(pod: &PodView) -> Self {
        Self { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
    }

    /// Exactly this Job.
    pub fn of_job(job: &JobView) -> Self {
        Self { namespace: job.namespace.clone(), name: job.name.clone(), uid: job.uid.clone() }
    }
}

impl Target {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }
}

/// A change of what a node's conditions say of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionChange {
    /// What is said from now on, and for which NodeOp.
    pub set: Vec<(Lifecycle, OpRef)>,
    /// What is not said any more.
    pub remove: Vec<Lifecycle>,
}

/// What it does and to which object: for logs, and for people who wait for it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PatchStatus { op, status: _, notices: _ } => {
                write!(f, "patching the status of {}", nodeop_path(op))
            }
            Self::SetFinalizers { op, finalizers: _ } => {
                write!(f, "setting the finalizers of {}", nodeop_path(op))
            }
            Self::Finalize { op, finalizers: _ } => write!(f, "finalizing {}", nodeop_path(op)),
            Self::DeleteOp { op } => {
                write!(f, "deleting NodeOp {}/{}, which is not kept any longer", op.namespace, op.name)
            }
            Self::PatchNode { name, resource_version: _, change: _ } => write!(f, "patching node {name}"),
            Self::PatchNodeConditions { name, resource_version: _, change: _, at: _ } => {
                write!(f, "patching the conditions of node {name}")
            }
            Self::CreateChild { upgrade, name } => {
                write!(f, "creating NodeOp {name} of {}", upgrade_path(upgrade))
            }
            Self::PropagateSpec { child, steering: _, notice: _ } => {
                write!(f, "propagating the changed spec to {}", nodeop_path(child))
            }
            Self::PatchUpgradeStatus { upgrade, status: _, notices: _ } => {
                write!(f, "patching the status of {}", upgrade_path(upgrade))
            }
            Self::CreateFactsPod { node, name, .. } => {
                write!(f, "creating facts pod {name} on node {node}")
            }
            Self::CreatePreflightPod { op, node, name } => {
                write!(f, "creating preflight pod {name} of {} on node {node}", nodeop_path(op))
            }
            Self::CreateWaiter { op, node, name, job: _, succeeded: _ } => {
                write!(f, "creating reboot waiter {name} of {} on node {node}", nodeop_path(op))
            }
            Self::CreateJob { op, node, name, locks: _ } => {
                write!(f, "creating Job {name} of {} on node {node}", nodeop_path(op))
            }
            Self::ResumeJob { job, resource_version: _, op: _, notice: _ } => write!(f, "resuming Job {job}"),
            Self::ExtendJob { job, deadline_seconds: _ } => write!(f, "extending the deadline of Job {job}"),
            Self::SettleJob { job, boot: _ } => {
                write!(f, "settling Job {job}, whose operation has succeeded")
            }
            Self::DeleteJob { job, after_its_pods: _, why } => write!(f, "deleting Job {job}, because {why}"),
            Self::DeletePod { pod, why } => write!(f, "deleting pod {pod}, because {why}"),
            Self::Evict { node, pod, grace_period_seconds: _ } => {
                write!(f, "evicting pod {pod} from node {node}")
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn nodeop_path(op: &NodeOp) -> String {
    format!(
        "NodeOp {}/{}",
        op.metadata.namespace.as_deref().unwrap_or_default(),
        op.metadata.name.as_deref().unwrap_or_default()
    )
}

fn upgrade_path(upgrade: &NodeOpUpgrade) -> String {
    let meta = &upgrade.metadata;
    format!(
        "NodeOpUpgrade {}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    )
}

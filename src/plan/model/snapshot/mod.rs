//! What the planner sees: one moment of the cluster, as plain data, parsed once by `observe`.
//!
//! A view holds what a decision needs and nothing else. Absence from a map proves nothing, since caches lag:
//! what depends on an absence asks a [`Question`] first, and finds the answer in the next snapshot.

mod answers;
mod eviction;
mod facts;
mod finished;
mod kubelet;
mod labels;
mod nodes;
mod obstacle;
mod ownership;
mod placed;
mod pod;
mod sightings;
mod stamps;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;

pub use self::{
    answers::{Admission, ControlPlanePods, News, OtherReplica},
    eviction::{Eviction, Evictions, Refusal},
    facts::{fact_labels, facts_of},
    finished::{FinishedOp, FinishedOps},
    kubelet::has_native_sidecars,
    labels::NodeLabels,
    nodes::{NodeClass, NodeTable},
    obstacle::Obstacle,
    ownership::{records, works_by},
    placed::{Content, Placed, PlacedTable},
    pod::{ContainerState, ContainerView, Ended, PodPhase, PodView, Role},
    sightings::{Absence, MatchedSince, PodArrival, RETURNS_WITHIN, Sightings, had_no_nodes},
    table::{Shows, Table},
};
pub use crate::api::{owner::Owner, text::brief};
use crate::{
    api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade},
    plan::model::{
        hints::Hints,
        id::{Key, OpRef},
        identity::Id,
        kept_cordon::KeptCordon,
        lifecycle::Lifecycle,
        question::{Answer, Question},
    },
};

/// One moment of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The time of planning; the planner has no other clock.
    pub now: Timestamp,
    /// Since when this process leads. What an earlier leader did is not in our memory, so we start late, not
    /// at once.
    pub leading_since: Timestamp,
    /// What the administrator set.
    pub config: PlannerConfig,
    /// All nodes, by name.
    pub nodes: NodeTable,
    /// The NodeOps, by namespace and name, but for those of which a record is kept.
    pub ops: Table<Key, NodeOp>,
    /// The finished ones of which a record is kept. See [`Self::op_named`].
    pub finished: FinishedOps,
    /// All NodeOpUpgrades, by namespace and name.
    pub upgrades: Table<Key, NodeOpUpgrade>,
    /// The pods that read nodes' facts, by namespace and name.
    pub facts_pods: PlacedTable<PodView>,
    /// Jobs that carry our label, by namespace and name.
    pub jobs: PlacedTable<JobView>,
    /// Pods that carry our label, by namespace and name: waiters, preflights and the pods of our Jobs.
    pub pods: PlacedTable<PodView>,
    /// All pods of the nodes that are being drained. A node that is not in here has not been listed yet.
    pub drained_pods: Table<String, Vec<Arc<NodePod>>>,
    /// Why a node is not in there, or what is there of it may be old, if its pods could not be listed or
    /// watched for a while.
    pub unlisted: BTreeMap<String, String>,
    /// The last eviction of each pod that this process tried, by node and by pod UID.
    pub evictions: Evictions,
    /// Since when this process has seen what it sees.
    pub sightings: Arc<Sightings>,
    /// Answers to the questions of the previous plan.
    pub answers: BTreeMap<Question, Answer>,
    /// The [`Action`](super::action::Action)s and [`Question`]s that have failed three times in a row
    /// (`controllers::failures`). They are tried again, with pauses.
    pub failures: BTreeMap<Id, PersistentFailure>,
    /// What failed a moment ago, even once. Whatever is planned of it is not done in this pass, so nothing
    /// has to be asked for it either.
    pub paused: BTreeSet<Id>,
}

/// What the administrator set, as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// How many control-plane nodes may be worked on at once, over all NodeOps that cordon or reboot.
    pub control_plane_concurrency: usize,
    /// Whether nodes say in conditions of their own how far their drain is.
    pub node_conditions: bool,
    /// Our own namespace, where facts pods are.
    pub namespace: String,
    /// Our own pod (namespace, name), if we run in one: it is never evicted unless another replica is Ready
    /// elsewhere.
    pub own_pod: Option<Key>,
    /// The image of an operation that names none.
    pub default_image: String,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        let (namespace, default_image) = (String::new(), String::new());
        Self { control_plane_concurrency: 1, node_conditions: false, namespace, own_pod: None, default_image }
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    /// The first version that said all this: heartbeats make others.
    pub resource_version: String,
    pub created: Timestamp,
    pub labels: NodeLabels,
    /// Those annotations that say facts, or what it was tried with, and those that autoscalers read.
    pub annotations: BTreeMap<String, String>,
    pub unschedulable: bool,
    /// Who made it unschedulable and is going to undo that, if that was a NodeOp.
    pub cordoned_by: Option<OpRef>,
    /// Whose operation failed on it, which is why it stays unschedulable.
    pub kept_cordon: Option<KeptCordon>,
    /// Which NodeOp has claimed it.
    pub claimed_by: Option<OpRef>,
    /// Which NodeOp has asked autoscalers and load balancers to leave it, and what they had been told before.
    pub hints: Option<Hints>,
    /// Which of the conditions about operations it has, and whose each is; `None`: not ours.
    pub lifecycle: BTreeMap<Lifecycle, Option<OpRef>>,
    /// The kubelet's Ready condition is `True`.
    pub ready: bool,
    /// Since when it is, or is not, as the condition says.
    pub ready_changed: Option<Timestamp>,
    /// Its kubelet has reported it Ready again, a minute or more after it became so by the same clock.
    pub stays_ready: bool,
    /// The kubelet's reading of the boot id; empty before its first report.
    pub boot_id: String,
    /// Its kubelet has reported, and no boot id: it is no machine (KWOK, a virtual kubelet), and no reboot of
    /// it could be proved.
    pub bootless: bool,
    /// The machine's own id, which outlives a boot and a deletion of the Node; nothing before the kubelet's
    /// first report, so that nothing is concluded from it then.
    pub machine_id: Option<String>,
    /// The operating system and the architecture as Go names them (`linux`, `arm64`); empty before the
    /// kubelet's first report.
    pub os: String,
    pub arch: String,
    /// Its kubelet knows containers that run beside the others of a pod, see [`has_native_sidecars`].
    pub native_sidecars: bool,
    /// Whether the node's etcd votes, where the distribution says so (k3s and RKE2 do, kubeadm does not).
    pub etcd_votes: Option<bool>,
    /// What it says of that, if it says no.
    pub etcd_said: String,
    /// It is short of disk, as its kubelet says, which takes no pod then.
    pub disk_pressure: bool,
    /// Volumes are attached to it.
    pub volumes_attached: bool,
    /// It is being deleted, or an autoscaler says that it removes the machine. Nothing is begun on it; what
    /// is in progress goes on.
    pub deleting: bool,
}

impl NodeView {
    /// Whether neither its label nor its kubelet names another system than Linux. A node that says nothing
    /// counts as Linux.
    pub fn is_linux(&self) -> bool {
        let said = self.labels.get(names::OS_LABEL).into_iter().chain([&*self.os]);
        said.filter(|os| !os.is_empty()).all(|os| os == "linux")
    }

    /// Whether nothing about the node itself keeps an operation from it: it is Ready and stays, and nobody
    /// holds it.
    pub fn is_fit(&self) -> bool {
        self.ready && !self.deleting && !self.labels.on_hold()
    }

    /// Whether it is fit, and no operation has it.
    pub fn is_available(&self) -> bool {
        self.is_fit() && self.claimed_by.is_none()
    }

    /// Whether its facts can be read as soon as it is Ready: they are those of a boot, which its kubelet has
    /// to tell. Nodes that are no machines (KWOK, virtual kubelets) tell none.
    pub fn tells_its_boot(&self) -> bool {
        !self.boot_id.is_empty()
    }

    /// Whether it is out of load balancers because an operation took it out.
    pub fn left_balancers(&self) -> bool {
        let ours = self.hints.as_ref().is_some_and(|hints| hints.has(names::NOT_BALANCED));
        ours && self.labels.get(names::NOT_BALANCED).is_some_and(|value| value == names::NOT_BALANCED_VALUE)
    }

    /// Whether nothing is left on it of an operation but what somebody's uncordon ends: it failed, and stays
    /// cordoned and out of load balancers.
    pub fn is_kept_off(&self) -> bool {
        let label_alone = |hints: &Hints| hints.before.keys().all(|name| name == names::NOT_BALANCED);
        let failed = self.claimed_by.is_none() && self.kept_cordon.is_some();
        failed && self.hints.as_ref().is_some_and(label_alone)
    }

    /// The NodeOps that have something of it to give back, each once.
    pub fn claimants(&self) -> BTreeSet<&OpRef> {
        self.marked_by().collect()
    }

    /// The NodeOps that the node names: for its claim, its cordon and its hints; one may come several times.
    pub fn marked_by(&self) -> impl Iterator<Item = &OpRef> {
        let hints = self.hints.as_ref().map(|hints| &hints.by).filter(|_| !self.is_kept_off());
        self.claimed_by.iter().chain(&self.cordoned_by).chain(hints)
    }

    /// Whether it is a member of the control plane or of its etcd.
    pub fn has_control_plane_label(&self) -> bool {
        self.labels.has_control_plane_label()
    }
}

/// A Job that carries our label. Whether it is ours, its owner says.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The first version that said all this.
    pub resource_version: String,
    /// Who controls it.
    pub owner: Owner,
    pub node: String,
    /// Its controller makes no pod, and ends those that it has.
    pub suspended: bool,
    pub deleting: bool,
    pub state: JobState,
    /// When it was allowed to run, by the clock of the controller of Jobs.
    pub started_at: Option<Timestamp>,
    /// 1 when it is made, and one more with each change of its spec, whoever makes that.
    pub generation: Option<i64>,
    /// `activeDeadlineSeconds`, from when it may run.
    pub deadline_seconds: Option<i64>,
    /// How many of its pods have failed, those that its controller is just counting among them.
    pub failed: i32,
    /// Its controller has a pod of it, be it one that is only about to start; and such a pod is Ready.
    pub has_pod: bool,
    pub has_ready_pod: bool,
    /// The boot in which its operation succeeded, if we have settled it: nothing of it runs again.
    pub settled_in: Option<String>,
}

/// Where a Job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Neither of the below.
    Active,
    /// `FailureTarget`: it will fail once its pods have ended.
    Failing(String),
    /// `Complete`.
    Complete,
    /// `Failed`, with reason and message.
    Failed(String),
}

impl JobState {
    /// Whether no pod of it is at work, and none will be made.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_))
    }

    /// Whether it has failed, or will as soon as its pods have ended.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failing(_) | Self::Failed(_))
    }
}

/// Any pod on a node that is being drained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub created: Timestamp,
    /// Its `deletionTimestamp`: until then its containers may take to end, once its deletion was asked for.
    pub ends_by: Option<Timestamp>,
    /// The seconds that it was given for that.
    pub grace_seconds: i64,
    /// `Succeeded` or `Failed`.
    pub finished: bool,
    /// Who controls it.
    pub controller: Option<Owner>,
    /// A static pod's mirror: the kubelet makes it from a file, deleting it is pointless.
    pub mirror: bool,
    /// It tolerates the taint of a cordon: the scheduler would bring it back to the node at once.
    pub tolerates_cordon: bool,
    /// Has an emptyDir volume.
    pub local_storage: bool,
    /// The PersistentVolumeClaims that it mounts.
    pub claims: Vec<String>,
    /// Finalizers that would hold it after its containers ended.
    pub finalizers: Vec<String>,
}

impl NodePod {
    /// Namespace and name, as people write it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether a DaemonSet makes it again, which gives each of its pods a toleration of the cordon.
    pub fn is_of_daemon_set(&self) -> bool {
        self.controller.as_ref().is_some_and(|owner| owner.kind == "DaemonSet")
    }
}

/// A request that keeps failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentFailure {
    /// When it failed first.
    pub since: Timestamp,
    /// The API server's last answer about it, or why it had none.
    pub message: String,
}

impl Snapshot {
    /// The NodeOp that an annotation names, if it is that very object and not a later one of the same name.
    pub fn op(&self, of: &OpRef) -> Option<Arc<NodeOp>> {
        self.op_named(&of.key()).filter(|op| op.metadata.uid.as_deref() == Some(&of.uid))
    }

    /// The answer to a question, if it was asked by the previous plan.
    pub fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(question)
    }

    /// Whether a live read confirmed that the object is not there.
    pub fn is_gone(&self, question: &Question) -> bool {
        matches!(self.answers.get(question), Some(Answer::NotFound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_of_a_distribution_makes_a_member_of_the_control_plane() {
        let member = |key: &str, value: &str| {
            NodeView { labels: [(key.to_owned(), value.to_owned())].into(), ..NodeView::default() }
                .has_control_plane_label()
        };
        for label in names::CONTROL_PLANE_LABELS {
            for value in ["", "true", "false", "microk8s-controlplane"] {
                assert!(member(label, value), "{label}={value}");
            }
        }
        for (label, role) in names::CONTROL_PLANE_ROLES {
            assert!(member(label, role) && !member(label, "worker") && !member(label, ""), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/worker",
            "node-role.kubernetes.io/node",
            "node.kubernetes.io/microk8s-worker",
            "kubernetes.io/os",
        ] {
            assert!(!member(label, "true"), "{label}");
        }
    }
}

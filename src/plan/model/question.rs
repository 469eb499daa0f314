//! What the planner wants to know before something irreversible, and cannot take from a cache.
//!
//! A plan carries questions. `controllers` answers them by live requests, and a new plan is made with the
//! answers. An answer lives for one snapshot, so that nothing is ever decided on an old one. So a plan that
//! asks something new repeats the questions that were answered (`plan::carry_over`).

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::id::{Key, OpRef};

/// Something to be asked of the API server itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Is the node of this name there?
    Node(String),
    /// Is the NodeOp there, with this UID?
    Op(OpRef),
    /// Is the Job there, and which pods are there under its name? The snapshot shows both as they are now: a
    /// Job may be gone while its pods still end, and no cache need show them yet.
    Job(Key),
    /// Is the pod there? A waiter that no cache shows yet can reboot its node all the same.
    Pod(Key),
    /// Which Jobs and pods are there of the NodeOp, whoever made them and under whatever name? The snapshot
    /// shows them as they are now.
    OwnedWorkload(OpRef),
    /// What do all NodeOps say now? Asked before a control-plane node is claimed: two processes that both
    /// believe to lead have both written their intent by then, so at least one of them sees the other's.
    AllNodeOps,
    /// Is another replica of ours Ready on another node than this one?
    OtherReplica(String),
    /// Which volumes are attached to the node that none of its remaining pods uses?
    Volumes(String),
    /// Would the API server admit the pods that the NodeOp is going to make on this node?
    Admission(OpRef, String),
    /// What does the newest Event about this object say? Some things stand nowhere else: of a pod a sandbox,
    /// an address, a mount, a device, an image that is being pulled; of a Job why it gets no pod. Or what
    /// keeps its pods, if no watch shows them.
    Events { of: Regarding, namespace: String, name: String, uid: String },
    /// Which static pods of the control plane are on this node (kube-apiserver, and etcd if it runs there),
    /// and are they Ready? kubeadm's clusters have such pods; elsewhere the answer is that there are none.
    ControlPlanePods(String),
}

/// The kind of an object whose Events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regarding {
    Pod,
    Job,
    /// The pods that a Job has, and whose status is all that is asked for. Those of the Go operator's Jobs
    /// carry no label of ours.
    PodsOfJob,
}

/// What the API server said. What each answer means to a question stands in `snapshot::answers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not there, and not in the snapshot either.
    NotFound,
    /// It is there, and the snapshot shows it as it is now.
    Found,
    /// It is about to be there.
    Pending,
    /// These volumes, by name.
    Attached(Vec<String>),
    /// What would be made is refused; this is the server's message.
    Refused(String),
    /// Refused for now: a quota is full, an account is not there yet; it is asked again.
    NotYet(String),
    /// The newest Event is a warning: its reason, and what it says.
    Said(String),
    /// The newest Event says that an image is being pulled, since then by the server's clock.
    Pulls { since: Option<Timestamp> },
    /// These pods are there and not Ready, by name.
    NotReady(Vec<String>),
    /// Pods of these components are there, and all of them are Ready.
    Components(Vec<String>),
}

/// What is asked, for logs and for people who wait for the answer.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "reading node {name}"),
            Self::Op(op) => write!(f, "reading NodeOp {}/{}", op.namespace, op.name),
            Self::Job((namespace, name)) => write!(f, "reading Job {namespace}/{name} and its pods"),
            Self::Pod((namespace, name)) => write!(f, "reading pod {namespace}/{name}"),
            Self::OwnedWorkload(op) => {
                write!(f, "listing the Jobs and pods of NodeOp {}/{}", op.namespace, op.name)
            }
            Self::AllNodeOps => f.write_str("listing all NodeOps"),
            Self::OtherReplica(node) => {
                write!(f, "looking for a replica of the operator on another node than {node}")
            }
            Self::Volumes(node) => write!(f, "listing the volumes attached to node {node}"),
            Self::Events { of, namespace, name, uid: _ } => {
                let what = match of {
                    Regarding::Pod => "Events of pod",
                    Regarding::Job => "Events of Job",
                    Regarding::PodsOfJob => "pods of Job",
                };
                write!(f, "listing the {what} {namespace}/{name}")
            }
            Self::ControlPlanePods(node) => write!(f, "listing the control plane's pods on node {node}"),
            Self::Admission(op, node) => {
                write!(
                    f,
                    "trying with a dry run whether the objects of NodeOp {}/{} are admitted on node {node}",
                    op.namespace, op.name
                )
            }
        }
    }
}

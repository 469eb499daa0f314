//! What is ours: by namespace, kind, name and UID of the owner, compared in one place.
//!
//! A label says only why an object is looked at. A stranger's pod with our label, a pod that names the UID of a Job of ours from
//! another namespace, or an owner of a kind that does not exist matches nothing.

use std::sync::Arc;

use crate::{
    api::nodeop::{NodeOp, NodeStatus},
    plan::model::{
        id::OpRef,
        snapshot::{JobView, NodeView, Owner, PodView, Role, Snapshot},
    },
};

impl OpRef {
    /// Whether an object of that namespace with that owner belongs to this very NodeOp.
    pub fn owns(&self, namespace: &str, owner: &Owner) -> bool {
        namespace == self.namespace && owner.is_nodeop() && owner.name == self.name && owner.uid == self.uid
    }
}

impl JobView {
    /// Whether it belongs to the NodeOp.
    pub fn is_of(&self, op: &OpRef) -> bool {
        op.owns(&self.namespace, &self.owner)
    }
}

impl PodView {
    /// Whether it belongs to the NodeOp itself, as a waiter and a preflight do.
    pub fn is_of(&self, op: &OpRef) -> bool {
        op.owns(&self.namespace, &self.owner)
    }

    /// Whether a Job made it.
    pub fn is_of_job(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.namespace == namespace && self.owner.is_job() && self.owner.name == name && self.owner.uid == uid
    }

    /// Whether it reads the facts of this machine.
    pub fn is_of_node(&self, node: &NodeView) -> bool {
        self.owner.is_node() && self.owner.name == node.name && self.owner.uid == node.uid
    }
}

impl Snapshot {
    /// The pods of one role, other than a Job's, that the NodeOp has.
    pub fn pods_of<'a>(&'a self, op: &'a OpRef, role: Role) -> impl Iterator<Item = &'a Arc<PodView>> {
        self.pods.values().filter(move |pod| pod.role == role && pod.is_of(op))
    }

    /// The Jobs that the NodeOp has.
    pub fn jobs_of<'a>(&'a self, op: &'a OpRef) -> impl Iterator<Item = &'a Arc<JobView>> {
        self.jobs.values().filter(move |job| job.is_of(op))
    }

    /// The pods that a Job made, whether or not a cache shows that Job.
    pub fn pods_of_job<'a>(&'a self, namespace: &'a str, name: &'a str, uid: &'a str) -> impl Iterator<Item = &'a Arc<PodView>> {
        self.pods.values().filter(move |pod| pod.is_of_job(namespace, name, uid))
    }

    /// The Job that made a pod, if a cache shows it.
    pub fn job_of(&self, pod: &PodView) -> Option<&Arc<JobView>> {
        self.job(&pod.namespace, &pod.owner)
    }

    fn job(&self, namespace: &str, owner: &Owner) -> Option<&Arc<JobView>> {
        let job = self.jobs.get(&(namespace.to_owned(), owner.name.clone()))?;
        (owner.is_job() && job.uid == owner.uid).then_some(job)
    }

    /// The NodeOp that an owner of objects in a namespace is, if it is there.
    pub fn nodeop_of(&self, namespace: &str, owner: &Owner) -> Option<&Arc<NodeOp>> {
        let op = self.ops.get(&(namespace.to_owned(), owner.name.clone()))?;
        OpRef::of(op).owns(namespace, owner).then_some(op)
    }

    /// The NodeOp whose operation a pod carries out: through its Job, or, when no cache shows that Job (any more), through the status
    /// in which a NodeOp of the pod's namespace recorded it for the pod's node.
    pub fn operation_of(&self, pod: &PodView) -> Option<&Arc<NodeOp>> {
        self.operation_of_job(&pod.namespace, &pod.owner, &pod.node)
    }

    /// The NodeOp whose Job an owner of pods in a namespace is, see [`Self::operation_of`].
    pub fn operation_of_job(&self, namespace: &str, owner: &Owner, node: &str) -> Option<&Arc<NodeOp>> {
        if !owner.is_job() {
            return None;
        }
        match self.job(namespace, owner) {
            Some(job) => self.nodeop_of(namespace, &job.owner),
            None => self.ops.values().find(|op| op.metadata.namespace.as_deref() == Some(namespace) && records(op, owner, node)),
        }
    }
}

/// Whether the NodeOp's status names the Job. An entry that is final keeps the Job's name alone, which is made from the NodeOp's UID.
fn records(op: &NodeOp, job: &Owner, node: &str) -> bool {
    let names = |entry: &NodeStatus| entry.job_name.as_ref() == Some(&job.name) && entry.job_uid.as_ref().is_none_or(|uid| *uid == job.uid);
    op.status.as_ref().and_then(|status| status.node_statuses.get(node)).is_some_and(names)
}

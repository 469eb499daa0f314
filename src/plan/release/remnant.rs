//! What is left on a node of an operation that is over: as long as it can still act there, the node is not
//! given back.

use crate::{
    api::nodeop::{NodeStatus, RebootStatus},
    plan::{
        model::{
            action::{Action, Target},
            id::OpRef,
            object_name,
            snapshot::{JobView, NodeView, PodView, Snapshot},
        },
        node::cancel,
        release::unreleased::Unreleased,
    },
};

/// Something that can still act on a node.
#[derive(Clone, Copy, Debug)]
pub enum Remnant<'a> {
    /// A Job that can still make a pod.
    Job(&'a JobView),
    /// A pod of a Job. It ends by itself, or with its Job.
    JobPod(&'a PodView),
    /// A waiter or a preflight.
    Pod(&'a PodView),
    /// The API server may still be at an eviction though the drain was cancelled: the pod would go from a
    /// node that nobody drains.
    Eviction,
}

impl Remnant<'_> {
    /// Why the node is not given back because of it.
    pub fn keeps(&self) -> Unreleased {
        match self {
            Self::Job(job) => Unreleased::Job((job.namespace.clone(), job.name.clone())),
            Self::JobPod(pod) | Self::Pod(pod) => Unreleased::Pod((pod.namespace.clone(), pod.name.clone())),
            Self::Eviction => Unreleased::Eviction,
        }
    }

    /// What ends it, unless that was done before or nothing of ours can.
    pub fn end(&self, owner: &OpRef) -> Option<Action> {
        let why = "its node is being released";
        match self {
            Self::Job(job) => (!job.deleting).then(|| cancel::delete(owner, job, why)),
            Self::Pod(pod) => (!pod.deleting).then(|| Action::DeletePod { pod: Target::of(pod), why }),
            Self::JobPod(_) | Self::Eviction => None,
        }
    }
}

/// What can still act on a node for the NodeOp that has claimed it; `entry` is what that NodeOp says of the
/// node.
pub fn find<'a>(
    snapshot: &'a Snapshot,
    node: &NodeView,
    owner: &OpRef,
    entry: Option<&NodeStatus>,
) -> Vec<Remnant<'a>> {
    let jobs = snapshot.jobs.on_node(&node.name).filter(|job| job.is_of(owner) && !is_over(job, node));
    let pods = || {
        snapshot
            .pods
            .on_node(&node.name)
            .map(AsRef::as_ref)
            .filter(|pod| !pod.is_terminated_or_fenced(node.ready))
    };
    let of_jobs = pods().filter(|pod| operates(snapshot, pod, owner));
    let own = pods().filter(|pod| pod.is_of(owner) && !is_proved(entry));
    let tried = snapshot.evictions.get(&node.name).into_iter().flat_map(|pods| pods.values());
    let evictions = tried.filter(|eviction| eviction.under_way).map(|_| Remnant::Eviction).take(1);
    jobs.map(|job| Remnant::Job(job))
        .chain(of_jobs.map(Remnant::JobPod))
        .chain(own.map(Remnant::Pod))
        .chain(evictions)
        .collect()
}

fn is_over(job: &JobView, node: &NodeView) -> bool {
    job.state.is_over() || (job.deleting && !node.ready)
}

/// Whether the pod carries out an operation, of whichever NodeOp: none but that of this claim can be on the
/// node. Where nothing tells of its Job any more, because the NodeOp is gone with its status, the Job's name
/// does, which is made from the NodeOp's UID.
fn operates(snapshot: &Snapshot, pod: &PodView, owner: &OpRef) -> bool {
    if snapshot.operation_of(pod).is_some() {
        return true;
    }
    match snapshot.job_of(pod) {
        Some(job) => job.is_of(owner),
        None => {
            let ours = object_name::attempt((&owner.name, &owner.uid), &pod.node, "", &pod.owner.name);
            ours.is_some() && pod.is_of_job(&owner.namespace, &pod.owner.name, &pod.owner.uid)
        }
    }
}

/// Whether the node was seen in another boot than the one that its waiter's sentinel names.
pub fn is_proved(entry: Option<&NodeStatus>) -> bool {
    entry.is_some_and(|entry| entry.phase.is_final() && entry.reboot_status == Some(RebootStatus::Completed))
}

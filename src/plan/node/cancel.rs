//! Calling off: nothing of an operation may start, and no reboot may come, once its node's entry is final.
//!
//! So what could still act is ended first, and its end is seen, or its absence confirmed by a live read,
//! before the entry says that nothing more happens. A cache that does not show a Job or a waiter yet proves
//! nothing.

use crate::plan::{
    model::{
        action::{Action, Plan, Target},
        id::OpRef,
        object_name,
        question::Question,
        snapshot::{JobState, JobView, Role, Snapshot},
    },
    node::context::Op,
};

/// What deletes this Job of a NodeOp. One that the Go operator made has pods without a label of ours, which
/// no watch shows: such a Job is made to stay until they have gone, or its node would be given back under a
/// command that still runs.
pub fn delete(of: &OpRef, job: &JobView, why: &'static str) -> Action {
    let ours = object_name::is_job((&of.name, &of.uid), &job.node, &job.name);
    Action::DeleteJob { job: Target::of_job(job), after_its_pods: !ours, why }
}

/// Sees to it that the Job can start no pod any more. `Some`: not yet, and why.
pub fn job(snapshot: &Snapshot, op: &Op, name: &str, plan: &mut Plan) -> Option<String> {
    let key = (op.id.namespace.clone(), name.to_owned());
    let Some(job) = snapshot.jobs.get(&key).filter(|job| job.is_of(&op.id)) else {
        if snapshot.jobs.contains_key(&key) || snapshot.is_gone(&Question::Job(key.clone())) {
            return None;
        }
        if snapshot.answer(&Question::Job(key.clone())).is_none() {
            plan.questions.insert(Question::Job(key));
        }
        return Some("checking whether its Job still exists".into());
    };
    match job.state {
        JobState::Complete | JobState::Failed(_) | JobState::Failing(_) => return None,
        JobState::Active => {}
    }
    if !job.deleting {
        plan.actions.push(delete(&op.id, job, "its node's operation was called off"));
    }
    Some("its Job is being deleted".into())
}

/// Sees to it that no waiter of the node can reboot it any more. `Some`: not yet, and why. Waiters of earlier
/// attempts were seen to be over when the next attempt was recorded, so only the present one may be unseen.
pub fn waiter(
    snapshot: &Snapshot,
    op: &Op,
    node: &str,
    ready: bool,
    attempt: i32,
    plan: &mut Plan,
) -> Option<String> {
    let mut open = false;
    for pod in snapshot.pods_of(&op.id, Role::Waiter).filter(|pod| pod.node == node) {
        if pod.is_active() {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its reboot was called off" });
        }
        open |= !pod.is_terminated_or_fenced(ready);
    }
    if open {
        return Some("its reboot waiter is being ended".into());
    }
    let key = (op.id.namespace.clone(), op.object_name(node, "reboot", attempt));
    let question = Question::Pod(key.clone());
    if snapshot.pods.contains_key(&key) || snapshot.is_gone(&question) {
        return None;
    }
    if snapshot.answer(&question).is_none() {
        plan.questions.insert(question);
    }
    Some("checking whether its reboot waiter still exists".into())
}

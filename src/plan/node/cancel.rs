//! Cancelling an operation on a node: nothing of it may start, and no reboot may come, once its node's entry
//! is final.
//!
//! So what could still act is ended first, and its end is seen, or its absence confirmed by a live read,
//! before the entry says that nothing more happens. A cache that does not show a Job or a waiter yet proves
//! nothing.

use crate::{
    contract::reboot_state,
    plan::{
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            id::OpRef,
            object_name,
            question::Question,
            snapshot::{JobState, JobView, PodView, Role, Snapshot},
        },
        node::{context::Op, waiting::Open},
    },
};

/// What deletes this Job of a NodeOp. One that the Go operator made has pods without a label of ours, which
/// no watch shows: such a Job is made to stay until they have gone, or its node would be given back under a
/// command that still runs.
pub fn delete(of: &OpRef, job: &JobView, why: &'static str) -> Action {
    let ours = object_name::attempt((&of.name, &of.uid), &job.node, "", &job.name).is_some();
    Action::DeleteJob { job: Target::of_job(job), after_its_pods: !ours, why }
}

/// Sees to it that the Job can start no pod any more. `Some`: not yet.
pub fn job(snapshot: &Snapshot, op: &Op, name: &str) -> Planned<Option<Open>> {
    let key = (op.id.namespace.clone(), name.to_owned());
    let Some(job) = snapshot.jobs.get(&key).filter(|job| job.is_of(&op.id)) else {
        let is_foreign = snapshot.jobs.contains_key(&key);
        let question = Question::Job(key);
        if is_foreign || snapshot.is_gone(&question) {
            return None.into();
        }
        return Planned::from(Some(Open::JobUnconfirmed)).with(snapshot.unanswered([question]));
    };
    match job.state {
        JobState::Complete | JobState::Failed(_) | JobState::Failing(_) => return None.into(),
        JobState::Active => {}
    }
    let delete = (!job.deleting).then(|| delete(&op.id, job, "its node's operation was cancelled"));
    Planned::from(Some(Open::JobDeleted)).with(Effects::act(delete))
}

/// Sees to it that no waiter of the node can reboot it any more. `Some`: not yet. Waiters of earlier attempts
/// were seen to be over when the next attempt was recorded, so only the present one may be unseen.
pub fn waiter(snapshot: &Snapshot, op: &Op, node: &str, ready: bool, attempt: i32) -> Planned<Option<Open>> {
    let ends = end_waiters(snapshot, op, node);
    let mut here = snapshot.pods_of_on(&op.id, Role::Waiter, node);
    if here.any(|pod| !pod.is_terminated_or_fenced(ready)) {
        return Planned::from(Some(Open::WaiterEnds)).with(ends);
    }
    let key = (op.id.namespace.clone(), op.object_name(node, "reboot", attempt));
    let is_seen = snapshot.pods.contains_key(&key);
    let question = Question::Pod(key);
    if is_seen || snapshot.is_gone(&question) {
        return Planned::from(None).with(ends);
    }
    Planned::from(Some(Open::WaiterUnconfirmed)).with(ends).with(snapshot.unanswered([question]))
}

/// Ends the waiters of a node that are seen.
pub fn end_waiters(snapshot: &Snapshot, op: &Op, node: &str) -> Effects {
    delete_waiters(snapshot, op, node, "its reboot was cancelled", |_| true)
}

/// Ends them for now: the reboot is to come later, and another waiter to see to it. One that has asked for
/// the reboot goes on.
pub fn end_waiters_for_now(snapshot: &Snapshot, op: &Op, node: &str) -> Effects {
    let why = "another control-plane node is away, and the reboot has to wait";
    delete_waiters(snapshot, op, node, why, |pod| {
        pod.reboot_state.as_deref().is_none_or(|state| state == reboot_state::WAITING)
    })
}

fn delete_waiters(
    snapshot: &Snapshot,
    op: &Op,
    node: &str,
    why: &'static str,
    which: fn(&PodView) -> bool,
) -> Effects {
    let here = snapshot.pods_of_on(&op.id, Role::Waiter, node);
    let active = here.filter(|pod| pod.is_active() && which(pod));
    Effects::act(active.map(|pod| Action::DeletePod { pod: Target::of(pod), why }))
}

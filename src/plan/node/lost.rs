//! A node whose machine is gone for good. Its Job goes first: on another machine of the same name it would
//! run again.

use std::sync::Arc;

use crate::{
    api::nodeop::RebootStatus,
    plan::{
        model::{
            effects::{Effects, Planned},
            snapshot::{NodeView, PodView, Snapshot},
        },
        node::{
            cancel,
            context::{self, EntryPlan, Op},
            failure::Lost,
            state::{At, Entry, Over, State, Touched, Working},
            waiting::{Open, Waiting},
        },
    },
};

/// Ends what could still act, until nothing can, and then fails the node.
pub fn fail(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    there: Option<&NodeView>,
    work: &Working,
    why: Lost,
) -> Planned<EntryPlan> {
    let ready = there.is_some_and(|node| node.ready);
    let ending = |open| EntryPlan::Wait(Waiting::Ending { reason: why.sentence().to_owned(), open }.into());
    let mut effects = Effects::default();
    if let Some(job) = &work.job
        && let Some(open) = effects.absorb(cancel::job(snapshot, op, &job.name))
    {
        return Planned { value: ending(open), effects };
    }
    // Where the node is there, its kubelet ends them, and an agent has its time for that.
    let ends = |pod: &Arc<PodView>| pod.node == name && !pod.is_terminated_or_fenced(ready);
    if let (Some(job), Some(uid)) = (&work.job, work.job_uid())
        && snapshot.pods_of_job(&op.id.namespace, &job.name, uid).any(ends)
    {
        return Planned { value: ending(Open::JobPodsEnd), effects };
    }
    let may_reboot = op.intent.reboot && work.job_uid().is_some();
    let attempt = work.waiter.number();
    if may_reboot && let Some(open) = effects.absorb(cancel::waiter(snapshot, op, name, ready, attempt)) {
        return Planned { value: ending(open), effects };
    }
    let job = context::recorded_job(snapshot, op, work);
    let failed = job.is_some_and(|job| job.state.is_failure());
    let reboot = match &work.at {
        _ if !op.intent.reboot => RebootStatus::NotRequested,
        At::Verify(_) => RebootStatus::Completed,
        // The machine may have rebooted, or may yet: nobody knows. Its waiter acts as soon as the Job is
        // complete, whether or not we have seen that, and a Job that was deleted meanwhile tells nobody any
        // more.
        At::Reboot(_) => RebootStatus::Pending,
        At::Job(_) if work.job_uid().is_some() && !failed => RebootStatus::Pending,
        At::Claim { .. } | At::Drain(_) | At::Job(_) => RebootStatus::Cancelled,
    };
    let untouched = work.given_up.as_ref().is_some_and(|given_up| given_up.touched == Touched::No);
    let job_name = work.ran().filter(|_| !untouched);
    // Another machine of the name is not this one, and its Node has no record of what this one was tried
    // with.
    let machine_id = work.machine.id.clone().filter(|_| job_name.is_some());
    let over = Over { reboot: Some(reboot), job_name, machine_id, ..Over::of(work) };
    // Its claim and cordon went with it, and nothing is to be given back; unless somebody has made the Node
    // again as it was.
    let marked = there.filter(|node| node.marked_by().any(|of| *of == op.id));
    let entry = Entry {
        message: Some(why.to_string()),
        since: Some(snapshot.now.into()),
        node_uid: marked.map(|node| node.uid.clone()),
        state: State::Over(over),
    };
    Planned { value: EntryPlan::Record(Box::new(entry)), effects }
}

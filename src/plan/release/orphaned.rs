//! Work on nodes that nobody has claimed any more.

use super::remnant::is_proved;
use crate::plan::{
    model::{
        action::{Action, Target},
        id::OpRef,
        object_name,
        snapshot::{JobState, Owner, PodPhase, PodView, Role, Snapshot},
    },
    node::{cancel, legacy},
};

/// Jobs and waiters of final entries whose node is no longer claimed: made by a leader whose view was old,
/// adopted from the Go operator, or refused by the node. A Job of another name is that operator's, and is
/// left to end: it may be an upgrade under way.
pub fn orphaned_work(snapshot: &Snapshot) -> Vec<Action> {
    let over = |namespace: &str, owner: &Owner, node: &str| {
        let op = snapshot.nodeop_of(namespace, owner)?;
        let status = op.status.as_ref()?;
        // A NodeOp that is over begins nothing on a node of which it says nothing, or nothing any more.
        let entry = status.node_statuses.get(node);
        let is_final = entry.map_or_else(|| status.is_over(), |entry| entry.phase.is_final());
        if !is_final || legacy::is_to_be_adopted(status) {
            return None;
        }
        let me = OpRef::of(&op);
        let claimed = snapshot.nodes.get(node).is_some_and(|node| node.claimed_by.as_ref() == Some(&me));
        (!claimed).then(|| (me, entry.cloned()))
    };
    let why = "its node is finished";
    let jobs = snapshot.jobs.open().filter(|job| job.state == JobState::Active && !job.deleting);
    let jobs = jobs.filter_map(|job| {
        let (me, _) = over(&job.namespace, &job.owner, &job.node)?;
        let ours = object_name::attempt((&me.name, &me.uid), &job.node, "", &job.name).is_some();
        ours.then(|| cancel::delete(&me, job, why))
    });
    // One that its node refused has nothing to say that the message of its node did not.
    let refused = |pod: &PodView| pod.phase == PodPhase::Failed && !pod.has_run();
    let pods = snapshot.pods.open().filter(|pod| pod.role == Role::Waiter && !pod.deleting);
    let pods = pods.filter(|pod| pod.is_active() || refused(pod)).filter_map(|pod| {
        let (_, entry) = over(&pod.namespace, &pod.owner, &pod.node)?;
        (refused(pod) || !is_proved(entry.as_ref())).then(|| Action::DeletePod { pod: Target::of(pod), why })
    });
    jobs.chain(pods).collect()
}

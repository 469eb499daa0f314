//! Waiters whose reboot is proved: they end by themselves, and are ended if they do not.

use k8s_openapi::jiff::SignedDuration;

use super::remnant::is_proved;
use crate::plan::{
    model::{
        action::{Action, Target},
        effects::{Effects, Planned},
        snapshot::{PodView, Role, Snapshot},
        stamp::Stamp,
        time::later,
    },
    node::context::Op,
};

/// How long after a proved reboot the waiter may take to see it too and to clean up after itself, before it
/// is deleted.
const WAITER_RETENTION: SignedDuration = SignedDuration::from_secs(30);

/// Ends the waiters of proved reboots that have not ended by themselves in time. Whether none is left.
pub fn expire_waiters(snapshot: &Snapshot, op: &Op) -> Planned<bool> {
    let entries = op.object.status.as_ref().map(|status| &status.node_statuses);
    let expire = |pod: &PodView| {
        let entry = entries.and_then(|entries| entries.get(&pod.node)).filter(|entry| is_proved(Some(entry)));
        let ready = snapshot.nodes.get(&pod.node).is_some_and(|node| node.ready);
        let entry = entry.filter(|_| !pod.is_terminated_or_fenced(ready))?;
        let over_since = entry.last_updated.as_ref().and_then(|time| Stamp::from(time).trusted(snapshot.now));
        let until = over_since.map_or(snapshot.now, |since| later(since, WAITER_RETENTION));
        if snapshot.now < until {
            return Some(Effects::wake_at(until));
        }
        let why = "the reboot that it waited for is over";
        let delete = || Action::DeletePod { pod: Target::of(pod), why };
        Some(Effects::act((!pod.deleting).then(delete)))
    };
    let left: Vec<Effects> = snapshot.pods_of(&op.id, Role::Waiter).filter_map(|pod| expire(pod)).collect();
    Planned { value: left.is_empty(), effects: Effects::all(left) }
}

//! Which machine a Node object is: the one that was taken, or another one of its name. And whether one that
//! is away may come back.
//!
//! Cloud controllers delete the Node of a machine that is away, and its kubelet makes another one when it is
//! back. Whether that is the machine that was taken its own id tells, which outlives the Node object.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::plan::{
    model::{
        question::Question,
        snapshot::{JobState, NodeView, RETURNS_WITHIN, Snapshot},
        time::later,
    },
    node::{
        context::{self, Op},
        failure::Lost,
        state::{At, Entry, Working},
        verify,
        waiting::Waiting,
    },
};

/// What is known of the machine that was taken.
pub enum Presence<'a> {
    /// Its Node object is the one that was taken.
    Here(&'a NodeView),
    /// It is back, and has another Node object.
    Rejoined(&'a NodeView),
    /// It may come back until then; this is said meanwhile.
    Awaited { why: Waiting, until: Timestamp },
    /// This has to be known first.
    Unconfirmed(Question),
    /// It does not come back. Another machine may be there, under its name.
    Lost { why: Lost, there: Option<&'a NodeView> },
}

/// The Node object of this name, if it is the one as which the node was taken, whose UID this is.
pub fn taken<'a>(snapshot: &'a Snapshot, name: &str, uid: Option<&String>) -> Option<&'a Arc<NodeView>> {
    snapshot.nodes.get(name).filter(|node| uid.is_none_or(|uid| *uid == node.uid))
}

/// Finds the machine that was taken.
pub fn find<'a>(snapshot: &'a Snapshot, op: &Op, name: &str, entry: &Entry, work: &Working) -> Presence<'a> {
    if let Some(node) = taken(snapshot, name, entry.node_uid.as_ref()) {
        return Presence::Here(node);
    }
    let (there, live) = (snapshot.nodes.get(name).map(AsRef::as_ref), Question::Node(name.into()));
    let (is_read, until) = (snapshot.answer(&live).is_some(), awaited_until(snapshot, op, name, entry, work));
    let lost = |why| Presence::Lost { why, there };
    match (there, until) {
        // Nothing is decided by the absence before that time, so nobody is asked whether it is one.
        (None, Some(until)) => Presence::Awaited { why: Waiting::NodeDeleted { until }, until },
        (None, None) if snapshot.is_gone(&live) => lost(Lost::Deleted),
        (Some(node), _) if is_read && is_same_machine(snapshot, work, node) => Presence::Rejoined(node),
        // Somebody else than its kubelet has made it again, and that has not reported yet: nobody knows which
        // machine it is.
        (Some(node), Some(until)) if is_read && node.machine_id.is_none() => {
            Presence::Awaited { why: Waiting::NodeUnreported { until }, until }
        }
        (Some(node), None) if is_read && node.machine_id.is_none() => lost(Lost::Unreported),
        (Some(_), _) if is_read => lost(Lost::Replaced),
        // A cache that is older than the status may show an earlier machine of that name.
        (Some(_) | None, _) => Presence::Unconfirmed(live),
    }
}

/// Whether a Node under another UID is the machine that was taken: by its own id, which outlives the Node
/// object. One that other nodes have too, because all were made from one disk image, says nothing.
fn is_same_machine(snapshot: &Snapshot, work: &Working, node: &NodeView) -> bool {
    work.machine.id.is_some() && work.machine.id == node.machine_id && snapshot.nodes.has_own_machine_id(node)
}

/// Until when a node whose object was deleted may join again, if it may. A NodeOp that is deleted meanwhile
/// does not wait for it, unless it is of the control plane: nothing else would tell that this machine is
/// away.
fn awaited_until(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    entry: &Entry,
    work: &Working,
) -> Option<Timestamp> {
    let known = work.machine.id.is_some() && (!op.deleting || work.machine.control_plane);
    let gone = || snapshot.gone_since(&op.id, name);
    let deadline = match &work.at {
        // One whose reboot is held back has none.
        At::Reboot(_) => context::deadline(snapshot, entry, work, op.intent.reboot_timeout)
            .unwrap_or_else(|| later(gone(), RETURNS_WITHIN)),
        // It is away, as one that is not Ready.
        At::Verify(_) => later(snapshot.begun_at(entry.since?), verify::stays_ready_within(&op.intent)),
        At::Claim { .. } | At::Drain(_) | At::Job(_) if work.given_up.is_some() => return None,
        At::Claim { .. } | At::Drain(_) | At::Job(_) => {
            // The waiter reboots the machine as soon as its Job is complete, whether or not we have seen
            // that.
            let job = context::recorded_job(snapshot, op, work);
            let reboots = op.intent.reboot && job.is_some_and(|job| job.state == JobState::Complete);
            let reboot = if reboots { op.intent.reboot_timeout } else { RETURNS_WITHIN };
            later(gone(), reboot.max(RETURNS_WITHIN))
        }
    };
    Some(deadline).filter(|deadline| known && snapshot.now < *deadline)
}

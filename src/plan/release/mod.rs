//! Giving nodes back: level-triggered from the nodes themselves, so that nothing depends on who finished,
//! crashed or was deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot
//! stays taken. After a proved reboot the waiter is due nothing, whatever it does: its sentinel names a boot
//! that is over. So nobody waits for it; it gets some time to see that itself and to clean up.

mod failed;
mod remnant;
mod unreleased;

use k8s_openapi::jiff::SignedDuration;

use self::remnant::is_proved;
pub use self::unreleased::Unreleased;
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    plan::{
        model::{
            action::{Action, NodeChange, Target},
            effects::{Effects, Planned},
            failing,
            id::OpRef,
            intent::Intent,
            object_name,
            question::Question,
            snapshot::{JobState, NodeView, Owner, PodPhase, PodView, Role, Snapshot, Standing},
            time::later,
        },
        node::{
            cancel,
            context::Op,
            cordon::{self, Ending},
            hints, legacy,
        },
    },
};

/// How long after a proved reboot the waiter may take to see it too and to clean up after itself, before it
/// is deleted.
const WAITER_RETENTION: SignedDuration = SignedDuration::from_secs(30);

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn sweep(snapshot: &Snapshot) -> Effects {
    let mut effects = Effects::act(orphaned_work(snapshot));
    let held = snapshot.nodes.that_are(Standing::Held);
    held.for_each(|view| effects.add(node(snapshot, view)));
    effects
}

/// Releases one node from whoever no longer needs it.
pub fn node(snapshot: &Snapshot, node: &NodeView) -> Effects {
    let mut effects = Effects::default();
    for owner in node.holders() {
        // What a finished NodeOp left cordoned, or told autoscalers and load balancers, belongs to the one
        // that has claimed the node, for as long as it has.
        if node.claimed_by.as_ref().is_some_and(|claim| claim != owner) {
            continue;
        }
        effects.add(match snapshot.op(owner) {
            Some(op) => release(snapshot, node, owner, &op),
            None if snapshot.is_gone(&Question::Op(owner.clone())) => orphan(snapshot, node, owner),
            None if failing::change_is_paused(snapshot, node) => Effects::default(),
            None => Question::Op(owner.clone()).into(),
        });
    }
    if let Some(kept) = node.kept_cordon.as_ref().filter(|_| node.claimed_by.is_none()) {
        effects.add(failed::sweep(snapshot, node, kept));
    }
    effects
}

/// Why a node that the NodeOp is done with is not given back yet. Nothing for a node that it has not claimed,
/// or still works on.
pub fn why_not_released(snapshot: &Snapshot, view: &NodeView, op: &Op) -> Option<Unreleased> {
    let status = op.object.status.as_ref().filter(|_| view.claimed_by.as_ref() == Some(&op.id))?;
    let entry = status.node_statuses.get(&view.name);
    if is_in_hand(status, entry) {
        return None;
    }
    if let Some(remnant) = remnant::find(snapshot, view, &op.id, entry).first() {
        return Some(remnant.keeps());
    }
    Some(Unreleased::BeingGivenBack { last_error: node(snapshot, view).keeps_failing(snapshot) })
}

/// Jobs and waiters of final entries whose node is no longer claimed: made by a leader whose view was old,
/// adopted from the Go operator, or refused by the node. A Job of another name is that operator's, and is
/// left to end: it may be an upgrade under way.
fn orphaned_work(snapshot: &Snapshot) -> Vec<Action> {
    let over = |namespace: &str, owner: &Owner, node: &str| {
        let op = snapshot.nodeop_of(namespace, owner)?;
        let status = op.status.as_ref()?;
        // Of a NodeOp that is over for good its nodes are not known any more.
        let entry = status.node_statuses.get(node);
        let forgotten = status.node_statuses.is_empty() && status.phase.is_some_and(Phase::is_final);
        let is_final =
            entry.map_or(forgotten, |entry| entry.phase.is_final() && !legacy::is_unsettled(status, entry));
        if !is_final {
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
        let ours = object_name::job_attempt((&me.name, &me.uid), &job.node, &job.name).is_some();
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

fn is_in_hand(status: &NodeOpStatus, entry: Option<&NodeStatus>) -> bool {
    entry.is_some_and(|entry| entry.phase == Phase::Running || legacy::is_unsettled(status, entry))
}

/// What becomes of the node's cordon.
fn ending(op: &NodeOp, entry: Option<&NodeStatus>) -> Ending {
    let cordons = Intent::of(op).cordon;
    match entry.map(|entry| (entry.phase, entry.job_name.is_some())) {
        Some((Phase::Completed, _)) if cordons => Ending::Uncordon,
        Some((Phase::Failed, true)) if op.spec.uncordon_on_failure.unwrap_or(false) => Ending::Uncordon,
        Some((Phase::Failed, true)) if cordons => Ending::Keep,
        _ => Ending::Undo,
    }
}

/// Gives back all that the NodeOp holds of the node. `None`: it holds nothing.
fn give_back(node: &NodeView, owner: &OpRef, ending: Ending) -> Option<NodeChange> {
    let mut change = cordon::give_back(node, owner, ending).unwrap_or_default();
    hints::give_back(node, owner, &mut change);
    (!change.is_empty()).then_some(change)
}

fn release(snapshot: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp) -> Effects {
    let nothing = Effects::default();
    let Some(status) = &op.status else { return nothing };
    let entry = status.node_statuses.get(&node.name);
    if is_in_hand(status, entry) {
        return nothing;
    }
    let is_final = entry.is_some_and(|entry| entry.phase.is_final());
    let live = Question::Op(owner.clone());
    if !is_final && snapshot.answer(&live).is_none() {
        // What is final stays so, but a node that is not started in an old view may have been started by now.
        return match give_back(node, owner, ending(op, entry)) {
            Some(change) if failing::change_is_paused(snapshot, node) => {
                Action::patch_node(node, change).into()
            }
            _ => live.into(),
        };
    }
    let Some(change) = give_back(node, owner, ending(op, entry)) else {
        return nothing;
    };
    if node.claimed_by.as_ref() != Some(owner) {
        return Action::patch_node(node, change).into();
    }
    let remnants = remnant::find(snapshot, node, owner, entry);
    let mut effects = Effects::act(remnants.iter().filter_map(|remnant| remnant.end(owner)));
    if remnants.is_empty() {
        effects.add(Action::patch_node(node, change));
    } else if change.kept_cordon.is_some() {
        // At once, whatever still has to end: the NodeOp may be deleted at any time, and with it goes what
        // tells that the node failed.
        let mark = NodeChange { kept_cordon: change.kept_cordon, ..NodeChange::default() };
        effects.add(Action::patch_node(node, mark));
    }
    effects
}

/// The NodeOp is gone, and the garbage collector is at its Jobs and pods: wait for them, then undo what it
/// did.
fn orphan(snapshot: &Snapshot, node: &NodeView, owner: &OpRef) -> Effects {
    let remnants = remnant::find(snapshot, node, owner, None);
    let change = give_back(node, owner, Ending::Undo).filter(|_| remnants.is_empty());
    let ends = remnants.iter().filter_map(|remnant| remnant.end(owner));
    Effects::act(ends.chain(change.map(|change| Action::patch_node(node, change))))
}

/// Ends the waiters of proved reboots that have not ended by themselves in time. Whether none is left.
pub fn expire_waiters(snapshot: &Snapshot, op: &Op) -> Planned<bool> {
    let entries = op.object.status.as_ref().map(|status| &status.node_statuses);
    let (mut none, mut effects) = (true, Effects::default());
    for pod in snapshot.pods_of(&op.id, Role::Waiter) {
        let entry = entries.and_then(|entries| entries.get(&pod.node)).filter(|entry| is_proved(Some(entry)));
        let ready = snapshot.nodes.get(&pod.node).is_some_and(|node| node.ready);
        let (Some(entry), false) = (entry, pod.is_terminated_or_fenced(ready)) else {
            continue;
        };
        none = false;
        // A time that lies ahead of our clock was written by another one, and is as good as none.
        let over_since = entry.last_updated.as_ref().map(|time| time.0).filter(|time| *time <= snapshot.now);
        let until = over_since.map_or(snapshot.now, |since| later(since, WAITER_RETENTION));
        if snapshot.now < until {
            effects.add(Effects::wake_at(until));
        } else if !pod.deleting {
            let why = "the reboot that it waited for is over";
            effects.add(Action::DeletePod { pod: Target::of(pod), why });
        }
    }
    Planned { value: none, effects }
}

#[cfg(test)]
mod tests;

//! Giving nodes back: level-triggered from the nodes themselves, so that nothing hangs on who finished, crashed or was
//! deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot stays taken.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::SignedDuration;

use super::{
    action::{Action, Plan, Target},
    call_off, cordon, names,
    question::Question,
    snapshot::{JobState, NodeView, OpRef, PodView, Role, Snapshot},
    step::later,
};
use crate::api::nodeop::{NodeOp, NodeStatus, Phase, RebootStatus};

/// How long after a proved reboot the waiter may take to see it too and to clean up after itself, before it is deleted.
const WAITER_LINGER: SignedDuration = SignedDuration::from_secs(30);

/// What deletes exactly this pod.
pub fn pod_target(pod: &PodView) -> Target {
    Target { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

/// Whether a pod of ours cannot change its node any more. On a node that is away nobody confirms the end of a pod, but a
/// deleted waiter reads its own pod live before it acts, and gives up.
pub fn cannot_act(pod: &PodView, node_ready: bool) -> bool {
    pod.phase.is_final() || (pod.deleting && !node_ready)
}

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn sweep(s: &Snapshot, plan: &mut Plan) {
    leftovers(s, plan);
    for node in s.nodes.values() {
        let mut owners: Vec<&OpRef> = node.claimed_by.iter().chain(&node.cordoned_by).collect();
        owners.dedup();
        for owner in owners {
            // What a finished NodeOp left cordoned belongs, while it has the node in hand, to the one that claimed it.
            if node.claimed_by.as_ref().is_some_and(|claim| claim != owner) {
                continue;
            }
            match s.op(owner) {
                Some(op) => release(s, node, owner, op, plan),
                None if s.is_gone(&Question::Op(owner.clone())) => orphan(s, node, owner, plan),
                None => drop(plan.questions.insert(Question::Op(owner.clone()))),
            }
        }
    }
}

/// Jobs and waiters of final entries whose node is no longer claimed: made by a leader whose view was old, or adopted
/// from the Go operator. A Job of another name is that operator's, and is left to end: it may be an upgrade under way.
fn leftovers(s: &Snapshot, plan: &mut Plan) {
    let owners: BTreeMap<&str, &Arc<NodeOp>> = s.ops.values().filter_map(|op| Some((op.metadata.uid.as_deref()?, op))).collect();
    let over = |uid: &str, node: &str| {
        let op = owners.get(uid)?;
        let entry = op.status.as_ref()?.node_statuses.get(node)?;
        let me = OpRef::of(op);
        let claimed = s.nodes.get(node).is_some_and(|node| node.claimed_by.as_ref() == Some(&me));
        (entry.phase.is_final() && !claimed).then_some((me, entry))
    };
    for job in s.jobs.values().filter(|job| job.state == JobState::Active && !job.deleting) {
        if let Some((me, _)) = over(&job.owner_uid, &job.node)
            && job.name == names::object((&me.name, &me.uid), &job.node, "", 0)
        {
            plan.actions.push(Action::DeleteJob { job: call_off::job_target(job), why: "its node is finished" });
        }
    }
    for pod in s.pods.values().filter(|pod| pod.role == Role::Waiter && !pod.phase.is_final() && !pod.deleting) {
        let Some((_, entry)) = over(&pod.owner_uid, &pod.node) else {
            continue;
        };
        match lingers_until(Some(entry)) {
            Some(until) if s.now < until => plan.wake(until),
            _ => plan.actions.push(Action::DeletePod { pod: pod_target(pod), why: "its node is finished" }),
        }
    }
}

/// Whether the node must stay unschedulable for a human to look at it.
fn keeps_cordon(op: &NodeOp, entry: &NodeStatus) -> bool {
    let deleting = op.metadata.deletion_timestamp.is_some();
    let started = entry.job_name.is_some();
    entry.phase == Phase::Failed && started && !deleting && !op.spec.uncordon_on_failure.unwrap_or(false)
}

fn release(s: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp, plan: &mut Plan) {
    let Some(status) = &op.status else { return };
    let entry = status.node_statuses.get(&node.name);
    if entry.is_some_and(|entry| entry.phase == Phase::Running) {
        return;
    }
    let is_final = entry.is_some_and(|entry| entry.phase.is_final());
    let live = Question::Op(owner.clone());
    if !is_final && s.answer(&live).is_none() {
        // What is final stays so, but a node that is not started in an old view may be in hand by now.
        plan.questions.insert(live);
        return;
    }
    let uncordon = entry.is_none_or(|entry| !keeps_cordon(op, entry));
    let Some(change) = cordon::give_back(node, owner, uncordon) else {
        return;
    };
    if node.claimed_by.as_ref() == Some(owner) && !quiet(s, node, owner, entry, plan) {
        return;
    }
    plan.actions.push(Action::Node { name: node.name.clone(), resource_version: node.resource_version.clone(), change });
}

/// The NodeOp is gone, and the garbage collector is at its Jobs and pods: wait for them, then undo what it did.
fn orphan(s: &Snapshot, node: &NodeView, owner: &OpRef, plan: &mut Plan) {
    if quiet(s, node, owner, None, plan)
        && let Some(change) = cordon::give_back(node, owner, true)
    {
        plan.actions.push(Action::Node { name: node.name.clone(), resource_version: node.resource_version.clone(), change });
    }
}

/// Whether nothing of the NodeOp can act on the node any more; ends what still could.
fn quiet(s: &Snapshot, node: &NodeView, owner: &OpRef, entry: Option<&NodeStatus>, plan: &mut Plan) -> bool {
    let mut quiet = true;
    for found in s.jobs.values().filter(|job| job.owner_uid == owner.uid && job.node == node.name) {
        let over = matches!(found.state, JobState::Complete | JobState::Failed(_));
        if !over && !found.deleting {
            plan.actions.push(Action::DeleteJob { job: call_off::job_target(found), why: "its node is being released" });
        }
        quiet &= over || (found.deleting && !node.ready);
    }
    // Whose Job it is does not matter, and the Job may be gone while its pod still ends: under this claim it is ours.
    let mut pods = s.pods.values().filter(|pod| pod.role == Role::Job && pod.node == node.name);
    quiet &= pods.all(|pod| cannot_act(pod, node.ready));
    let own = s.pods.values().filter(|pod| pod.owner_uid == owner.uid && pod.node == node.name && pod.role != Role::Job);
    for pod in own {
        let done = cannot_act(pod, node.ready);
        quiet &= done;
        if done || pod.deleting {
            continue;
        }
        match lingers_until(entry) {
            Some(until) if s.now < until => plan.wake(until),
            _ => plan.actions.push(Action::DeletePod { pod: pod_target(pod), why: "its node is being released" }),
        }
    }
    quiet
}

/// After a proved reboot the waiter may end by itself.
fn lingers_until(entry: Option<&NodeStatus>) -> Option<k8s_openapi::jiff::Timestamp> {
    let entry = entry.filter(|entry| entry.reboot_status == Some(RebootStatus::Completed))?;
    entry.last_updated.as_ref().map(|time| later(time.0, WAITER_LINGER))
}

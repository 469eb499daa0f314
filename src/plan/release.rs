//! Giving nodes back: level-triggered from the nodes themselves, so that nothing hangs on who finished, crashed or was
//! deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot stays taken. After
//! a proved reboot the waiter is due nothing, whatever it does: its sentinel names a boot that is over. So nobody waits
//! for it; it gets some time to see that itself and to clean up.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::nodeop::{NodeOp, NodeStatus, Phase, RebootStatus},
    plan::{
        model::{
            action::{Action, Plan, Target},
            id::OpRef,
            object_name,
            question::Question,
            snapshot::{JobState, NodeView, Owner, PodView, Role, Snapshot},
            time::later,
        },
        node::{cancel, cordon, legacy, turn::Op},
    },
};

/// How long after a proved reboot the waiter may take to see it too and to clean up after itself, before it is deleted.
const WAITER_LINGER: SignedDuration = SignedDuration::from_secs(30);

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn sweep(s: &Snapshot, plan: &mut Plan) {
    leftovers(s, plan);
    s.nodes.values().for_each(|view| node(s, view, plan));
}

/// Releases one node from whoever no longer needs it.
pub fn node(s: &Snapshot, node: &NodeView, plan: &mut Plan) {
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

/// Why a node that the NodeOp is done with is not given back yet. Nothing for a node that it has not claimed.
pub fn why_not_released(s: &Snapshot, view: &NodeView, op: &Op) -> Option<String> {
    let status = op.object.status.as_ref().filter(|_| view.claimed_by.as_ref() == Some(&op.me))?;
    let entry = status.node_statuses.get(&view.name);
    let over = |state: &JobState| matches!(state, JobState::Complete | JobState::Failed(_));
    if let Some(job) = s.jobs_of(&op.me).find(|job| job.node == view.name && !over(&job.state) && !(job.deleting && !view.ready)) {
        return Some(format!("waiting for Job {}/{} to end", job.namespace, job.name));
    }
    let acts = |pod: &&PodView| {
        let ours = operates(s, pod, &op.me) || (pod.is_of(&op.me) && !is_proved(entry));
        pod.node == view.name && ours && !pod.cannot_act(view.ready)
    };
    if let Some(pod) = s.pods.values().map(AsRef::as_ref).find(acts) {
        return Some(format!("waiting for pod {}/{} to end", pod.namespace, pod.name));
    }
    let evicts = s.evictions.values().any(|eviction| eviction.under_way && eviction.node == view.name);
    Some(if evicts { "an eviction is under way".into() } else { "the node is being given back".into() })
}

/// Jobs and waiters of final entries whose node is no longer claimed: made by a leader whose view was old, or adopted
/// from the Go operator. A Job of another name is that operator's, and is left to end: it may be an upgrade under way.
fn leftovers(s: &Snapshot, plan: &mut Plan) {
    let over = |namespace: &str, owner: &Owner, node: &str| {
        let op = s.nodeop_of(namespace, owner)?;
        let status = op.status.as_ref()?;
        let entry = status.node_statuses.get(node).filter(|entry| !legacy::is_unsettled(status, entry))?;
        let me = OpRef::of(op);
        let claimed = s.nodes.get(node).is_some_and(|node| node.claimed_by.as_ref() == Some(&me));
        (entry.phase.is_final() && !claimed).then_some((me, entry))
    };
    for job in s.jobs.values().filter(|job| job.state == JobState::Active && !job.deleting) {
        if let Some((me, _)) = over(&job.namespace, &job.owner, &job.node)
            && job.name == object_name::object((&me.name, &me.uid), &job.node, "", 0)
        {
            plan.actions.push(cancel::delete(&me, job, "its node is finished"));
        }
    }
    for pod in s.pods.values().filter(|pod| pod.role == Role::Waiter && !pod.phase.is_final() && !pod.deleting) {
        if let Some((_, entry)) = over(&pod.namespace, &pod.owner, &pod.node)
            && !is_proved(Some(entry))
        {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its node is finished" });
        }
    }
}

/// Whether the node must stay unschedulable for a human to look at it.
pub fn keeps_cordon(op: &NodeOp, entry: &NodeStatus) -> bool {
    let deleting = op.metadata.deletion_timestamp.is_some();
    let started = entry.job_name.is_some();
    entry.phase == Phase::Failed && started && !deleting && !op.spec.uncordon_on_failure.unwrap_or(false)
}

fn release(s: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp, plan: &mut Plan) {
    let Some(status) = &op.status else { return };
    let entry = status.node_statuses.get(&node.name);
    if entry.is_some_and(|entry| entry.phase == Phase::Running || legacy::is_unsettled(status, entry)) {
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
    for found in s.jobs_of(owner).filter(|job| job.node == node.name) {
        let over = matches!(found.state, JobState::Complete | JobState::Failed(_));
        if !over && !found.deleting {
            plan.actions.push(cancel::delete(owner, found, "its node is being released"));
        }
        quiet &= over || (found.deleting && !node.ready);
    }
    let mut pods = s.pods.values().filter(|pod| pod.node == node.name && operates(s, pod, owner));
    quiet &= pods.all(|pod| pod.cannot_act(node.ready));
    // The server may still be at an eviction though the drain was called off: the pod would go from a node that nobody drains.
    quiet &= !s.evictions.values().any(|eviction| eviction.under_way && eviction.node == node.name);
    let own = s.pods.values().filter(|pod| pod.is_of(owner) && pod.node == node.name);
    for pod in own {
        let done = pod.cannot_act(node.ready) || is_proved(entry);
        quiet &= done;
        if !done && !pod.deleting {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its node is being released" });
        }
    }
    quiet
}

/// Whether the pod carries out an operation, of whichever NodeOp: none but that of this claim can be on the node. Where nothing tells of
/// its Job any more, because the NodeOp is gone with its status, the Job's name does, which is made from the NodeOp's UID.
fn operates(s: &Snapshot, pod: &PodView, owner: &OpRef) -> bool {
    if s.operation_of(pod).is_some() {
        return true;
    }
    match s.job_of(pod) {
        Some(job) => job.is_of(owner),
        None => pod.is_of_job(&owner.namespace, &object_name::object((&owner.name, &owner.uid), &pod.node, "", 0), &pod.owner.uid),
    }
}

/// Whether the node was seen in another boot than the one that its waiter's sentinel names.
fn is_proved(entry: Option<&NodeStatus>) -> bool {
    entry.is_some_and(|entry| entry.phase.is_final() && entry.reboot_status == Some(RebootStatus::Completed))
}

/// Waiters of proved reboots: they end by themselves within seconds, or are ended. Whether none is left.
pub fn linger(s: &Snapshot, op: &Op, plan: &mut Plan) -> bool {
    let entries = op.object.status.as_ref().map(|status| &status.node_statuses);
    let mut none = true;
    for pod in s.pods_of(&op.me, Role::Waiter) {
        let entry = entries.and_then(|entries| entries.get(&pod.node)).filter(|entry| is_proved(Some(entry)));
        let ready = s.nodes.get(&pod.node).is_some_and(|node| node.ready);
        let (Some(entry), false) = (entry, pod.cannot_act(ready)) else {
            continue;
        };
        none = false;
        let until = entry.last_updated.as_ref().map_or(s.now, |time| later(time.0, WAITER_LINGER));
        if s.now < until {
            plan.wake(until);
        } else if !pod.deleting {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "the reboot that it waited for is over" });
        }
    }
    none
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{PodPhase, PodView},
        plan,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// n1 is finished, at second 0, with this reboot status, and still claimed and cordoned; its waiter runs. n2 waits.
    fn world(reboot: &str, phase: &str, now: i64) -> Snapshot {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [crate::api::names::FINALIZER]},
            "spec": {"command": ["true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1},
            "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": {
                "n1": {"phase": phase, "rebootStatus": reboot, "jobName": "j", "lastUpdated": Time(at(0))},
                "n2": {"phase": "Pending"},
            }},
        }))
        .unwrap();
        let me = OpRef::of(&op);
        let node = |name: &str, held: Option<OpRef>| NodeView {
            name: name.into(),
            unschedulable: held.is_some(),
            cordoned_by: held.clone(),
            claimed_by: held,
            ready: true,
            boot_id: "new".into(),
            ..NodeView::default()
        };
        let waiter = PodView {
            created: at(-60),
            reboot_state: Some("rebooting".into()),
            ..fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), "n1")
        };
        let nodes = [node("n1", Some(me.clone())), node("n2", None)];
        Snapshot {
            now: at(now),
            leading_since: at(-100),
            nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
            ops: [(me.key(), Arc::new(op))].into(),
            pods: [(("ns".into(), "w".into()), Arc::new(waiter))].into(),
            ..Snapshot::default()
        }
    }

    fn releases(plan: &Plan) -> bool {
        plan.actions.iter().any(|action| matches!(action, Action::Node { name, .. } if name == "n1"))
    }

    fn deletes(plan: &Plan) -> bool {
        plan.actions.iter().any(|action| matches!(action, Action::DeletePod { .. }))
    }

    #[test]
    fn a_proved_reboot_releases_the_node_though_its_waiter_still_looks_around() {
        let soon = plan(&world("completed", "Completed", 1));
        assert!(releases(&soon) && !deletes(&soon), "{soon:?}");
        assert_eq!(soon.wake_at, Some(at(30)));
        assert!(deletes(&plan(&world("completed", "Completed", 30))), "it had its time");
    }

    #[test]
    fn a_cancelled_reboot_releases_the_node_only_after_its_waiter() {
        let plan = plan(&world("cancelled", "Failed", 1));
        assert!(!releases(&plan) && deletes(&plan), "{plan:?}");
    }

    #[test]
    fn what_a_waiter_was_granted_is_taken_back_after_it_has_ended() {
        let mut world = world("completed", "Completed", 1);
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (**world.ops.get(&key).unwrap()).clone();
        op.status.as_mut().unwrap().phase = Some(Phase::Completed);
        world.ops.insert(key.clone(), Arc::new(op.clone()));
        let node = Arc::new(NodeView { claimed_by: None, cordoned_by: None, ..(*world.nodes["n1"]).clone() });
        world.nodes.insert("n1".into(), node);
        let concludes = |world: &Snapshot| plan(world).actions.iter().any(|action| matches!(action, Action::Conclude { .. }));
        assert!(!concludes(&world));
        op.metadata.deletion_timestamp = Some(Time(at(1)));
        let mut deleted = world.clone();
        deleted.ops.insert(key, Arc::new(op));
        assert!(concludes(&deleted), "its garbage collector ends the waiter");
        world.pods.clear();
        assert!(concludes(&world));
    }

    #[test]
    fn a_node_is_in_hand_as_long_as_pods_of_its_deleted_job_end() {
        let mut world = world("pending", "Running", 1);
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (**world.ops.get(&key).unwrap()).clone();
        op.metadata.deletion_timestamp = Some(Time(at(0)));
        op.spec.reboot_on_success = None;
        let entry = op.status.as_mut().and_then(|status| status.node_statuses.get_mut("n1")).unwrap();
        (entry.step, entry.job_uid) = (Some(crate::api::nodeop::Step::Job), Some("ju".into()));
        world.ops.insert(key, Arc::new(op));
        let gone = Question::Job(("ns".into(), "j".into()));
        world.answers.insert(gone, crate::plan::model::question::Answer::Gone);
        let mut pod = (**world.pods.values().next().unwrap()).clone();
        (pod.role, pod.owner, pod.deleting) = (Role::Job, Owner::job("j", "ju"), true);
        world.pods = [(("ns".to_owned(), "p".to_owned()), Arc::new(pod))].into();
        let fails = |world: &Snapshot| {
            plan(world)
                .actions
                .iter()
                .any(|action| matches!(action, Action::Status { status, .. } if status.node_statuses["n1"].phase == Phase::Failed))
        };
        assert!(!fails(&world), "its command may still be at work");
        world.pods.clear();
        // That its waiter is gone is asked, too.
        let asked = plan(&world).questions;
        world.answers.extend(asked.into_iter().map(|question| (question, crate::plan::model::question::Answer::Gone)));
        assert!(fails(&world));
    }

    #[test]
    fn a_drain_goes_on_being_watched_while_its_waiter_is_made_again() {
        let mut world = world("pending", "Running", 1);
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (**world.ops.get(&key).unwrap()).clone();
        op.spec.drain_options = Some(serde_json::from_value(json!({"enabled": true})).unwrap());
        let entry = op.status.as_mut().and_then(|status| status.node_statuses.get_mut("n1")).unwrap();
        (entry.step, entry.job_name) = (Some(crate::api::nodeop::Step::Drain), None);
        let name = Op::of(&Arc::new(op.clone())).object_name("n1", "reboot", 0);
        world.ops.insert(key, Arc::new(op));
        let mut pod = (**world.pods.values().next().unwrap()).clone();
        (pod.name, pod.phase) = (name.clone(), PodPhase::Failed);
        world.pods = [(("ns".to_owned(), name), Arc::new(pod))].into();
        assert!(plan(&world).drains.contains("n1"));
    }
}

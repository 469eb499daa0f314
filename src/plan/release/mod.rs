//! Giving nodes back: level-triggered from the nodes themselves, so that nothing hangs on who finished,
//! crashed or was deleted in which order.
//!
//! A claim goes once the Job's pods and the waiter are gone or cannot act any more; before that the slot
//! stays taken. After a proved reboot the waiter is due nothing, whatever it does: its sentinel names a boot
//! that is over. So nobody waits for it; it gets some time to see that itself and to clean up.

mod failed;
mod remnant;

use k8s_openapi::jiff::SignedDuration;

use self::remnant::is_proved;
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    plan::{
        model::{
            action::{Action, NodeChange, Plan, Target},
            effects::Effects,
            id::OpRef,
            intent::Intent,
            object_name,
            question::Question,
            snapshot::{JobState, NodeView, Owner, Role, Snapshot},
            time::later,
        },
        node::{
            cancel,
            context::Op,
            cordon::{self, Ending},
            legacy,
        },
    },
};

/// How long after a proved reboot the waiter may take to see it too and to clean up after itself, before it
/// is deleted.
const WAITER_RETENTION: SignedDuration = SignedDuration::from_secs(30);

/// Releases every node that a NodeOp no longer needs, and ends what is left of finished operations.
pub fn sweep(snapshot: &Snapshot, plan: &mut Plan) {
    delete_orphaned_work(snapshot, plan);
    snapshot.nodes.values().for_each(|view| node(snapshot, view).add_to(plan));
}

/// Releases one node from whoever no longer needs it.
pub fn node(snapshot: &Snapshot, node: &NodeView) -> Effects {
    let mut effects = Effects::default();
    let mut owners: Vec<&OpRef> = node.claimed_by.iter().chain(&node.cordoned_by).collect();
    owners.dedup();
    for owner in owners {
        // What a finished NodeOp left cordoned belongs, while it has the node in hand, to the one that
        // claimed it.
        if node.claimed_by.as_ref().is_some_and(|claim| claim != owner) {
            continue;
        }
        match snapshot.op(owner) {
            Some(op) => release(snapshot, node, owner, op, &mut effects),
            None if snapshot.is_gone(&Question::Op(owner.clone())) => {
                orphan(snapshot, node, owner, &mut effects)
            }
            None => effects.questions.push(Question::Op(owner.clone())),
        }
    }
    if let Some(kept) = node.kept_cordon.as_ref().filter(|_| node.claimed_by.is_none()) {
        failed::sweep(snapshot, node, kept, &mut effects);
    }
    effects
}

/// Why a node that the NodeOp is done with is not given back yet. Nothing for a node that it has not claimed,
/// or still works on.
pub fn why_not_released(snapshot: &Snapshot, view: &NodeView, op: &Op) -> Option<String> {
    let status = op.object.status.as_ref().filter(|_| view.claimed_by.as_ref() == Some(&op.id))?;
    let entry = status.node_statuses.get(&view.name);
    if is_in_hand(status, entry) {
        return None;
    }
    if let Some(remnant) = remnant::find(snapshot, view, &op.id, entry).first() {
        return Some(remnant.to_string());
    }
    let trouble =
        node(snapshot, view).trouble(snapshot).map(|trouble| format!("; {trouble}")).unwrap_or_default();
    Some(format!("the node is being given back{trouble}"))
}

/// Jobs and waiters of final entries whose node is no longer claimed: made by a leader whose view was old, or
/// adopted from the Go operator. A Job of another name is that operator's, and is left to end: it may be an
/// upgrade under way.
fn delete_orphaned_work(snapshot: &Snapshot, plan: &mut Plan) {
    let over = |namespace: &str, owner: &Owner, node: &str| {
        let op = snapshot.nodeop_of(namespace, owner)?;
        let status = op.status.as_ref()?;
        let entry = status.node_statuses.get(node).filter(|entry| !legacy::is_unsettled(status, entry))?;
        let me = OpRef::of(op);
        let claimed = snapshot.nodes.get(node).is_some_and(|node| node.claimed_by.as_ref() == Some(&me));
        (entry.phase.is_final() && !claimed).then_some((me, entry))
    };
    for job in snapshot.jobs.values().filter(|job| job.state == JobState::Active && !job.deleting) {
        if let Some((me, _)) = over(&job.namespace, &job.owner, &job.node)
            && job.name == object_name::object((&me.name, &me.uid), &job.node, "", 0)
        {
            plan.actions.push(cancel::delete(&me, job, "its node is finished"));
        }
    }
    for pod in snapshot
        .pods
        .values()
        .filter(|pod| pod.role == Role::Waiter && !pod.phase.is_final() && !pod.deleting)
    {
        if let Some((_, entry)) = over(&pod.namespace, &pod.owner, &pod.node)
            && !is_proved(Some(entry))
        {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its node is finished" });
        }
    }
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

fn release(snapshot: &Snapshot, node: &NodeView, owner: &OpRef, op: &NodeOp, effects: &mut Effects) {
    let Some(status) = &op.status else { return };
    let entry = status.node_statuses.get(&node.name);
    if is_in_hand(status, entry) {
        return;
    }
    let is_final = entry.is_some_and(|entry| entry.phase.is_final());
    let live = Question::Op(owner.clone());
    if !is_final && snapshot.answer(&live).is_none() {
        // What is final stays so, but a node that is not started in an old view may be in hand by now.
        effects.questions.push(live);
        return;
    }
    let Some(change) = cordon::give_back(node, owner, ending(op, entry)) else {
        return;
    };
    if node.claimed_by.as_ref() != Some(owner) || is_released(snapshot, node, owner, entry, effects) {
        patch(node, change, effects);
    } else if change.kept_cordon.is_some() {
        // At once, whatever still has to end: the NodeOp may be deleted at any time, and with it goes what
        // tells that the node failed.
        patch(node, NodeChange { kept_cordon: change.kept_cordon, ..NodeChange::default() }, effects);
    }
}

/// The NodeOp is gone, and the garbage collector is at its Jobs and pods: wait for them, then undo what it
/// did.
fn orphan(snapshot: &Snapshot, node: &NodeView, owner: &OpRef, effects: &mut Effects) {
    if is_released(snapshot, node, owner, None, effects)
        && let Some(change) = cordon::give_back(node, owner, Ending::Undo)
    {
        patch(node, change, effects);
    }
}

fn patch(node: &NodeView, change: NodeChange, effects: &mut Effects) {
    effects.actions.push(Action::PatchNode {
        name: node.name.clone(),
        resource_version: node.resource_version.clone(),
        change,
    });
}

/// Whether nothing of the NodeOp can act on the node any more; ends what still could.
fn is_released(
    snapshot: &Snapshot,
    node: &NodeView,
    owner: &OpRef,
    entry: Option<&NodeStatus>,
    effects: &mut Effects,
) -> bool {
    let remnants = remnant::find(snapshot, node, owner, entry);
    effects.actions.extend(remnants.iter().filter_map(|remnant| remnant.end(owner)));
    remnants.is_empty()
}

/// Ends the waiters of proved reboots that have not ended by themselves in time. Whether none is left.
pub fn expire_waiters(snapshot: &Snapshot, op: &Op, plan: &mut Plan) -> bool {
    let entries = op.object.status.as_ref().map(|status| &status.node_statuses);
    let mut none = true;
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
            plan.wake(until);
        } else if !pod.deleting {
            plan.actions.push(Action::DeletePod {
                pod: Target::of(pod),
                why: "the reboot that it waited for is over",
            });
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
    use crate::plan::model::identity::Identified;
    use crate::plan::{
        fixtures,
        model::snapshot::{Eviction, PersistentFailure, PodPhase, PodView},
        plan,
    };

    pub(super) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// n1 is finished, at second 0, with this reboot status, and still claimed and cordoned; its waiter runs.
    /// n2 waits.
    pub(super) fn world(reboot: &str, phase: &str, now: i64) -> Snapshot {
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
        plan.actions.iter().any(|action| matches!(action, Action::PatchNode { name, change, .. } if name == "n1" && change.claimed_by.is_some()))
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
    fn a_node_that_is_not_given_back_yet_has_a_reason() {
        let why = |snapshot: &Snapshot| {
            let op = Op::of(snapshot.ops.values().next().unwrap());
            why_not_released(snapshot, &snapshot.nodes["n1"], &op)
        };
        assert_eq!(why(&world("cancelled", "Failed", 1)).as_deref(), Some("waiting for pod ns/w to end"));
        assert_eq!(why(&world("completed", "Completed", 1)).as_deref(), Some("the node is being given back"));
        assert_eq!(why(&world("pending", "Running", 1)), None, "it is still worked on");
        let mut snapshot = world("not-requested", "Failed", 1);
        let job_pod = PodView {
            role: Role::Job,
            owner: Owner::job("j", "ju"),
            deleting: true,
            ..(*snapshot.pods[&("ns".into(), "w".into())]).clone()
        };
        snapshot.pods = [(
            ("ns".to_owned(), "j-abcde".to_owned()),
            Arc::new(PodView { name: "j-abcde".into(), ..job_pod }),
        )]
        .into();
        assert_eq!(why(&snapshot).as_deref(), Some("waiting for pod ns/j-abcde to end"), "a pod of its Job");
        snapshot.pods.clear();
        let eviction = Eviction { node: "n1".into(), at: at(0), under_way: true, refusal: None };
        snapshot.evictions = [("e".to_owned(), eviction)].into();
        assert_eq!(why(&snapshot).as_deref(), Some("an eviction is under way"));
        snapshot.evictions.clear();
        let failure = PersistentFailure { since: at(0), message: "no etcd".into() };
        snapshot.failures = [(
            Action::PatchNode {
                name: "n1".into(),
                resource_version: String::new(),
                change: NodeChange::default(),
            }
            .id(),
            failure,
        )]
        .into();
        let keeps = "the node is being given back; patching node n1 keeps failing since 1970-01-12T13:46:40Z, it is tried again: no etcd";
        assert_eq!(why(&snapshot).as_deref(), Some(keeps));
        let node = NodeView { claimed_by: None, ..(*snapshot.nodes["n1"]).clone() };
        snapshot.nodes.insert("n1".into(), Arc::new(node));
        assert_eq!(why(&snapshot), None, "it is not claimed");
    }

    pub(super) fn changes(snapshot: &Snapshot) -> Option<NodeChange> {
        let mut changes = plan(snapshot).actions.into_iter().filter_map(|action| match action {
            Action::PatchNode { name, change, .. } if name == "n1" => Some(change),
            _ => None,
        });
        let change = changes.next();
        assert!(changes.next().is_none(), "one patch of a node in a plan");
        change
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
        let concludes = |world: &Snapshot| {
            plan(world).actions.iter().any(|action| matches!(action, Action::Finalize { .. }))
        };
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
        world.answers.insert(gone, crate::plan::model::question::Answer::NotFound);
        let mut pod = (**world.pods.values().next().unwrap()).clone();
        (pod.role, pod.owner, pod.deleting) = (Role::Job, Owner::job("j", "ju"), true);
        world.pods = [(("ns".to_owned(), "p".to_owned()), Arc::new(pod))].into();
        let fails = |world: &Snapshot| {
            plan(world)
                .actions
                .iter()
                .any(|action| matches!(action, Action::PatchStatus { status, .. } if status.node_statuses["n1"].phase == Phase::Failed))
        };
        assert!(!fails(&world), "its command may still be at work");
        world.pods.clear();
        // That its waiter is gone is asked, too.
        let asked = plan(&world).questions;
        world.answers.extend(
            asked.into_iter().map(|question| (question, crate::plan::model::question::Answer::NotFound)),
        );
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

//! Tests of giving nodes back.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    api::names,
    plan::{
        fixtures::{self, at},
        model::{
            effects::Plan,
            hints::Hints,
            identity::Identified,
            object_name,
            question::Answer,
            snapshot::{
                ContainerState, ContainerView, Eviction, JobState, JobView, Owner, PersistentFailure,
                PodPhase, PodView, Role,
            },
        },
        node::context::Op,
        plan,
    },
};

/// n1 is finished, at second 0, with this reboot status, and still claimed and cordoned; its waiter runs.
/// n2 waits.
pub(super) fn world(reboot: &str, phase: &str, now: i64) -> Snapshot {
    let op: NodeOp = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [names::FINALIZER]},
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
    let why =
        |snapshot: &Snapshot| find_releases(snapshot).of("n1")?.unreleased.as_ref().map(ToString::to_string);
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
    snapshot.pods =
        [(("ns".to_owned(), "j-abcde".to_owned()), Arc::new(PodView { name: "j-abcde".into(), ..job_pod }))]
            .into();
    assert_eq!(why(&snapshot).as_deref(), Some("waiting for pod ns/j-abcde to end"), "a pod of its Job");
    snapshot.pods.clear();
    let eviction = Eviction { at: at(0), under_way: true, refusal: None };
    snapshot.evictions = [("n1".to_owned(), Arc::new([("e".to_owned(), eviction)].into()))].into();
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
    let keeps =
        "the node is being given back; patching node n1 keeps failing since 1970-01-12T13:46:40Z: no etcd";
    assert_eq!(why(&snapshot).as_deref(), Some(keeps));
    let node = NodeView { claimed_by: None, ..(*snapshot.nodes["n1"]).clone() };
    snapshot.nodes.insert("n1".into(), Arc::new(node));
    assert_eq!(why(&snapshot), None, "it is not claimed");
}

/// Whoever may create Jobs can name a NodeOp as their owner that is over, and nothing would ever end that
/// pod.
#[test]
fn a_job_of_which_its_nodeop_knows_nothing_keeps_no_node() {
    let released = |name: &str| {
        let mut world = world("completed", "Completed", 30);
        let done = json!({"n1": {"phase": "Completed"}});
        let mut done = fixtures::nodeop("done", &json!({}), &done);
        done.status.as_mut().unwrap().phase = Some(Phase::Completed);
        world.ops.insert(("ns".into(), "done".into()), Arc::new(done));
        let owner = Owner::nodeop("done", "done");
        let job = JobView { owner, ..fixtures::job(name, JobState::Active) };
        world.jobs = [(("ns".to_owned(), name.to_owned()), Arc::new(job))].into_iter().collect();
        let pod = fixtures::pod(Role::Job, "p", Owner::job(name, "ju"), "n1");
        world.pods = [(("ns".to_owned(), "p".to_owned()), Arc::new(pod))].into();
        releases(&plan(&world))
    };
    assert!(released("theirs"), "it is a stranger's");
    let ours = object_name::object(("done", "done"), "n1", "", 0);
    assert!(!released(&ours), "a Job of that name is ended, and its pod is awaited");
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
    let concludes =
        |world: &Snapshot| plan(world).actions.iter().any(|action| matches!(action, Action::Finalize { .. }));
    assert!(!concludes(&world));
    op.metadata.deletion_timestamp = Some(Time(at(1)));
    let mut deleted = world.clone();
    deleted.ops.insert(key, Arc::new(op));
    assert!(concludes(&deleted), "its garbage collector ends the waiter");
    world.pods.clear();
    assert!(concludes(&world));
}

#[test]
fn a_node_is_not_given_back_as_long_as_pods_of_its_deleted_job_end() {
    let mut world = world("pending", "Running", 1);
    let key = ("ns".to_owned(), "op".to_owned());
    let mut op = (**world.ops.get(&key).unwrap()).clone();
    op.metadata.deletion_timestamp = Some(Time(at(0)));
    op.spec.reboot_on_success = None;
    op.status.as_mut().unwrap().node_statuses.update("n1", |entry| {
        (entry.step, entry.job_uid) = (Some(crate::api::nodeop::Step::Job), Some("ju".into()));
    });
    world.ops.insert(key, Arc::new(op));
    let gone = Question::Job(("ns".into(), "j".into()));
    world.answers.insert(gone, Answer::NotFound);
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
    world.answers.extend(asked.into_iter().map(|question| (question, Answer::NotFound)));
    assert!(fails(&world));
}

#[test]
fn a_drain_goes_on_being_watched_while_its_waiter_is_made_again() {
    let mut world = world("pending", "Running", 1);
    let key = ("ns".to_owned(), "op".to_owned());
    let mut op = (**world.ops.get(&key).unwrap()).clone();
    op.spec.drain_options = Some(serde_json::from_value(json!({"enabled": true})).unwrap());
    op.status.as_mut().unwrap().node_statuses.update("n1", |entry| {
        (entry.step, entry.job_name) = (Some(crate::api::nodeop::Step::Drain), None);
        entry.drain_started_at = Some(Time(at(0)));
    });
    let name = Op::of(&Arc::new(op.clone())).object_name("n1", "reboot", 0);
    world.ops.insert(key, Arc::new(op));
    let mut pod = (**world.pods.values().next().unwrap()).clone();
    (pod.name, pod.phase) = (name.clone(), PodPhase::Failed);
    world.pods = [(("ns".to_owned(), name), Arc::new(pod))].into();
    assert!(plan(&world).watched_nodes.contains("n1"));
}

#[test]
fn a_waiter_that_its_node_refused_does_not_outlive_its_operation() {
    let waiter = |phase, containers| {
        let mut snapshot = world("cancelled", "Failed", 100);
        let n1 = NodeView { claimed_by: None, cordoned_by: None, ..(*snapshot.nodes["n1"]).clone() };
        snapshot.nodes.insert("n1".into(), Arc::new(n1));
        let pod = fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), "n1");
        let reason = "OutOfpods: Pod was rejected: Node didn't have enough resource: pods".into();
        let pod = PodView { phase, reason, containers, ..pod };
        snapshot.pods.insert(("ns".into(), "w".into()), Arc::new(pod));
        let gone = |action: &Action| matches!(action, Action::DeletePod { pod, .. } if pod.name == "w");
        plan(&snapshot).actions.iter().any(gone)
    };
    let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: String::new() };
    assert!(waiter(PodPhase::Failed, vec![]), "the kubelet refused it");
    let ran = vec![ContainerView::new("reboot", ended)];
    assert!(!waiter(PodPhase::Succeeded, ran), "its log tells of the reboot");
}

/// The claim was removed by hand, and what the NodeOp asked of autoscalers is there still: it would keep the
/// node from ever being scaled down.
#[test]
fn hints_to_autoscalers_go_with_their_nodeop_whoever_has_removed_its_claim() {
    let [(autoscaler, asks), (karpenter, _)] = names::KEEPS_FROM_SCALE_DOWN;
    let mut snapshot = world("completed", "Completed", 1);
    snapshot.pods.clear();
    let me = OpRef::of(snapshot.ops.values().next().unwrap());
    let before = [(autoscaler.to_owned(), None), (karpenter.to_owned(), Some("false".to_owned()))];
    let n1 = NodeView {
        claimed_by: None,
        cordoned_by: None,
        unschedulable: false,
        hints: Some(Hints { by: me.clone(), before: before.clone().into() }),
        annotations: [(autoscaler.to_owned(), asks.to_owned()), (karpenter.to_owned(), asks.to_owned())]
            .into(),
        ..(*snapshot.nodes["n1"]).clone()
    };
    snapshot.nodes.insert("n1".into(), Arc::new(n1));
    let back = NodeChange {
        annotations: before.into_iter().chain([(names::AUTOSCALER_HINTS.to_owned(), None)]).collect(),
        ..NodeChange::default()
    };
    assert_eq!(changes(&snapshot), Some(back.clone()), "n1 is over");
    let mut gone = Snapshot { ops: [].into(), ..snapshot.clone() };
    assert_eq!((changes(&gone), plan(&gone).questions), (None, [Question::Op(me.clone())].into()));
    let failed = Action::patch_node(&gone.nodes["n1"], NodeChange::default()).id();
    let paused = Snapshot { paused: [failed].into(), ..gone.clone() };
    assert!(
        plan(&paused).questions.is_empty(),
        "its change failed a moment ago, and is not made in this pass"
    );
    gone.answers = [(Question::Op(me.clone()), Answer::NotFound)].into();
    assert_eq!(changes(&gone), Some(back.clone()), "the NodeOp is gone");
    let mut op = (**snapshot.ops.values().next().unwrap()).clone();
    op.metadata.deletion_timestamp = Some(Time(at(0)));
    op.status.as_mut().unwrap().phase = Some(Phase::Completed);
    snapshot.ops = [(me.key(), Arc::new(op))].into();
    let out = plan(&snapshot);
    let lets_go = |action: &Action| matches!(action, Action::Finalize { .. });
    assert!(changes(&snapshot) == Some(back) && !out.actions.iter().any(lets_go), "{:?}", out.actions);
}

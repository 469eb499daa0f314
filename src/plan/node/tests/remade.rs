//! Nodes whose Node object is deleted, and perhaps made again, before their operation has succeeded.

use super::*;
use crate::{
    api::nodeop::{NodeStatus, Step},
    contract::{Sentinel, reboot_state},
    plan::model::{
        action::Action,
        effects::Plan,
        snapshot::{JobView, Owner, PodPhase, Role},
    },
};

/// The Job of an upgrade runs, or is as said, and its waiter stands; begun at 0 s.
fn works(job: JobState) -> World {
    let name = fixtures::job_name();
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name, "jobUid": "ju", "boot": "b1",
        "machineId": "m1", "rebootStatus": "pending", "lastUpdated": Time(at(0))});
    let mut world = World::new(entry).now(1).op(|op| {
        op.spec.upgrade = serde_json::from_value(json!({"upgradeActive": true})).unwrap();
    });
    let is_over = job != JobState::Active;
    let job = JobView { started_at: Some(at(0)), ..fixtures::job(&name, job) };
    world.snapshot.jobs.insert(("ns".into(), name), Arc::new(job));
    world.put(job_pod(if is_over { PodPhase::Succeeded } else { PodPhase::Running }));
    let waiter = waiter(&world, reboot_state::WAITING);
    world.put(waiter);
    world
}

/// The Job's pod, which has begun, or has succeeded in boot b1.
fn job_pod(phase: PodPhase) -> PodView {
    let sentinel = Sentinel {
        job: fixtures::job_name(),
        job_uid: "ju".into(),
        boot: "b1".into(),
        ..Sentinel::default()
    };
    let ended = |message: String| ContainerState::Ended { code: 0, reason: "Completed".into(), message };
    let containers = match phase {
        PodPhase::Succeeded => vec![
            ContainerView::new("nodeop", ended("done".into())),
            ContainerView::new("sentinel-creator", ended(serde_json::to_string(&sentinel).unwrap())),
        ],
        _ => vec![ContainerView::new("nodeop", ContainerState::Running { since: at(0) })],
    };
    PodView {
        phase,
        containers,
        ..fixtures::pod(Role::Job, "jp", Owner::job(&fixtures::job_name(), "ju"), "n1")
    }
}

/// The Node as a kubelet makes it: Ready, and nobody's.
fn made_again(world: &World, uid: &str, machine: Option<&str>) -> NodeView {
    NodeView {
        uid: uid.into(),
        machine_id: machine.map(Into::into),
        claimed_by: None,
        cordoned_by: None,
        unschedulable: false,
        ..(*world.snapshot.nodes["n1"]).clone()
    }
}

/// What pod GC does to the pods of a node that is gone.
fn collect(world: &mut World) {
    world.snapshot.pods.retain(|_, _| false);
}

fn deletes_job(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeleteJob { .. }))
}

fn ends_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeletePod { .. }))
}

/// Somebody deletes the Node and starts the kubelet again, or a cloud's controller did while it was away.
#[test]
fn the_same_machine_goes_on_under_its_new_node_object() {
    let mut world = works(JobState::Active);
    let again = made_again(&world, "again", Some("m1"));
    world.snapshot.nodes.insert("n1".into(), Arc::new(again));
    let out = world.pass(2);
    assert!(!deletes_job(&out) && !ends_waiter(&out), "{:?}", out.actions);
    let entry = world.entry();
    assert_eq!((entry.step, entry.node_uid.as_deref()), (Some(Step::Job), Some("again")), "{entry:?}");
    let out = world.pass(3);
    let holds = |action: &Action| {
        let Action::PatchNode { change, .. } = action else { return false };
        change.claimed_by == Some(Some(world.me.clone())) && change.unschedulable == Some(true)
    };
    assert!(out.actions.iter().any(holds), "it is claimed and cordoned again: {:?}", out.actions);
}

/// The Job is complete, and its waiter may have asked for the reboot before its pod was collected.
#[test]
fn a_success_is_followed_by_its_reboot_whatever_became_of_the_node_object() {
    for (boot, is_collected) in [("b1", false), ("b1", true), ("b2", false), ("b2", true)] {
        let mut world = works(JobState::Complete);
        let again = NodeView { boot_id: boot.into(), ..made_again(&world, "again", Some("m1")) };
        world.snapshot.nodes.clear();
        world.pass(2);
        assert_eq!(world.entry().step, Some(Step::Job), "{:?}", world.entry());
        if is_collected {
            collect(&mut world);
        }
        world.snapshot.nodes.insert("n1".into(), Arc::new(again));
        world.pass(200);
        world.pass(201);
        let entry = world.entry();
        assert_eq!((entry.phase, entry.step), (Phase::Running, Some(Step::Reboot)), "{boot}: {entry:?}");
        assert_eq!(entry.boot.as_deref(), Some("b1").filter(|_| !is_collected), "{boot}: {entry:?}");
        let out = world.pass(202);
        let makes = out.actions.iter().any(|action| matches!(action, Action::CreateWaiter { .. }));
        assert_eq!(makes, is_collected, "{boot}: {:?}", out.actions);
    }
}

#[test]
fn a_machine_whose_node_object_is_gone_is_awaited_for_as_long_as_it_may_take() {
    let reboot = |world: World| world.op(|op| op.spec.reboot_timeout_seconds = Some(1_000));
    let drains = || {
        let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "machineId": "m1", "drainStartedAt": Time(at(0))});
        World::new(entry)
    };
    let deleting = |world: World| world.op(|op| op.metadata.deletion_timestamp = Some(Time(at(1))));
    let given_up = || {
        let mut world = drains();
        let op = Arc::make_mut(world.snapshot.ops.get_mut(&world.me.key()).unwrap());
        let nodes = &mut op.status.as_mut().unwrap().node_statuses;
        nodes.update("n1", |entry| entry.given_up = Some("it is not".into()));
        world
    };
    let unknown = || {
        let mut world = works(JobState::Active);
        let op = Arc::make_mut(world.snapshot.ops.get_mut(&world.me.key()).unwrap());
        op.status.as_mut().unwrap().node_statuses.update("n1", |entry| entry.machine_id = None);
        world
    };
    for (what, mut world, seconds) in [
        ("it drains", drains(), 300),
        ("its Job runs", reboot(works(JobState::Active)), 300),
        ("its Job is complete: it may reboot", reboot(works(JobState::Complete)), 1_000),
        ("the NodeOp is deleted", deleting(drains()), 0),
        ("it is given up", given_up(), 0),
        ("an older version wrote the status", unknown(), 0),
    ] {
        world.snapshot.nodes.clear();
        for second in [2, 1 + seconds] {
            let out = world.pass(second);
            let entry = world.entry();
            assert!(seconds == 0 || entry.phase == Phase::Running, "{what}, {second}: {entry:?}");
            assert!(seconds == 0 || (!deletes_job(&out) && !ends_waiter(&out)), "{what}, {second}: {out:?}");
            let told = out.why(&world.me.key(), "n1").map(ToString::to_string).unwrap_or_default();
            let waits = told.starts_with("the Node object was deleted; its machine may join again until ");
            assert!(seconds == 0 || waits, "{what}, {second}: {told}");
        }
        world.pass(2 + seconds);
        world.snapshot.jobs.clear();
        collect(&mut world);
        world.pass(3 + seconds);
        let entry = world.entry();
        assert_eq!(entry.phase, Phase::Failed, "{what}: {entry:?}");
    }
}

/// Pod GC ends the pods of a node that is gone, and each counts as a try; the agent in one of them may have
/// been done.
#[test]
fn a_job_whose_pods_went_with_the_node_object_is_not_made_again() {
    let mut world = works(JobState::Active);
    let key = ("ns".to_owned(), fixtures::job_name());
    let running = Arc::clone(&world.snapshot.jobs[&key]);
    let suspended = JobView { suspended: true, started_at: None, ..(*running).clone() };
    world.snapshot.jobs.insert(key.clone(), suspended.into());
    world.pass(1);
    let again = made_again(&world, "again", Some("m1"));
    world.snapshot.nodes.clear();
    let failed = JobState::Failed("BackoffLimitExceeded".into());
    world.snapshot.jobs.insert(key, JobView { state: failed, failed: 1, ..(*running).clone() }.into());
    collect(&mut world);
    world.pass(2);
    world.snapshot.nodes.insert("n1".into(), Arc::new(again));
    for second in [3, 4, 10, 11, 12] {
        let out = world.pass(second);
        let makes = |action: &Action| matches!(action, Action::CreateJob { .. });
        assert!(!out.actions.iter().any(makes), "{:?}", out.actions);
    }
    let entry = world.entry();
    assert!(entry.phase == Phase::Failed && entry.job_name.is_some(), "it is not as it was: {entry:?}");
}

/// The id of the machine is recorded as soon as it is known, so that whoever comes next knows it as well.
#[test]
fn a_status_that_an_older_version_wrote_learns_whose_it_is_with_its_next_record() {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
    let world = World::new(entry).node(|node| {
        node.labels.insert(names::CONTROL_PLANE_LABELS[0].into(), String::new());
    });
    let mut world = world.pod(|world| waiter(world, reboot_state::WAITING));
    world.pass(1);
    let entry = world.entry();
    assert_eq!(entry.step, Some(Step::Job), "{entry:?}");
    assert_eq!((entry.machine_id.as_deref(), entry.control_plane), (Some("m1"), Some(true)));
    // Nothing else would tell a new leader of a member whose Node was made again, and has no labels yet.
    let again = made_again(&world, "again", Some("m1"));
    let again = NodeView { labels: <_>::default(), ..again };
    world.snapshot.nodes.insert("n1".into(), Arc::new(again));
    world.snapshot.sightings = <_>::default();
    world.pass(2);
    let entry = world.entry();
    assert_eq!((entry.node_uid.as_deref(), entry.control_plane), (Some("again"), Some(true)), "{entry:?}");
    assert_eq!(quorum::control_planes_under_way(&world.snapshot).len(), 1);
    let name = entry.job_name.unwrap();
    world.snapshot.jobs.insert(("ns".into(), name.clone()), fixtures::job(&name, JobState::Active).into());
    world.pass(3);
    let entry = world.entry();
    assert_eq!((entry.job_uid.as_deref(), entry.control_plane), (Some("ju"), Some(true)), "{entry:?}");
}

/// An upgrade's agent has a quarter of an hour to end, and the next node must not be taken meanwhile.
#[test]
fn a_node_that_is_lost_to_another_machine_has_not_failed_before_the_pods_of_its_job_have_ended() {
    let mut world = works(JobState::Active);
    let other = made_again(&world, "other", Some("m2"));
    world.snapshot.nodes.insert("n1".into(), Arc::new(other));
    assert!(deletes_job(&world.pass(2)));
    world.snapshot.jobs.clear();
    collect(&mut world);
    world.put(PodView { deleting: true, ..job_pod(PodPhase::Running) });
    world.pass(3);
    let entry = world.entry();
    assert_eq!(entry.phase, Phase::Running, "{entry:?}");
    collect(&mut world);
    world.pass(4);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.machine_id.as_deref()), (Phase::Failed, Some("m1")), "{entry:?}");
}

/// In further rounds of its run it is a machine that was not tried.
#[test]
fn a_machine_that_was_lost_before_anything_ran_on_it_is_not_remembered() {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "machineId": "m1", "drainStartedAt": Time(at(0))});
    let mut world = World::new(entry);
    world.snapshot.nodes.clear();
    world.pass(1);
    world.pass(301);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.machine_id), (Phase::Failed, None));
}

/// Somebody restored the Node, or deleted and applied it again, with our marks on it: as one that failed, it
/// holds its slot.
#[test]
fn a_node_that_is_lost_and_comes_back_with_our_marks_holds_its_slot() {
    for (has_marks, is_claimed) in [(true, true), (true, false), (false, false)] {
        let mut world = works(JobState::Active);
        let boot = Some(world.snapshot.nodes["n1"].boot_id.clone());
        world = world.op(|op| {
            op.spec.upgrade = None;
            let nodes = &mut op.status.as_mut().unwrap().node_statuses;
            nodes.update("n1", |entry| entry.machine_id = None);
            let passed = NodeStatus { boot, ..NodeStatus::default() };
            nodes.insert("n2", passed);
        });
        let restored = made_again(&world, "restored", Some("m1"));
        let n2 = NodeView { name: "n2".into(), ..made_again(&world, "n2", Some("m2")) };
        world.snapshot.nodes.insert("n2".into(), Arc::new(n2));
        let me = Some(world.me.clone()).filter(|_| has_marks);
        let restored = NodeView {
            claimed_by: me.clone().filter(|_| is_claimed),
            cordoned_by: me,
            unschedulable: has_marks,
            ..restored
        };
        world.snapshot.nodes.insert("n1".into(), Arc::new(restored));
        world.pass(2);
        world.snapshot.jobs.clear();
        collect(&mut world);
        for second in 3..8 {
            let out = world.pass(second);
            for action in out.actions {
                let Action::PatchNode { name, change, .. } = action else { continue };
                let node = Arc::make_mut(world.snapshot.nodes.get_mut(&name).unwrap());
                node.claimed_by = change.claimed_by.unwrap_or_else(|| node.claimed_by.take());
                if let Some(kept) = change.kept_cordon {
                    (node.cordoned_by, node.kept_cordon) = (None, Some(*kept));
                }
            }
        }
        let status = world.snapshot.ops[&world.me.key()].status.clone().unwrap();
        let (lost, next) = (&status.node_statuses["n1"], &status.node_statuses["n2"]);
        assert_eq!(lost.phase, Phase::Failed, "{lost:?}");
        assert_eq!(lost.holds_slot == Some(true), has_marks, "{is_claimed}: {lost:?}");
        assert_eq!(next.phase == Phase::Running, !has_marks, "{is_claimed}: {next:?}");
    }
}

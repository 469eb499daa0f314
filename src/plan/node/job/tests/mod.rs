//! Tests of the step in which the Job runs.

mod begun;
mod cancelled;
mod content;
mod halted;
mod injected;
mod late;
mod start;
mod unbooted;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::{
    api::{
        names::container,
        nodeop::{NodeStatus, Phase, Step},
    },
    contract::{self, EXIT_LOCKED, Sentinel, reboot_state},
    plan::{
        fixtures,
        model::{
            action::Action,
            effects::Plan,
            id::OpRef,
            object_name,
            snapshot::{
                ContainerState, ContainerView, JobState, JobView, NodeView, Owner, PodPhase, PodView, Role,
            },
        },
        node::fixtures::{World, at},
    },
};

/// A node whose Job is recorded and suspended, and whose reboot waiter is ready.
fn suspended() -> World {
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b1",
        "rebootStatus": "pending", "lastUpdated": Time(at(0))});
    let mut world = World::new(entry);
    let job = JobView { suspended: true, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let waiter = PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) };
    world.put(waiter);
    world
}

#[test]
fn a_job_that_somebody_suspended_is_resumed_and_that_is_said() {
    let resumes = |world: &mut World| {
        let out = world.pass(1);
        assert!(out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. })), "{out:?}");
        world.pass(3);
        world.entry().message.unwrap()
    };
    assert!(resumes(&mut suspended()).contains("Job is running"), "it was made suspended, by us");
    let mut world = suspended();
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { phase: PodPhase::Failed, ..pod });
    let told = resumes(&mut world);
    assert!(told.starts_with("somebody suspended Job op-n1-") && told.contains("resumed"), "{told}");
    // An Event says so each time that it is resumed, and none when it is let go.
    let said = |world: &mut World| {
        let out = world.pass(1);
        let notices = out.actions.into_iter().find_map(|action| match action {
            Action::ResumeJob { notice, .. } => Some(notice),
            _ => None,
        });
        notices.unwrap().map(|notice| notice.reason)
    };
    assert_eq!((said(&mut suspended()), said(&mut world)), (None, Some("JobSuspended")));
}

/// Somebody took our claim off after the Job's UID was recorded, and another operation has the node.
#[test]
fn a_job_is_not_let_go_on_a_node_that_another_operation_has_claimed() {
    let other = OpRef { namespace: "ns".into(), name: "other".into(), uid: "other".into() };
    let mut world = suspended().node(|node| node.claimed_by = Some(other));
    for second in 1..6 {
        let out = world.pass(second);
        assert!(!out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. })), "{out:?}");
        if out.actions.iter().any(|action| matches!(action, Action::DeleteJob { .. })) {
            world.snapshot.jobs.clear();
            world.snapshot.pods.clear();
        }
    }
    let entry = world.entry();
    assert_eq!((entry.phase, entry.job_name), (Phase::Failed, None), "nothing had begun");
    assert!(entry.message.unwrap().contains("ns/other"));
}

/// A Job that may run once, whose only pod is like this; it was seen before it might run.
fn used_up(pod: PodView) -> World {
    let mut world = suspended();
    world.pass(0);
    let why = "BackoffLimitExceeded: Job has reached the specified backoff limit";
    let job = JobView { failed: 1, ..fixtures::job(&fixtures::job_name(), JobState::Failed(why.into())) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    world.put(pod);
    world
}

fn refused() -> PodView {
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    let reason = "OutOfpods: Pod was rejected: Node didn't have enough resource: pods".into();
    PodView { phase: PodPhase::Failed, reason, ..pod }
}

#[test]
fn a_pod_that_the_node_refuses_is_no_try_and_the_job_is_made_again_after_a_pause() {
    let mut world = used_up(refused());
    let key = ("ns".to_owned(), fixtures::job_name());
    world.pass(1);
    let entry = world.entry();
    assert_eq!((entry.job_uid, entry.blocked_since), (None, Some(Time(at(1)))), "{:?}", entry.message);
    assert!(entry.message.unwrap().contains("OutOfpods"));
    let deletes = |action: &Action| matches!(action, Action::DeleteJob { job, .. } if job.uid == "ju");
    assert!(world.pass(2).actions.iter().any(deletes), "only when it is recorded no more");
    world.snapshot.jobs.remove(&key);
    world.snapshot.pods.retain(|_, pod| pod.role != Role::Job);
    let makes = |out: &Plan| out.actions.iter().any(|action| matches!(action, Action::CreateJob { .. }));
    assert!(!makes(&world.pass(3)), "not before a pause");
    assert!(world.entry().message.unwrap().contains("OutOfpods"), "{:?}", world.entry().message);
    assert!(makes(&world.pass(7)));
}

/// A container that the runtime could not start, as containerd tells it.
fn not_started(name: &str, message: &str) -> PodView {
    let state = ContainerState::Ended { code: 128, reason: "StartError".into(), message: message.into() };
    let mut containers = vec![ContainerView::new(name, state)];
    if name == container::INSTALL {
        let reason = "PodInitializing".into();
        let waits = ContainerState::Waiting { reason, message: String::new() };
        containers.push(ContainerView::new(container::NODEOP, waits));
    }
    PodView { containers, reason: String::new(), ..refused() }
}

const CGROUP: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc \
    create failed: unable to start container process: unable to apply cgroup configuration: no such file or directory";
const NO_ANSWER: &str = "failed to start containerd task \"a\": context deadline exceeded";

#[test]
fn a_container_that_the_runtime_could_not_start_is_no_try_where_surely_nothing_has_run() {
    for (name, message, again) in [
        (container::INSTALL, CGROUP, true),
        (container::NODEOP, CGROUP, true),
        // It only brings our binary, so the operation has not begun, whatever it did.
        (container::INSTALL, NO_ANSWER, true),
        (container::NODEOP, NO_ANSWER, false),
    ] {
        let mut world = used_up(not_started(name, message));
        world.pass(1);
        let entry = world.entry();
        let phase = if again { Phase::Running } else { Phase::Failed };
        assert_eq!((entry.phase, entry.job_uid), (phase, None), "{name} {:?}", entry.message);
        assert!(entry.message.unwrap().contains(&message[..31]), "{name}");
    }
}

/// The agent has written its image, and the node will boot it whenever it boots: nobody must take that for a
/// failure of the agent.
#[test]
fn a_success_that_could_not_be_recorded_is_told_where_its_container_was_not_started() {
    let told = |sentinel: ContainerView| {
        let well = ContainerState::Ended { code: 0, reason: "Completed".into(), message: "upgraded".into() };
        let pod = not_started(container::NODEOP, NO_ANSWER);
        let mut world = used_up(PodView {
            containers: vec![ContainerView::new(container::NODEOP, well), sentinel],
            ..pod
        })
        // In which boot it was let go is not known, so that no other Job can record it.
        .op(|op| op.status.as_mut().unwrap().node_statuses.update("n1", |entry| entry.boot = None));
        world.pass(1);
        assert_eq!(world.entry().phase, Phase::Failed);
        world.entry().message.unwrap().contains("the operation succeeded in one of its tries")
    };
    let ended = |code| {
        let state = ContainerState::Ended { code, reason: "Error".into(), message: String::new() };
        ContainerView::new(container::SENTINEL, state)
    };
    assert!(told(not_started(container::SENTINEL, CGROUP).containers.remove(0)));
    assert!(told(ended(137)) && !told(ended(contract::EXIT_PERMANENT.into())), "that one says it itself");
}

#[test]
fn refusals_are_waited_for_no_longer_than_a_pod_may_take_to_start() {
    // The first one was refused at second 0, and the step may have begun long before.
    let first = |op: &mut crate::api::nodeop::NodeOp| {
        let nodes = &mut op.status.as_mut().unwrap().node_statuses;
        nodes.update("n1", |entry| entry.blocked_since = Some(Time(at(0))));
    };
    let mut world = used_up(refused()).op(first);
    world.pass(41);
    let entry = world.entry();
    let told = entry.message.unwrap();
    assert!(told.contains("could not start in 40 s") && told.contains("OutOfpods"), "{told}");
    assert_eq!((entry.phase, entry.job_name), (Phase::Failed, None), "untouched");
}

/// Jobs and pods come by two watches: the Job's may be ahead.
#[test]
fn a_pod_whose_end_the_cache_does_not_show_yet_is_waited_for() {
    let at_work = PodView { phase: PodPhase::Pending, reason: String::new(), ..refused() };
    let mut world = used_up(at_work);
    world.pass(1);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.job_uid.as_deref()), (Phase::Running, Some("ju")), "{:?}", entry.message);
    world.put(refused());
    world.pass(2);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.job_uid), (Phase::Running, None), "it is made again: {:?}", entry.message);
}

#[test]
fn a_job_of_which_a_container_began_is_never_made_again() {
    let ended = ContainerState::Ended { code: 1, reason: "Error".into(), message: String::new() };
    let began = PodView {
        containers: vec![ContainerView::new(container::NODEOP, ended.clone())],
        reason: String::new(),
        ..refused()
    };
    // The kubelet ended it after it had begun: pressure is a reason that passes, and yet.
    let evicted = PodView {
        containers: vec![ContainerView::new(container::NODEOP, ended)],
        reason: "Evicted: The node was low on resource: memory.".into(),
        ..refused()
    };
    // Of two that failed one is not there any more: it may have begun.
    let mut hidden = used_up(refused());
    let two = JobView { failed: 2, ..(*hidden.snapshot.jobs[&("ns".into(), fixtures::job_name())]).clone() };
    hidden.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(two));
    for mut world in [used_up(began), used_up(evicted), hidden] {
        world.pass(1);
        // The cache has had the time to show all of its pods.
        world.pass(7);
        let entry = world.entry();
        assert_eq!(entry.phase, Phase::Failed);
        assert!(entry.message.unwrap().starts_with("Job failed (BackoffLimitExceeded"));
    }
}

#[test]
fn a_node_that_is_not_heard_of_is_not_said_to_run_the_job_and_no_more() {
    for phase in [PodPhase::Pending, PodPhase::Running] {
        let mut world = suspended();
        let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        world.put(PodView { phase, ..pod });
        world.pass(1);
        assert_eq!(world.entry().message.as_deref(), Some("Job is running"));
        let node = NodeView { ready: false, ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        world.pass(30);
        assert_eq!(world.entry().message.as_deref(), Some("Job is running; the node is not Ready"));
    }
}

#[test]
fn a_strangers_job_under_the_name_of_ours_is_passed_by() {
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "rebootStatus": "pending",
        "lastUpdated": Time(at(0))});
    let mut world = World::new(entry);
    let stranger =
        JobView { owner: Owner::default(), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(stranger));
    world.put(PodView { phase: PodPhase::Succeeded, ..world.waiter(0) });
    world.pass(1);
    let again = object_name::object(("op", "u"), "n1", "", 1);
    assert_eq!(world.entry().job_name, Some(again), "{:?}", world.entry().message);
    world.pass(20);
    world.put(PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(1) });
    let out = world.pass(21);
    let touched = |action: &Action| matches!(action, Action::DeleteJob { .. });
    assert!(!out.actions.iter().any(touched), "it is somebody else's: {:?}", out.actions);
    assert!(out.actions.iter().any(|action| matches!(action, Action::CreateJob { .. })), "{:?}", out.actions);
}

/// The output of a command that failed is in its pods alone, and anybody may delete those.
#[test]
fn a_failure_whose_pods_are_gone_says_that_none_is_left_to_say_why() {
    let mut world = suspended();
    let state = JobState::Failed("BackoffLimitExceeded".into());
    let job = JobView { failed: 1, ..fixtures::job(&fixtures::job_name(), state) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    world.pass(1);
    let told = |world: &World| world.entry().message.unwrap_or_default();
    assert!(!told(&world).contains("is left"), "a cache may show the pod in a moment: {}", told(&world));
    world.pass(10);
    let told = told(&world);
    assert!(told.contains("BackoffLimitExceeded") && told.contains("none of its pods is left"), "{told}");
}

/// The try that finds that the one before it was interrupted does not know by what.
#[test]
fn what_interrupted_an_upgrade_is_told_with_the_try_that_found_it() {
    let ended = |code, reason: &str, message: &str| {
        let state = ContainerState::Ended { code, reason: reason.into(), message: message.into() };
        PodView {
            containers: vec![ContainerView::new(container::NODEOP, state)],
            reason: String::new(),
            ..refused()
        }
    };
    let found = format!("upgrading: {}", contract::BadEnd::Interrupted.clause());
    let disk = "Evicted: The node was low on resource: ephemeral-storage.";
    for (before, is_upgrade, said, told) in [
        (ended(137, "OOMKilled", ""), true, &found, "; the try before it: exit code 137, OOMKilled"),
        (
            PodView { reason: disk.into(), ..ended(137, "Error", "") },
            true,
            &found,
            &format!("; the try before it: {disk}"),
        ),
        (ended(137, "OOMKilled", ""), true, &"no space left".to_owned(), ""),
        (ended(137, "OOMKilled", ""), false, &found, ""),
    ] {
        let mut world = used_up(PodView { created: at(1), name: "a".into(), uid: "a".into(), ..before });
        world.put(PodView { created: at(9), ..ended(42, "Error", said) });
        let job =
            JobView { failed: 2, ..(*world.snapshot.jobs[&("ns".into(), fixtures::job_name())]).clone() };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        let upgrade = is_upgrade.then(|| serde_json::from_value(json!({})).unwrap());
        let mut world = world.op(|op| op.spec.upgrade = upgrade);
        world.pass(1);
        let message = world.entry().message.unwrap();
        assert!(message.contains(&format!("exit code 42: {said}{told} (see docs")), "{message}");
    }
}

/// The pod of the Job, whose container that holds the node's lock runs, and has it or not.
fn at_the_lock(started: bool) -> PodView {
    let running = ContainerState::Running { since: at(0) };
    let waits = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    let holder = ContainerView { started, ..ContainerView::new(container::NODE_LOCK, running) };
    let containers = vec![holder, ContainerView::new(container::NODEOP, waits)];
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    PodView { phase: PodPhase::Pending, containers, ..pod }
}

#[test]
fn a_command_that_waits_for_the_nodes_lock_says_so_and_no_longer_than_a_pod_may_take_to_start() {
    let mut world = suspended();
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    world.put(at_the_lock(false));
    let says = |world: &mut World, second| {
        let out = world.pass(second);
        let told = out.why(&world.me.key(), "n1").map(|why| (why.reason.name(), why.message.clone()));
        (told.unwrap_or_default(), out.wake_at)
    };
    let calm = ("Job", "Job is running".to_owned());
    assert_eq!(says(&mut world, 1), (calm.clone(), Some(at(6))), "a kubelet looks once a second");
    let locked = "the Job's pod cannot start yet: another operation, or an earlier try of this one, still holds the node's lock";
    assert_eq!(says(&mut world, 6).0, ("NodeLock", locked.to_owned()));
    let mut late =
        World { me: world.me.clone(), snapshot: world.snapshot.clone(), event: world.event.clone() };
    world.put(at_the_lock(true));
    assert_eq!(says(&mut world, 7).0, calm, "its turn has come");
    late.pass(41);
    let entry = late.entry();
    let told = entry.message.unwrap();
    assert!(told.contains("could not start in 40 s: another operation, or an earlier try"), "{told}");
    assert_eq!(
        (entry.phase, entry.job_name),
        (Phase::Running, Some(fixtures::job_name())),
        "the Job is ended first"
    );
}

/// A command that reboots leaves the lock to itself for a while when it fails.
#[test]
fn a_further_try_that_waits_for_the_nodes_lock_says_so() {
    let mut world = suspended();
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let ended = ContainerState::Ended { code: 4, reason: "Error".into(), message: String::new() };
    let failed = ContainerView::new(container::NODEOP, ended);
    let pod = fixtures::pod(Role::Job, "p0", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { phase: PodPhase::Failed, containers: vec![failed], ..pod });
    world.put(at_the_lock(false));
    let says = |world: &mut World, second| {
        let out = world.pass(second);
        out.why(&world.me.key(), "n1").map(|why| why.message.clone()).unwrap_or_default()
    };
    assert_eq!(says(&mut world, 1), "Job is running; one try failed with exit code 4, Error");
    assert_eq!(
        says(&mut world, 6),
        "Job is running: another operation, or an earlier try of this one, still holds the node's lock"
    );
}

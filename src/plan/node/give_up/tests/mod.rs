//! Giving up, pass by pass: what is recorded, what is ended, and in which order.

mod reboot_status;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    api::nodeop::{Phase, RebootStatus},
    contract::{Succeeded, reboot_state},
    plan::{
        fixtures,
        model::{
            action::Action,
            effects::Plan,
            identity::Identified,
            question::Question,
            snapshot::{
                ContainerState, ContainerView, Ended, JobState, JobView, NodeView, Owner, PersistentFailure,
                PodPhase, PodView, Role,
            },
        },
        node::fixtures::{World, at},
        plan,
    },
};

fn drains() -> Value {
    json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": "1970-01-12T13:46:40Z"})
}

fn ends_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeletePod { .. }))
}

fn makes_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::CreateWaiter { .. }))
}

/// A waiter that is told that its state directory cannot be written, again and again.
fn crashing(world: &World, attempt: i32) -> PodView {
    let state = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    let last = Ended {
        code: 1,
        reason: "Error".into(),
        message: "making /state/.kairos: Read-only file system (os error 30)".into(),
    };
    let container = ContainerView { last: Some(last), ..ContainerView::new("reboot", state) };
    PodView { containers: vec![container], ..world.waiter(attempt) }
}

#[test]
fn a_waiter_that_does_not_get_ready_fails_its_node_after_one_pull_timeout() {
    let mut world = World::new(drains());
    world.put(crashing(&world, 0));
    world.pass(39);
    assert!(world.entry().message.unwrap().contains("Read-only file system"), "{:?}", world.entry());
    let out = world.pass(40);
    assert!(!ends_waiter(&out), "the verdict is recorded before it is carried out");
    assert!(
        world
            .entry()
            .given_up
            .is_some_and(|why| why.contains("did not get ready in 40 s") && why.contains("Read-only"))
    );
    assert!(ends_waiter(&world.pass(41)));
    let over = PodView { phase: PodPhase::Failed, ..crashing(&world, 0) };
    world.put(over);
    let out = world.pass(42);
    let entry = world.entry();
    assert!(!makes_waiter(&out) && entry.phase == Phase::Failed, "its end is no loss: {entry:?}");
    assert!(entry.message.unwrap().contains("Read-only file system"));
    assert_eq!((entry.job_name, entry.given_up), (None, None), "the node was not touched, and is released");
}

#[test]
fn a_container_of_somebody_else_that_keeps_a_waiter_from_starting_is_named() {
    let mut world = World::new(drains());
    let running = ContainerState::Running { since: at(0) };
    let waits = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    let containers = vec![ContainerView::new("apm-init", running), ContainerView::new("reboot", waits)];
    world.put(PodView { phase: PodPhase::Pending, containers, ..world.waiter(0) });
    world.pass(0);
    world.pass(11);
    let told = world.entry().message.unwrap();
    assert!(told.contains("container apm-init, which is not ours, runs in it"), "{told}");
    world.pass(40);
    let told = world.entry().given_up.unwrap();
    assert!(told.contains("did not get ready in 40 s: container apm-init, which is not ours"), "{told}");
}

/// What the API server says of the waiter that is to be made now.
fn is_refused(world: &mut World, out: &Plan) {
    let make = out.actions.iter().find(|action| matches!(action, Action::CreateWaiter { .. })).unwrap();
    let message = "pods \"op\" is forbidden: exceeded quota".to_owned();
    world.snapshot.failures = [(make.id(), PersistentFailure { since: at(0), message })].into();
}

#[test]
fn what_the_api_server_says_of_a_waiter_is_in_the_last_message_before_the_job_and_after_it() {
    let mut world = World::new(drains());
    let out = world.pass(0);
    is_refused(&mut world, &out);
    world.pass(20);
    let told = world.entry().message.unwrap();
    assert_eq!(told.matches("exceeded quota").count(), 1, "{told}");
    world.pass(40);
    let told = world.entry().message.unwrap();
    assert!(told.contains("did not get ready in 40 s") && told.contains("exceeded quota"), "{told}");

    let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju",
        "boot": "b1", "rebootStatus": "pending", "deadline": Time(at(60)), "lastUpdated": Time(at(0))});
    let due = || {
        let mut world = World::new(entry.clone());
        let job = fixtures::job(&fixtures::job_name(), JobState::Complete);
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world
    };
    let last = |world: &mut World| {
        world.pass(61);
        let entry = world.entry();
        entry.given_up.or(entry.message).unwrap()
    };
    let mut refused = due();
    let out = refused.pass(1);
    is_refused(&mut refused, &out);
    let told = last(&mut refused);
    assert!(told.contains("no reboot waiter stands there: ") && told.contains("exceeded quota"), "{told}");

    let mut evicted = due();
    let reason = "Evicted: The node had condition: [DiskPressure].".to_owned();
    evicted.put(PodView { phase: PodPhase::Failed, reason, ..evicted.waiter(0) });
    evicted.pass(58);
    let told = last(&mut evicted);
    assert!(told.contains("no reboot waiter stands there: ") && told.contains("DiskPressure"), "{told}");

    let mut deaf = due();
    let waiter = PodView { reboot_state: Some(reboot_state::REBOOTING.into()), ..deaf.waiter(0) };
    deaf.put(waiter);
    let told = last(&mut deaf);
    assert!(
        told.contains("still in the boot in which the operation succeeded. Reboot it yourself"),
        "{told}"
    );
}

#[test]
fn the_loss_of_waiters_that_never_stood_starts_no_new_time() {
    let mut world = World::new(drains());
    let mut made = 0;
    for second in 0..80 {
        let attempt = world.entry().attempt.unwrap_or(0);
        let out = world.pass(second);
        if makes_waiter(&out) {
            made += 1;
            let lost = PodView {
                phase: PodPhase::Failed,
                reason: "Evicted: low on disk".into(),
                ..crashing(&world, attempt)
            };
            world.put(lost);
        }
        if world.entry().phase == Phase::Failed {
            assert!((40..50).contains(&second), "{second}");
            assert!((3..8).contains(&made), "with pauses in between: {made}");
            let message = world.entry().message.unwrap_or_default();
            assert!(message.contains("low on disk") && !message.contains("next one"), "{message}");
            return;
        }
    }
    panic!("{:?}", world.entry());
}

#[test]
fn a_strangers_pod_under_the_waiters_name_is_passed_by() {
    let mut world = World::new(drains());
    let stranger = PodView { owner: Owner::default(), role: Role::Stranger, ..world.waiter(0) };
    world.put(stranger);
    world.pass(0);
    assert_eq!(world.entry().attempt, Some(1));
    let out = world.pass(1);
    assert!(makes_waiter(&out) && !ends_waiter(&out), "{:?}", out.actions);
}

fn runs(untouched: Value) -> Value {
    let name = fixtures::job_name();
    json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name, "jobUid": "ju", "rebootStatus": "pending",
        "givenUp": "the Job's pod could not start", "untouched": untouched})
}

fn job(state: JobState) -> JobView {
    fixtures::job(&fixtures::job_name(), state)
}

#[test]
fn a_job_that_completes_after_it_was_given_up_has_succeeded() {
    let mut world = World::new(runs(json!(true)));
    let done = job(JobState::Complete);
    world.snapshot.jobs.insert((done.namespace.clone(), done.name.clone()), Arc::new(done));
    world.put(PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) });
    world.pass(0);
    world.pass(1);
    let entry = world.entry();
    assert_eq!(entry.step, Some(crate::api::nodeop::Step::Reboot), "{entry:?}");
    assert_eq!(entry.given_up, None);
}

#[test]
fn a_job_that_was_given_up_goes_with_its_waiter_before_the_node_has_failed() {
    let mut world = World::new(runs(json!(true)));
    let active = job(JobState::Active);
    world.snapshot.jobs.insert((active.namespace.clone(), active.name.clone()), Arc::new(active));
    world.put(PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) });
    let out = world.pass(0);
    assert!(out.actions.iter().any(|action| matches!(action, Action::DeleteJob { .. })), "{:?}", out.actions);
    assert!(!ends_waiter(&out), "a Job that completes meanwhile is followed by its reboot");
    assert_eq!(world.entry().phase, Phase::Running);
    world.snapshot.jobs.clear();
    assert!(ends_waiter(&world.pass(1)));
    world.snapshot.pods.clear();
    world.pass(2);
    let entry = world.entry();
    assert_eq!(
        (entry.phase, entry.reboot_status),
        (Phase::Failed, Some(RebootStatus::Cancelled)),
        "{entry:?}"
    );
    assert_eq!(entry.job_name, None, "nothing of it has begun: the node is released");
}

#[test]
fn a_node_object_that_was_deleted_during_the_reboot_is_known_again_by_its_machine() {
    let reboots = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju", "boot": "b1",
        "machineId": "m1", "rebootStatus": "pending", "deadline": "1970-01-12T14:00:00Z"});
    let mut world = World::new(reboots);
    let node = world.snapshot.nodes.remove("n1").unwrap();
    world.pass(0);
    assert_eq!(world.entry().phase, Phase::Running, "it may come back");
    let back = |machine: Option<&str>| NodeView {
        uid: "n2".into(),
        boot_id: "b2".into(),
        machine_id: machine.map(Into::into),
        claimed_by: None,
        cordoned_by: None,
        unschedulable: false,
        ..(*node).clone()
    };
    let mut other =
        World { snapshot: world.snapshot.clone(), me: world.me.clone(), event: world.event.clone() };
    other.snapshot.nodes.insert("n1".into(), Arc::new(back(Some("m2"))));
    other.pass(1);
    assert_eq!(other.entry().phase, Phase::Failed, "another machine");
    // Somebody else than its kubelet has made the object.
    world.snapshot.nodes.insert("n1".into(), Arc::new(back(None)));
    world.pass(1);
    assert_eq!(world.entry().phase, Phase::Running, "nobody knows which machine it is");
    world.snapshot.nodes.insert("n1".into(), Arc::new(back(Some("m1"))));
    world.pass(1);
    world.pass(2);
    world.pass(3);
    let entry = world.entry();
    assert_eq!(
        (entry.phase, entry.reboot_status),
        (Phase::Completed, Some(RebootStatus::Completed)),
        "{entry:?}"
    );
}

/// A leader whose view of Jobs is old: it shows none yet, or one that was deleted before the recorded one was
/// made.
#[test]
fn a_job_that_an_old_view_does_not_show_is_read_live_before_anything_is_made_of_its_absence() {
    let name = fixtures::job_name();
    let runs = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name, "jobUid": "ju"});
    for older in [
        None,
        Some(JobView { uid: "older".into(), suspended: true, ..fixtures::job(&name, JobState::Active) }),
    ] {
        let mut world = World::new(runs.clone());
        world.put(world.waiter(0));
        world.snapshot.jobs =
            older.into_iter().map(|job| (("ns".to_owned(), name.clone()), Arc::new(job))).collect();
        world.snapshot.now = at(1);
        let out = plan(&world.snapshot);
        assert!(out.questions.contains(&Question::Job(("ns".into(), name.clone()))), "{out:?}");
        assert!(
            !out.actions
                .iter()
                .any(|action| matches!(action, Action::DeleteJob { .. } | Action::DeletePod { .. })),
            "{out:?}"
        );
        world.record(&out);
        assert_eq!(world.entry().given_up, None, "nobody has looked yet");
    }
}

/// A waiter whose Job somebody deleted ends, since it cannot know that the Job succeeded; the status does.
#[test]
fn a_waiter_that_is_made_while_a_reboot_is_due_is_told_what_is_recorded() {
    let reboots = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju", "boot": "b1",
        "rebootStatus": "pending", "deadline": Time(at(1_000)), "lastUpdated": Time(at(0))});
    let told = |entry: Value| {
        let mut world = World::new(entry);
        let name = fixtures::job_name();
        let mut op = (**world.snapshot.ops.values().next().unwrap()).clone();
        op.status.as_mut().unwrap().node_statuses.update("n1", |entry| entry.job_name = Some(name));
        world.snapshot.ops.insert(world.me.key(), Arc::new(op));
        let made = world.pass(1).actions.into_iter().find_map(|action| match action {
            Action::CreateWaiter { succeeded, .. } => Some(succeeded),
            _ => None,
        });
        made.expect("a waiter")
    };
    let recorded = Succeeded { job_uid: "ju".into(), boot: "b1".into() };
    assert_eq!(told(reboots), Some(recorded));
    assert_eq!(told(drains()), None, "nothing has succeeded yet");
}

/// Its account or its Role was taken away while the operation ran: it stood there until the reboot timed out.
#[test]
fn a_waiter_that_does_not_hear_that_its_reboot_is_due_makes_room_for_another_one() {
    let ended = |state: &str, lost: Option<i64>, second: i64| {
        let mut world = World::new(
            json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju",
            "boot": "b1", "rebootStatus": "pending", "deadline": Time(at(1_800)), "lastUpdated": Time(at(0)),
            "attempt": lost.map(|_| 1), "since": lost.map(|lost| Time(at(lost)))}),
        );
        let waiter = world.waiter(i32::from(lost.is_some()));
        world.put(PodView { reboot_state: Some(state.into()), ..waiter });
        let out = world.pass(second);
        out.actions.iter().any(|action| matches!(action, Action::DeletePod { .. }))
    };
    assert!(!ended("waiting", None, 29) && ended("waiting", None, 30));
    assert!(!ended("rebooting", None, 200), "it has heard, and the node takes its time");
    assert!(!ended("waiting", Some(31), 65) && ended("waiting", Some(31), 66), "the next one has as long");
}

/// The mark that says that the cordon is ours was taken off while the node was worked on.
#[test]
fn a_node_that_stays_cordoned_though_all_went_well_says_so() {
    let name = fixtures::job_name();
    for (marked, told) in [(true, false), (false, true)] {
        let reboots = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": name, "jobUid": "ju", "boot": "b0",
            "newBoot": "b1", "rebootStatus": "pending", "deadline": Time(at(1_000)), "lastUpdated": Time(at(0))});
        let mut world = World::new(reboots);
        let mut node = (*world.snapshot.nodes["n1"]).clone();
        node.cordoned_by = node.cordoned_by.filter(|_| marked);
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        world.pass(1);
        let entry = world.entry();
        assert_eq!(entry.phase, Phase::Completed);
        assert_eq!(entry.message.is_some_and(|said| said.contains("kubectl uncordon n1")), told);
    }
}

/// Nothing of a node whose reboot is proved can act any more, as a rule; but its waiter may not have ended.
#[test]
fn a_proof_without_its_boot_or_its_deadline_fails_the_node_once_its_waiter_has_ended() {
    let name = fixtures::job_name();
    let proves = json!({"phase": "Running", "step": "Verify", "nodeUid": "n1", "jobName": name, "jobUid": "ju",
        "newBoot": "b1", "rebootStatus": "completed", "deadline": Time(at(300)), "lastUpdated": Time(at(0))});
    for (field, missing) in [("newBoot", "boot"), ("deadline", "deadline")] {
        let mut entry = proves.clone();
        entry.as_object_mut().unwrap().remove(field);
        let said = format!("has no {missing} of the proof any more");
        let mut world = World::new(entry.clone());
        world.put(PodView { reboot_state: Some(reboot_state::COMPLETED.into()), ..world.waiter(0) });
        let out = world.pass(1);
        let given_up = world.entry().given_up;
        assert!(given_up.is_some_and(|why| why.contains(&said)) && !ends_waiter(&out), "{:?}", world.entry());
        assert!(ends_waiter(&world.pass(2)));
        world.put(PodView { phase: PodPhase::Succeeded, ..world.waiter(0) });
        world.pass(3);
        let mut alone = World::new(entry);
        alone.pass(1);
        for over in [world.entry(), alone.entry()] {
            assert_eq!((over.phase, over.reboot_status), (Phase::Failed, Some(RebootStatus::Completed)));
            assert!(over.message.is_some_and(|why| why.contains(&said)));
        }
    }
}

//! Containers that somebody else added to the Job's pod, by a webhook as a rule.

use super::*;
use crate::plan::{model::question::Question, plan};

/// A Job that may run, and its pod.
fn with(phase: PodPhase, containers: Vec<ContainerView>) -> World {
    let mut world = suspended();
    world.pass(0);
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { phase, containers, ..pod });
    world
}

fn ended(name: &str, code: i32) -> ContainerView {
    let reason = if code == 0 { "Completed" } else { "Error" }.into();
    ContainerView::new(name, ContainerState::Ended { code, reason, message: String::new() })
}

fn runs(name: &str) -> ContainerView {
    ContainerView::new(name, ContainerState::Running { since: at(0) })
}

fn waits(name: &str, reason: &str, message: &str) -> ContainerView {
    ContainerView::new(name, ContainerState::Waiting { reason: reason.into(), message: message.into() })
}

fn initializing(name: &str) -> ContainerView {
    waits(name, "PodInitializing", "")
}

fn says(world: &mut World, second: i64) -> String {
    let out = world.pass(second);
    let told = out.why(&world.me.key(), "n1").map(|why| why.message.clone());
    told.or_else(|| world.entry().message).unwrap_or_default()
}

/// What somebody else's containers do or did says nothing about the operation.
#[test]
fn a_container_of_somebody_else_that_was_started_is_no_beginning_of_the_operation() {
    for other in [ended("apm-init", 0), runs("apm")] {
        let no_image = waits(container::NODEOP, "ImagePullBackOff", "Back-off pulling image");
        let mut world = with(PodPhase::Pending, vec![other.clone(), no_image]);
        assert_eq!(
            says(&mut world, 1),
            "the Job's pod cannot start yet: ImagePullBackOff: Back-off pulling image"
        );
        world.pass(42);
        let NodeStatus { given_up, untouched, .. } = world.entry();
        let told = given_up.unwrap();
        assert!(told.contains("could not start in 40 s: ImagePullBackOff"), "{told}");
        assert_eq!(untouched, Some(true));
        world.pass(43);
        assert_eq!(world.entry().untouched, Some(true), "nor does it begin meanwhile");

        let wrong = "exec: \"nope\": executable file not found in $PATH";
        let no_command = waits(container::NODEOP, "RunContainerError", wrong);
        let mut world = with(PodPhase::Pending, vec![other.clone(), no_command]);
        world.pass(1);
        let told = world.entry().given_up.unwrap();
        assert!(told.contains("the Job's pod cannot start: RunContainerError"), "{told}");

        let lock = ContainerView { started: false, ..runs(container::NODE_LOCK) };
        let mut world = with(PodPhase::Pending, vec![other, lock, initializing(container::NODEOP)]);
        world.pass(1);
        let told = says(&mut world, 15);
        assert!(told.ends_with("still holds the node's lock"), "{told}");
    }
}

#[test]
fn a_container_of_somebody_else_that_does_not_end_is_named_where_ours_wait_for_it() {
    for (begun, containers) in [
        (false, vec![runs("apm-init"), initializing(container::NODEOP), initializing(container::SENTINEL)]),
        (
            false,
            vec![
                ended(container::INSTALL, 0),
                runs("apm-init"),
                initializing(container::NODEOP),
                initializing(container::SENTINEL),
            ],
        ),
        (false, vec![runs(container::NODE_LOCK), runs("apm-init"), initializing(container::NODEOP)]),
        // An init container of somebody else may also come after ours.
        (true, vec![ended(container::NODEOP, 0), runs("apm-init"), initializing(container::SENTINEL)]),
    ] {
        let mut world = with(PodPhase::Pending, containers);
        assert_eq!(says(&mut world, 1), "Job is running", "as a rule it is short");
        let told = says(&mut world, 12);
        assert!(told.contains("container apm-init, which is not ours, runs in it"), "{told}");
        world.pass(42);
        let given_up = world.entry().given_up;
        assert_eq!(given_up.is_none(), begun, "{given_up:?}");
        assert!(given_up.is_none_or(|why| why.contains("in 40 s: container apm-init, which is not ours")));
    }
    let mut world = with(PodPhase::Running, vec![runs("apm"), runs(container::NODEOP)]);
    world.pass(1);
    assert_eq!(says(&mut world, 42), "Job is running", "ours does not wait for it");
}

#[test]
fn a_pod_whose_operation_had_not_begun_is_no_try_though_a_container_of_somebody_else_ran() {
    let start_error = not_started(container::NODEOP, CGROUP).containers.remove(0);
    for (containers, again) in [
        (vec![ended("apm-init", 0), start_error], true),
        (vec![ended("apm-init", 1), initializing(container::NODEOP)], true),
        (vec![ended("apm-init", 1), ended(container::NODEOP, 1)], false),
        (vec![ended("apm-init", 0), ended(container::INSTALL, 1), initializing(container::NODEOP)], false),
    ] {
        let mut world = used_up(PodView { containers, reason: String::new(), ..refused() });
        world.pass(1);
        let entry = world.entry();
        let phase = if again { Phase::Running } else { Phase::Failed };
        assert_eq!((entry.phase, entry.job_uid), (phase, None), "{:?}", entry.message);
    }
}

/// The sentinel's container has ended well, in this boot.
fn told(boot: &str) -> ContainerView {
    let sentinel = Sentinel {
        job: fixtures::job_name(),
        job_uid: "ju".into(),
        boot: boot.into(),
        ..Sentinel::default()
    };
    let message = serde_json::to_string(&sentinel).unwrap();
    let state = ContainerState::Ended { code: 0, reason: "Completed".into(), message };
    ContainerView::new(container::SENTINEL, state)
}

/// A Job in which the operation succeeded, and whose pod failed of a container of somebody else.
fn crashed(state: JobState, containers: Vec<ContainerView>) -> World {
    let mut world = suspended();
    world.pass(0);
    let job = JobView { suspended: false, failed: 1, ..fixtures::job(&fixtures::job_name(), state) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { phase: PodPhase::Failed, containers, ..pod });
    world
}

#[test]
fn a_container_of_somebody_else_that_crashed_fails_no_operation_that_succeeded() {
    let policy = "PodFailurePolicy: Container apm for pod ns/p failed with exit code 1";
    for state in [JobState::Active, JobState::Failed(policy.into())] {
        let work = || vec![ended(container::NODEOP, 0), told("b1"), ended("apm", 1)];
        let mut world = crashed(state.clone(), work());
        world.pass(1);
        let entry = world.entry();
        assert_eq!((entry.step, entry.boot.as_deref()), (Some(Step::Reboot), Some("b1")), "{entry:?}");
        let out = world.pass(2);
        let settles = |action: &Action| matches!(action, Action::SettleJob { boot, .. } if boot == "b1");
        assert_eq!(out.actions.iter().any(settles), state == JobState::Active, "no further try: {out:?}");
        // The waiter of a Job that has failed ends; the next one is told.
        world.put(PodView { phase: PodPhase::Succeeded, ..world.waiter(0) });
        world.pass(3);
        let out = world.pass(20);
        let told = |action: &Action| matches!(action, Action::CreateWaiter { succeeded: Some(known), .. } if known.job_uid == "ju" && known.boot == "b1");
        assert!(out.actions.iter().any(told), "{out:?}");

        let mut world = crashed(state, vec![ended(container::NODEOP, 0), ended("apm", 1)])
            .op(|op| op.spec.reboot_on_success = Some(false));
        world.pass(1);
        let entry = world.entry();
        assert_eq!(entry.phase, Phase::Completed, "{:?}", entry.message);
        let message = entry.message.unwrap();
        assert!(message.contains("container apm, which is not ours, failed beside it"), "{message}");
    }
}

#[test]
fn what_a_pod_that_failed_says_of_a_success_counts_only_where_it_can_be_no_other_try() {
    let step = |world: &mut World| {
        world.pass(1);
        world.pass(8);
        (world.entry().phase, world.entry().step)
    };
    let goes_on = (Phase::Running, Some(Step::Job));
    let of = |boot: &str| vec![ended(container::NODEOP, 0), told(boot), ended("apm", 137)];
    // The node has booted since, and the Job may try again in this boot …
    assert_eq!(step(&mut crashed(JobState::Active, of("b0"))), goes_on);
    // … or it can not, and the boot that was to be left is left.
    let over = JobState::Failed("PodFailurePolicy".into());
    let mut world = crashed(over.clone(), of("b0"));
    world.pass(1);
    world.pass(2);
    assert_eq!(world.entry().phase, Phase::Completed, "{:?}", world.entry());
    // A later try runs, and is not killed midway.
    let mut world = crashed(JobState::Active, of("b1"));
    let pod = fixtures::pod(Role::Job, "p1", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { containers: vec![runs(container::NODEOP)], created: at(9), ..pod });
    assert_eq!(step(&mut world), goes_on);
    // Nobody else's container has failed, so the pod was ended as a whole.
    let whole = vec![ended(container::NODEOP, 0), told("b1")];
    assert_eq!(step(&mut crashed(JobState::Active, whole)), goes_on);
    // One of ours has failed too.
    let ours = vec![ended(container::NODEOP, 1), told("b1"), ended("apm", 1)];
    assert_eq!(step(&mut crashed(over, ours)).0, Phase::Failed);
}

/// Whoever leads anew may see the Job as the leader before left it, and the NodeOp as it was before that; and
/// anybody who may edit Jobs may write the annotation on one, which proves nothing.
#[test]
fn a_job_that_says_it_is_settled_is_let_run_only_if_no_success_is_recorded() {
    for is_suspended in [true, false] {
        let mut world = suspended();
        let job = fixtures::job(&fixtures::job_name(), JobState::Active);
        let job = JobView { suspended: is_suspended, settled_in: Some("b1".into()), ..job };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        let before = world.entry();
        let out = plan(&world.snapshot);
        let live = Question::Op(world.me.clone());
        assert!(out.questions.contains(&live), "{out:?}");
        let acts = |out: &Plan| out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. }));
        assert!(!acts(&out), "{out:?}");
        let out = world.pass(1);
        assert_eq!((acts(&out), world.entry().step), (is_suspended, before.step), "{out:?}");
    }
}

#[test]
fn a_job_is_let_run_as_it_was_seen() {
    let mut world = suspended();
    let out = world.pass(1);
    let seen = out.actions.iter().find_map(|action| match action {
        Action::ResumeJob { resource_version, .. } => Some(resource_version.as_str()),
        _ => None,
    });
    assert_eq!(seen, Some("1"));
}

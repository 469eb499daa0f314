//! Containers that somebody else added to the Job's pod, by a webhook as a rule.

use super::*;

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

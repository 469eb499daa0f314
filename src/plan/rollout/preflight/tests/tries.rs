//! Pods that have not given a verdict yet: what keeps them, for how long, and what follows.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

pub const REFUSED: &str =
    "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 6, capacity: 6";

const CGROUP: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: \
    runc create failed: unable to start container process: unable to apply cgroup configuration: failed to write 71: \
    openat2 /sys/fs/cgroup/kubepods/pod1/c/cgroup.procs: no such file or directory: unknown";

/// What containerd says of a container that it could not start.
fn not_started(message: &str) -> ContainerState {
    ContainerState::Ended { code: 128, reason: "StartError".into(), message: message.into() }
}

pub fn waits(reason: &str, message: &str) -> ContainerState {
    ContainerState::Waiting { reason: reason.into(), message: message.into() }
}

/// The node's clock and the server's are years behind: what counts is when we saw it.
#[test]
fn deadlines_count_from_what_we_saw() {
    let running = || ContainerState::Running { since: at(-100_000_000) };
    let mut world = World::new();
    world.container(running());
    for second in [10, 129] {
        assert_eq!(world.comes_to(second), (Phase::Preflight, Asking::Runs.to_string()), "{second}");
    }
    assert_eq!(
        world.comes_to(130),
        (
            Phase::Failed,
            "Preflight failed: DeadlineExceeded, it ran for more than 120 s (see docs: preflight-failed)"
                .into()
        )
    );

    let mut world = World::new();
    world.container(waits("ImagePullBackOff", "not found"));
    let why = "ImagePullBackOff: not found";
    for second in [10, 69] {
        assert_eq!(
            world.comes_to(second),
            (Phase::Preflight, format!("Preflight cannot start yet: {why}")),
            "{second}"
        );
    }
    assert_eq!(
        world.comes_to(70),
        (Phase::Failed, format!("Preflight failed: no start in 60 s: {why} (see docs: preflight-failed)"))
    );
}

#[test]
fn what_no_waiting_mends_fails_the_node_at_once() {
    let image = "couldn't parse image name: invalid reference format: repository name must be lowercase";
    let mut world = World::new();
    world.container(waits("InvalidImageName", image));
    assert_eq!(
        world.comes_to(1),
        (Phase::Failed, format!("Preflight failed: InvalidImageName: {image} (see docs: preflight-failed)"))
    );

    let mut world = World::new();
    let missing = "exec: \"nope\": executable file not found in $PATH";
    world.ends(128, "StartError", missing);
    assert_eq!(
        world.comes_to(1),
        (Phase::Failed, format!("Preflight failed: exit code 128: {missing} (see docs: preflight-failed)"))
    );

    // The first container, whose words nobody quoted.
    let mut world = World::new();
    let state = ContainerState::Ended {
        code: 255,
        reason: "Error".into(),
        message: "exec /kairos-operator: exec format error".into(),
    };
    world.pod(|pod| {
        pod.phase = PodPhase::Failed;
        pod.containers = vec![
            ContainerView::new(container::INSTALL, state),
            ContainerView::new(container::PREFLIGHT, waits("PodInitializing", "")),
        ];
    });
    let told = "Preflight failed: container install ended with exit code 255: exec /kairos-operator: exec format error (see docs: preflight-failed)";
    assert_eq!(world.comes_to(1), (Phase::Failed, told.into()));
}

#[test]
fn a_pod_that_is_refused_is_made_again_with_pauses_until_the_time_is_over() {
    let mut world = World::new();
    let mut tries = vec![];
    let mut told = BTreeSet::new();
    for second in 0..70 {
        let (_, made) = world.plan(second);
        if !made.is_empty() {
            tries.push(second);
            world.refused(REFUSED);
            world.plan(second);
        }
        told.insert(world.message());
        if world.status("op").phase == Phase::Failed {
            assert_eq!(second, 60);
            break;
        }
    }
    assert_eq!(tries, [0, 5, 15, 30, 50, 60]);
    let first = format!(
        "Preflight is to be tried again: {REFUSED}; make room for this pod on the node; the next try is made at {:.0}",
        at(5)
    );
    assert!(told.contains(&first), "{told:#?}");
    assert_eq!(
        world.message(),
        format!(
            "Preflight failed: no try came to its end in 60 s, the last one because: {REFUSED}; make room for this pod on the node (see docs: preflight-failed)"
        )
    );
}

#[test]
fn a_refusal_that_passes_costs_nothing_but_time() {
    let ended = ContainerState::Ended { code: 137, reason: "Error".into(), message: String::new() };
    let lost =
        ContainerState::Ended { code: 137, reason: "ContainerStatusUnknown".into(), message: String::new() };
    for (reason, state) in [
        (REFUSED, None),
        ("Evicted: The node was low on resource: ephemeral-storage.", Some(ended)),
        ("Terminated: Pod was terminated in response to imminent node shutdown.", None),
        ("", Some(lost)),
        ("", Some(not_started(CGROUP))),
        ("", Some(not_started("failed to start containerd task \"a\": context deadline exceeded"))),
    ] {
        let mut world = World::new();
        world.plan(0);
        world.pod(|pod| {
            (pod.phase, pod.reason) = (PodPhase::Failed, reason.into());
            pod.containers =
                state.map(|state| ContainerView::new(container::PREFLIGHT, state)).into_iter().collect();
        });
        assert_eq!(world.comes_to(1).0, Phase::Preflight, "{reason}");
        assert_eq!(world.plan(5).1.len(), 0, "{reason}");
        assert_eq!(world.plan(6).1.len(), 1, "{reason}");
        world.ends(0, "Completed", "nothing to do");
        assert_eq!(world.comes_to(7).0, Phase::Completed, "{reason}");
    }
}

/// Whoever deletes our pods as they come is not fed with them.
#[test]
fn a_pod_that_somebody_deletes_is_followed_by_another_after_a_pause() {
    let mut world = World::new();
    world.container(ContainerState::Running { since: at(0) });
    world.pod(|pod| pod.deleting = true);
    let (phase, message) = world.comes_to(1);
    assert_eq!((phase, world.status("op").attempt), (Phase::Preflight, Some(1)));
    assert!(message.contains("it was deleted"), "{message}");
}

/// A node with another's credentials can guess the names of our pods, and take them.
#[test]
fn a_foreign_pod_takes_its_name_alone_and_never_fails_the_node() {
    let foreign: [fn(&mut PodView); 4] = [
        |pod| pod.owner = Owner::node("n1", "n1"),
        |pod| pod.owner = Owner::nodeop("op", "another"),
        |pod| pod.node = "n2".into(),
        |pod| pod.role = Role::Stranger,
    ];
    for change in foreign {
        let mut world = World::new();
        world.pod(change);
        let (phase, message) = world.comes_to(1);
        assert_eq!((phase, world.status("op").attempt), (Phase::Preflight, Some(1)), "{message}");
        assert!(message.contains("is taken by somebody else's"), "{message}");
        assert_eq!(world.plan(6).1.len(), 1, "the next name");
    }
    let mut world = World::new();
    for second in 0..500 {
        let (_, made) = world.plan(second);
        if !made.is_empty() {
            world.pod(|pod| pod.role = Role::Stranger);
        }
        assert_eq!(world.status("op").phase, Phase::Preflight, "{second}: {}", world.message());
    }
    assert!(
        world.status("op").attempt.is_some_and(|attempt| (5..20).contains(&attempt)),
        "{:?}",
        world.status("op").attempt
    );
    world.ends(0, "Completed", "nothing to do");
    assert_eq!(world.comes_to(501).0, Phase::Completed);
}

/// No sandbox: the kubelet says so in Events alone.
#[test]
fn a_silent_pod_is_told_of_by_its_events_while_it_waits_and_in_the_end() {
    let why = "FailedCreatePodSandBox: no more addresses";
    let mut world = World::new();
    world.event = Answer::Said(why.into());
    world.pod(|_| {});
    assert_eq!(world.comes_to(1), (Phase::Preflight, Asking::Runs.to_string()));
    assert_eq!(world.comes_to(11), (Phase::Preflight, format!("Preflight cannot start yet: {why}")));
    assert_eq!(
        world.comes_to(61),
        (Phase::Failed, format!("Preflight failed: no start in 60 s: {why} (see docs: preflight-failed)"))
    );
}

/// A large image on a slow link: ours has been pulled and has run, that of the check is not there yet.
#[test]
fn a_check_whose_image_is_being_pulled_is_waited_for_as_the_job_is() {
    let told = format!("its image is being pulled since {:.0}", at(3));
    let mut world = World::new();
    let entry = serde_json::to_value(world.status("op")).unwrap();
    world.op("op", 0, json!({"activeDeadlineSeconds": 9000}), entry);
    world.event = Answer::Pulls { since: Some(at(3)) };
    world.pod(|pod| {
        let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: String::new() };
        let waits = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
        pod.containers = vec![
            ContainerView::new(container::INSTALL, ended),
            ContainerView::new(container::PREFLIGHT, waits),
        ];
    });
    assert_eq!(world.comes_to(1), (Phase::Preflight, Asking::Runs.to_string()));
    assert_eq!(world.comes_to(11), (Phase::Preflight, format!("Preflight has not started yet: {told}")));
    assert_eq!(world.comes_to(61), (Phase::Preflight, format!("Preflight has not started yet: {told}")));
    // Events are kept for an hour.
    world.event = Answer::Found;
    let silent = "Preflight has not started yet: nothing is told of it, as while its image is pulled";
    assert_eq!(world.comes_to(4000), (Phase::Preflight, silent.into()));
    world.event = Answer::Pulls { since: Some(at(3)) };
    let ends = format!("Preflight failed: no start in 9000 s: {told} (see docs: preflight-failed)");
    assert_eq!(world.comes_to(9001), (Phase::Failed, ends));

    // What keeps it is waited for no longer than was said.
    let mut world = World::new();
    world.pod(|_| {});
    world.plan(1);
    world.event = Answer::Pulls { since: Some(at(3)) };
    assert_eq!(world.comes_to(61).0, Phase::Preflight);
    world.container(waits("ImagePullBackOff", "gone"));
    assert_eq!(world.comes_to(62).0, Phase::Failed, "{}", world.message());
}

#[test]
fn a_container_of_somebody_else_that_keeps_the_check_from_starting_is_named() {
    let why = "container apm-init, which is not ours, runs in it, and ours has not started yet";
    let mut world = World::new();
    let waits = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    world.pod(|pod| {
        let runs = ContainerState::Running { since: at(0) };
        pod.containers =
            vec![ContainerView::new("apm-init", runs), ContainerView::new(container::PREFLIGHT, waits)];
    });
    assert_eq!(world.comes_to(1), (Phase::Preflight, Asking::Runs.to_string()));
    assert_eq!(world.comes_to(12), (Phase::Preflight, format!("Preflight cannot start yet: {why}")));
    assert_eq!(
        world.comes_to(62),
        (Phase::Failed, format!("Preflight failed: no start in 60 s: {why} (see docs: preflight-failed)"))
    );
}

#[test]
fn a_moment_in_the_future_is_of_a_wrong_clock() {
    let mut world = World::new();
    let wrong = at(1_000_000).to_string();
    world.op(
        "op",
        0,
        json!({}),
        json!({"phase": "Preflight", "newBoot": "b1", "attempt": 3, "lastUpdated": wrong, "since": wrong}),
    );
    assert_eq!(world.plan(1).1.len(), 1, "it is not waited for");
    world.refused(REFUSED);
    world.plan(2);
    assert_eq!(
        world.status("op").last_updated.as_ref().map(|time| time.0),
        Some(at(2)),
        "nor does the limit never pass"
    );
}

/// Whoever has a kubelet's credentials can report one boot after the other; and of a machine that really
/// boots for ever nothing is found out either.
#[test]
fn a_node_that_boots_for_ever_ends_and_one_that_was_rebooted_is_asked_again() {
    let mut world = World::new();
    let (mut tries, mut ended) = (0, None);
    for second in 1000..3000 {
        world.node(|node| node.boot_id = format!("b{second}"));
        tries += world.plan(second).1.len();
        if world.status("op").phase == Phase::Failed {
            ended = Some(second);
            break;
        }
    }
    assert_eq!(ended, Some(1060), "the time counts from the first of these boots: {}", world.message());
    let told = "Preflight failed: no try came to its end in 60 s, the last one because: the node was rebooted (see docs: preflight-failed)";
    assert_eq!(world.message(), told);
    assert!(tries <= 1, "{tries}");

    let mut world = World::new();
    world.plan(0);
    world.container(ContainerState::Running { since: at(0) });
    world.node(|node| node.boot_id = "b2".into());
    let told = format!(
        "Preflight is to be tried again: the node was rebooted; the next try is made at {:.0}",
        at(105)
    );
    assert_eq!(world.comes_to(100), (Phase::Preflight, told));
    assert_eq!(world.plan(105).1.len(), 1);
    world.ends(0, "Completed", "nothing to do");
    assert_eq!(world.comes_to(106).0, Phase::Completed);
}

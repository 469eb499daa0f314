//! A user's check that fails is run again by the kubelet, in the same pod.

use super::*;

const LOOPS: ContainerState = ContainerState::Waiting { reason: String::new(), message: String::new() };
const AGAIN: &str = "Preflight is run again: it ended with exit code 1: no route";

fn ended(code: i32, reason: &str, message: &str) -> ContainerState {
    ContainerState::Ended { code, reason: reason.into(), message: message.into() }
}

fn waits(reason: &str) -> ContainerState {
    ContainerState::Waiting { reason: reason.into(), message: String::new() }
}

/// The check's container in a pod that goes on, whose run before this one ended like `last`.
fn check(world: &mut World, state: ContainerState, last: Option<&ContainerState>) {
    let last = last.and_then(|last| ContainerView::new("", last.clone()).ended());
    world.pod(|pod| {
        pod.phase = PodPhase::Running;
        let restarts = i32::from(last.is_some());
        pod.containers =
            vec![ContainerView { last, restarts, ..ContainerView::new(container::PREFLIGHT, state) }];
    });
}

#[test]
fn a_check_that_fails_and_then_succeeds_has_succeeded() {
    let failed = ended(1, "Error", "no route");
    for (message, phase) in [("", Phase::Running), ("up to date", Phase::Completed)] {
        let mut world = World::new();
        check(&mut world, ContainerState::Running { since: at(0) }, None);
        assert_eq!(world.comes_to(3), (Phase::Preflight, Asking::Runs.to_string()));
        check(&mut world, failed.clone(), None);
        assert_eq!(world.comes_to(13), (Phase::Preflight, AGAIN.into()));
        check(&mut world, waits("CrashLoopBackOff"), Some(&failed));
        assert_eq!(world.comes_to(14), (Phase::Preflight, AGAIN.into()));
        check(&mut world, ContainerState::Running { since: at(0) }, Some(&failed));
        let (_, made) = world.plan(16);
        assert_eq!((world.message(), made.len()), (AGAIN.into(), 0), "it is the same pod");
        world.ends(0, "Completed", message);
        assert_eq!(world.comes_to(17).0, phase, "{}", world.message());
    }
}

/// The kubelet ends its tries with the pod's own deadline, long after ours.
#[test]
fn its_tries_have_one_deadline_together_and_the_last_one_is_told() {
    let failed = ended(1, "Error", "no route");
    for states in [
        [waits("CrashLoopBackOff"), waits("CrashLoopBackOff")],
        [ContainerState::Running { since: at(0) }, failed.clone()],
    ] {
        let mut world = World::new();
        check(&mut world, ContainerState::Running { since: at(0) }, None);
        world.plan(5);
        let [before, after] = states;
        check(&mut world, before, Some(&failed));
        assert_eq!(world.comes_to(124), (Phase::Preflight, AGAIN.into()));
        check(&mut world, after, Some(&failed));
        let told = "Preflight failed: no try succeeded in 120 s, the last one ended with exit code 1: no route (see docs: preflight-failed)";
        assert_eq!(world.comes_to(125), (Phase::Failed, told.into()));
    }
}

#[test]
fn a_run_before_this_one_passes_nothing() {
    let good = ended(0, "Completed", "");
    for state in [LOOPS, waits("CrashLoopBackOff"), ContainerState::Running { since: at(0) }] {
        let mut world = World::new();
        check(&mut world, state.clone(), Some(&good));
        assert_eq!(world.comes_to(5).0, Phase::Preflight, "{state:?}");
        assert_eq!(world.status("op").boot, None, "{state:?}");
    }
}

#[test]
fn a_command_that_is_not_there_fails_at_once() {
    for (code, message) in [(127, "sh: chek: not found"), (126, "sh: /check: Permission denied")] {
        let told = format!("Preflight failed: exit code {code}: {message} (see docs: preflight-failed)");
        let failed = ended(code, "Error", message);
        let mut world = World::new();
        check(&mut world, failed.clone(), None);
        assert_eq!(world.comes_to(1), (Phase::Failed, told.clone()));
        let mut world = World::new();
        check(&mut world, waits("CrashLoopBackOff"), Some(&failed));
        assert_eq!(world.comes_to(1), (Phase::Failed, told));
    }
    // What no shell has looked for.
    for message in ["exec: \"chek\": executable file not found in $PATH", "exec format error"] {
        for (state, last) in [
            (ended(128, "StartError", message), None),
            (waits("CrashLoopBackOff"), Some(ended(128, "StartError", message))),
        ] {
            let mut world = World::new();
            check(&mut world, state, last.as_ref());
            let (phase, said) = world.comes_to(1);
            assert!(phase == Phase::Failed && said.contains(message), "{said}");
        }
    }
}

/// No run of it has begun, so its own deadline has not, either.
#[test]
fn one_that_the_runtime_cannot_start_is_waited_for_as_long_as_an_image() {
    let trouble = ended(128, "StartError", "failed to create containerd task: context deadline exceeded");
    let mut world = World::new();
    check(&mut world, trouble.clone(), None);
    let (phase, said) = world.comes_to(1);
    assert!(phase == Phase::Preflight && said.starts_with("Preflight cannot start yet: "), "{said}");
    check(&mut world, waits("CrashLoopBackOff"), Some(&trouble));
    assert_eq!(world.comes_to(60).0, Phase::Preflight);
    let (phase, said) = world.comes_to(61);
    assert!(phase == Phase::Failed && said.contains("no start in 60 s"), "{said}");
}

/// It refuses each time what it refuses once. A container of somebody else may keep its pod going.
#[test]
fn our_own_check_is_asked_once() {
    let mut world = World::new();
    let preflight = json!({"phase": "Preflight", "newBoot": "b1", "lastUpdated": at(0).to_string()});
    world.op("op", 0, json!({"upgrade": {"active": true}, "preflight": null, "command": null}), preflight);
    check(&mut world, ended(70, "Error", "the image's release is older"), None);
    let told = "Preflight failed: exit code 70: the image's release is older (see docs: preflight-failed)";
    assert_eq!(world.comes_to(1), (Phase::Failed, told.into()));
}

/// The kubelet would let our look at the operation's image look again, ahead of the user's check.
#[test]
fn an_image_that_cannot_run_the_command_fails_its_node_ahead_of_the_check() {
    let refused = ended(42, "Error", "the image can't run the command: /bin/tool is not there");
    let why = "Preflight failed: exit code 42: the image can't run the command: /bin/tool is not there";
    let cases = [
        (refused.clone(), None, Phase::Failed),
        (waits("CrashLoopBackOff"), Some(&refused), Phase::Failed),
        (ended(0, "Completed", ""), None, Phase::Preflight),
        (ended(137, "Error", ""), None, Phase::Preflight),
    ];
    for (state, last, phase) in cases {
        let mut world = World::new();
        let last = last.and_then(|last| ContainerView::new("", last.clone()).ended());
        let look = ContainerView { last, ..ContainerView::new(container::IMAGE_CHECK, state) };
        world.pod(|pod| {
            let check = ContainerView::new(container::PREFLIGHT, waits("PodInitializing"));
            pod.containers = vec![look, check];
        });
        let (found, message) = world.comes_to(3);
        assert_eq!((found, message.contains(why)), (phase, phase == Phase::Failed), "{message}");
    }
}

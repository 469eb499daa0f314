//! What becomes of a node whose waiter is lost, or reads another boot id.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    api::{
        names::container,
        nodeop::{Phase, Step},
    },
    plan::{
        model::{
            effects::Plan,
            snapshot::{ContainerState, ContainerView, Owner, PodPhase},
        },
        node::fixtures::{World, at},
    },
};

/// The drain began at second 0 and takes hours. A waiter has 40 s to get ready.
fn draining() -> World {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
    let drain = serde_json::from_value(json!({"enabled": true})).unwrap();
    World::new(entry).op(|op| op.spec.drain_options = Some(drain))
}

fn standing(world: &World) -> PodView {
    PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(attempt(world)) }
}

fn attempt(world: &World) -> i32 {
    world.entry().attempt.unwrap_or(0)
}

fn makes_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::CreateWaiter { .. }))
}

/// Plans each second, without any pod, until the next waiter is made.
fn until_made(world: &mut World, from: i64) -> Option<i64> {
    (from..from + 150)
        .find(|second| world.entry().phase == Phase::Running && makes_waiter(&world.pass(*second)))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// Deleted by force, or so that no pass saw it end.
    Vanished,
    Deleted,
    /// It was deleted while nobody led who had seen it stand.
    Unseen,
}

/// Stands, and is lost.
fn lose(world: &mut World, loss: Loss, second: i64) {
    let pod = standing(world);
    world.put(pod.clone());
    if loss != Loss::Unseen {
        world.pass(second);
    }
    if loss == Loss::Deleted {
        world.put(PodView { deleting: true, ..pod });
        world.pass(second + 1);
    }
    if loss == Loss::Unseen {
        world.snapshot.leading_since = at(second + 1);
    }
    world.snapshot.pods = <_>::default();
}

#[test]
fn whoever_follows_a_waiter_that_stood_has_the_whole_time_each_time() {
    for loss in [Loss::Vanished, Loss::Deleted, Loss::Unseen] {
        let mut world = draining();
        for round in 1..4 {
            let second = 10_000 * round;
            lose(&mut world, loss, second);
            let made =
                until_made(&mut world, second + 2).unwrap_or_else(|| panic!("{loss:?}: {:?}", world.entry()));
            assert!(made <= second + 20, "{loss:?}: {made}");
            world.pass(second + 40);
            assert_eq!(world.entry().phase, Phase::Running, "{loss:?}, round {round}: {:?}", world.entry());
        }
        let counted = if loss == Loss::Unseen { 0 } else { 3 };
        assert_eq!(attempt(&world), counted, "{loss:?}");
        // The last one never stands: it has the time once.
        world.pass(30_000 + 43);
        let said = world.entry().message.unwrap();
        assert!(said.contains("did not get ready in 40 s"), "{loss:?}: {said}");
    }
}

#[test]
fn a_waiter_that_is_killed_again_and_again_ends_with_a_reason() {
    let mut world = draining().op(|op| op.spec.pull_timeout_seconds = Some(600));
    let mut second = 0;
    for _ in 0..=MAX_ATTEMPTS {
        lose(&mut world, Loss::Vanished, second);
        second = until_made(&mut world, second + 1).unwrap_or(second) + 1;
    }
    let entry = world.entry();
    let said = entry.message.unwrap();
    assert_eq!(entry.phase, Phase::Failed, "{said}");
    assert!(
        said.contains("the reboot waiter was lost 50 times") && said.contains("somebody deleted it"),
        "{said}"
    );
}

/// Claimed for a drain and a reboot, and nothing is done to it yet.
fn claimed() -> World {
    let entry = json!({"phase": "Running", "step": "Claim", "nodeUid": "n1", "lastUpdated": Time(at(0))});
    let drain = serde_json::from_value(json!({"enabled": true})).unwrap();
    World::new(entry).op(|op| op.spec.drain_options = Some(drain))
}

/// What keeps it from this node keeps it from others, and each would be emptied for nothing.
#[test]
fn a_node_is_drained_once_its_waiter_stands_or_has_no_room_before_that() {
    let step_with = |pod: &dyn Fn(&World) -> Option<PodView>| {
        let mut world = claimed();
        if let Some(pod) = pod(&world) {
            world.put(pod);
        }
        let out = world.pass(1);
        (world.entry().step, makes_waiter(&out), world)
    };
    let waits = |reason: &str| ContainerState::Waiting { reason: reason.into(), message: String::new() };
    let with = |world: &World, state| PodView {
        containers: vec![ContainerView::new(container::REBOOT, state)],
        ..world.waiter(0)
    };
    let (step, made, _) = step_with(&|_| None);
    assert_eq!((step, made), (Some(Step::Claim), true));
    let (step, _, mut world) = step_with(&|world| Some(with(world, waits("CrashLoopBackOff"))));
    assert_eq!(step, Some(Step::Claim));
    world.pass(39);
    assert!(world.entry().message.unwrap().contains("the reboot waiter: CrashLoopBackOff"));
    world.pass(41);
    world.snapshot.pods = <_>::default();
    world.pass(42);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.job_name), (Phase::Failed, None), "nothing has begun");
    assert!(entry.message.unwrap().contains("the reboot waiter did not get ready in 40 s"));

    let (step, ..) = step_with(&|world| Some(standing(world)));
    assert_eq!(step, Some(Step::Drain));
    let refused = |world: &World| {
        let pod = with(world, waits("ContainerCreating"));
        Some(PodView { phase: PodPhase::Failed, reason: "OutOfpods".into(), ..pod })
    };
    assert_eq!(step_with(&refused).0, Some(Step::Drain), "the drain makes room for it");
    for drains in [false, true] {
        let mut world = claimed().op(|op| {
            op.spec.drain_options = op.spec.drain_options.take().filter(|_| drains);
            op.spec.reboot_on_success = (!drains).then_some(true);
        });
        world.pass(1);
        assert_eq!(world.entry().step, Some(Step::Drain), "nobody is evicted, or nothing reboots it");
    }
}

/// The API server may not have let us claim the node for hours.
#[test]
fn the_time_of_a_waiter_counts_from_when_its_node_is_claimed() {
    let mut world = claimed().node(|node| (node.claimed_by, node.cordoned_by) = (None, None));
    world.pass(10_000);
    let me = world.me.clone();
    let mut world = world.node(|node| node.claimed_by = Some(me));
    for (second, phase) in [(10_001, Phase::Running), (10_040, Phase::Running), (10_041, Phase::Failed)] {
        world.pass(second);
        assert_eq!(world.entry().phase, phase, "{second}: {:?}", world.entry());
    }
}

/// It would be waited for in vain until its node is given up, drained.
#[test]
fn a_waiter_whose_annotation_somebody_took_off_is_replaced() {
    let mut world = draining();
    world.put(standing(&world));
    world.pass(1);
    world.put(world.waiter(0));
    let out = world.pass(10_000);
    let ends = |action: &Action| matches!(action, Action::DeletePod { .. });
    assert!(out.actions.iter().any(ends), "{:?}", out.actions);
    // One that has not said anything yet is waited for.
    let mut world = draining();
    world.put(world.waiter(0));
    assert!(!world.pass(1).actions.iter().any(ends));
}

/// A cache that goes on from elsewhere may miss a pod for a moment.
#[test]
fn a_waiter_that_is_not_shown_is_no_loss_before_it_is_read() {
    let mut world = draining();
    let pod = standing(&world);
    world.put(pod);
    world.pass(1);
    world.snapshot.pods = <_>::default();
    world.snapshot.answers.clear();
    world.snapshot.now = at(2);
    let out = crate::plan::plan(&world.snapshot);
    let asks = out.questions.iter().any(|question| matches!(question, Question::Pod(_)));
    assert!(asks && !makes_waiter(&out), "{out:?}");
}

/// In LXC and systemd-nspawn the kubelet reads a boot id that was made up for its container, and pods the
/// kernel's: a node would seem to have rebooted as soon as its operation has succeeded.
#[test]
fn a_node_whose_pods_read_another_boot_id_than_its_kubelet_is_failed_untouched() {
    for (waits_in, is_failed) in [(None, false), (Some("b1"), false), (Some("k"), true)] {
        let mut world = draining();
        world.put(PodView { waits_in: waits_in.map(Into::into), ..standing(&world) });
        for second in [1, 120] {
            world.pass(second);
            let said = world.entry().message.unwrap();
            assert_eq!(said.contains("it reads another boot id"), is_failed, "{waits_in:?}: {said}");
        }
        world.pass(121);
        let given_up = world.entry().given_up;
        assert_eq!(given_up.is_some(), is_failed, "{waits_in:?}: {given_up:?}");
        assert!(given_up.is_none_or(|why| why.contains("read different boot ids")));
        world.snapshot.pods = <_>::default();
        world.pass(122);
        let entry = world.entry();
        assert_eq!(entry.phase == Phase::Failed, is_failed, "{waits_in:?}: {entry:?}");
        assert_eq!(entry.job_name, None, "nothing has begun");
    }
    // Nor is its Job made once the drain is over.
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": crate::plan::fixtures::job_name(),
            "lastUpdated": Time(at(0))});
    let mut world = World::new(entry);
    world.put(PodView { waits_in: Some("k".into()), ..standing(&world) });
    let out = world.pass(1);
    assert!(
        !out.actions.iter().any(|action| matches!(action, Action::CreateJob { .. })),
        "{:?}",
        out.actions
    );
}

/// The node has booted by itself, and its network is not there for minutes: no container starts.
#[test]
fn a_waiter_whose_container_has_not_started_again_reads_no_other_boot_id() {
    let mut world = draining();
    let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let containers = vec![ContainerView::new(container::REBOOT, state)];
    world.put(PodView { waits_in: Some("before".into()), containers, ..standing(&world) });
    world.pass(1);
    world.pass(1_000);
    assert_eq!((world.entry().phase, world.entry().given_up), (Phase::Running, None));
}

/// The node has booted by itself, and its kubelet tells so before it has started the waiter again.
#[test]
fn a_waiter_that_has_not_said_yet_in_which_boot_it_is_is_waited_for() {
    let mut world = draining();
    let waits_in = |boot: &str, world: &World| PodView { waits_in: Some(boot.into()), ..standing(world) };
    world.put(waits_in("b1", &world));
    world.pass(1);
    let mut world = world.node(|node| node.boot_id = "b2".into());
    world.pass(1_000);
    world.pass(1_119);
    world.put(waits_in("b2", &world));
    for second in [1_120, 2_000] {
        world.pass(second);
        assert_eq!(world.entry().given_up, None, "{:?}", world.entry());
    }
    // Once more, and it is away for long.
    let mut world = world.node(|node| (node.boot_id, node.ready) = ("b3".into(), false));
    for second in [3_000, 4_000] {
        world.pass(second);
        assert_eq!(world.entry().given_up, None, "{:?}", world.entry());
    }
    // Its network was not there, so its waiter has not been started again yet.
    let mut world = world.node(|node| node.ready = true);
    for second in [4_001, 4_120] {
        world.pass(second);
        assert_eq!(world.entry().given_up, None, "{:?}", world.entry());
    }
    world.pass(4_122);
    assert!(world.entry().given_up.is_some(), "{:?}", world.entry());
}

/// Whoever has the credentials of another node, and has seen the NodeOp's UID there, can compute the names.
#[test]
fn however_many_names_of_waiters_somebody_takes_the_node_does_not_fail() {
    const TAKEN: i32 = 60;
    let mut world = draining();
    for attempt in 0..TAKEN {
        let theirs = PodView { owner: Owner::default(), role: Role::Stranger, ..world.waiter(attempt) };
        world.put(theirs);
    }
    let made = (1..100).find(|second| makes_waiter(&world.pass(*second)));
    assert_eq!((made, attempt(&world)), (Some(i64::from(TAKEN) + 1), TAKEN), "{:?}", world.entry());
    world.pass(95);
    assert_eq!(world.entry().phase, Phase::Running, "it has the whole time: {:?}", world.entry());
}

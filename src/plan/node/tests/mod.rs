//! A table for each step that has no test of its own beside it: what stands in the status, what the cluster
//! shows, and what the step comes to.

mod remade;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    context::Decision,
    enforce::claim_and_cordon,
    fixtures::{World, at, line},
    step,
};
use crate::{
    api::{
        names,
        nodeop::{NodeOp, Phase},
    },
    plan::{
        fixtures,
        model::{
            effects::Planned,
            id::OpRef,
            question::{Answer, Question},
            snapshot::{ContainerState, ContainerView, Ended, JobState, NodeView, PodView, facts_of},
        },
        quorum,
    },
};

/// A node reboots, its Node object is deleted meanwhile, and then its NodeOp is.
fn deleted_while_the_node_is_away(control_plane: bool) -> World {
    let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju",
        "rebootStatus": "pending", "boot": "b1", "machineId": "m1", "controlPlane": control_plane,
        "deadline": Time(at(1800)), "lastUpdated": Time(at(0))});
    let mut world = World::new(entry);
    let mut op = NodeOp::clone(&world.snapshot.ops[&world.me.key()]);
    op.metadata.deletion_timestamp = Some(Time(at(10)));
    world.snapshot.ops.insert(world.me.key(), Arc::new(op));
    world.snapshot.nodes.clear();
    world
}

#[test]
fn a_control_plane_machine_that_is_away_counts_also_if_its_nodeop_is_deleted() {
    let mut world = deleted_while_the_node_is_away(true);
    world.pass(20);
    assert_eq!(world.entry().phase, Phase::Running);
    assert_eq!(quorum::control_planes_under_way(&world.snapshot).len(), 1);
    world.pass(1801);
    assert_eq!(world.entry().phase, Phase::Failed, "it is not awaited for ever");
    let mut worker = deleted_while_the_node_is_away(false);
    worker.pass(20);
    assert_eq!(worker.entry().phase, Phase::Failed, "a worker is not awaited");
}

/// Begun at 0 s.
fn draining() -> World {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
    World::new(entry).now(1)
}

/// The operation succeeded in boot b1, and the node has to reboot by 1800 s.
fn rebooting() -> World {
    let job = fixtures::job_name();
    let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": job, "jobUid": "ju",
        "rebootStatus": "pending", "boot": "b1", "machineId": "m1", "deadline": Time(at(1800)), "lastUpdated": Time(at(0))});
    let mut world = World::new(entry).now(1);
    let view = fixtures::job(&job, JobState::Complete);
    world.snapshot.jobs.insert(("ns".into(), job), Arc::new(view));
    world
}

/// Booted as b2, and what it runs is to be known by 300 s.
fn verifying() -> World {
    let entry = json!({"phase": "Running", "step": "Verify", "nodeUid": "n1", "jobName": "j", "jobUid": "ju",
        "rebootStatus": "completed", "newBoot": "b2", "since": Time(at(0)), "target": "v2", "deadline": Time(at(300)),
        "lastUpdated": Time(at(0))});
    let world = World::new(entry).now(1).node(|node| node.boot_id = "b2".into());
    world.op(|op| {
        op.spec.upgrade = serde_json::from_value(json!({"upgradeActive": true})).unwrap();
        op.spec.verify_timeout_seconds = Some(300);
    })
}

/// The node says its facts of this boot: a release, and from which image it booted.
fn says(node: &mut NodeView, boot: &str, release: &str, state: &str) {
    node.labels.insert(names::MANAGED.into(), "true".into());
    for (key, value) in [
        (names::FACTS_OF, facts_of(boot, |label| (label == names::MANAGED).then_some("true"))),
        (names::RELEASE, release.into()),
        (names::BOOT_STATE_OF, state.into()),
    ] {
        node.annotations.insert(key.into(), value);
    }
}

/// A waiter that stands, and says this of the reboot.
fn waiter(world: &World, state: &str) -> PodView {
    let runs = ContainerView::new("reboot", ContainerState::Running { since: at(0) });
    PodView { reboot_state: Some(state.into()), containers: vec![runs], ..world.waiter(0) }
}

/// Its container has ended once since it saw that the node started anew in the same boot.
fn same_boot(mut waiter: PodView) -> PodView {
    let code = crate::contract::EXIT_SAME_BOOT.into();
    waiter.containers[0].last = Some(Ended { code, reason: "Error".into(), message: String::new() });
    waiter
}

/// A waiter that stood, and whose container cannot run any more.
fn broken(world: &World) -> PodView {
    let state =
        ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 5m0s".into() };
    PodView { containers: vec![ContainerView::new("reboot", state)], ..waiter(world, "waiting") }
}

fn me() -> Question {
    Question::Op(draining().me)
}

fn rival() -> OpRef {
    OpRef { namespace: "ns".into(), name: "other".into(), uid: "v".into() }
}

/// What the step comes to at which the node is.
fn came(world: &World) -> String {
    world.decide(|ctx| line(&step(ctx)))
}

/// What came of a row, if it does not begin as expected.
fn unexpected(came: &str, expected: &str) -> Option<String> {
    // What ends in a bar is the whole line.
    (!format!("{came}|").starts_with(expected)).then(|| format!("{came} (not {expected})"))
}

/// A Node made anew is the machine's if its id says so, and an id says nothing that others have, too.
#[test]
fn a_machine_that_shares_its_id_with_others_is_not_told_from_them() {
    for (shared, came_back) in [(false, true), (true, false)] {
        let mut world = rebooting().node(|node| node.uid = "another".into());
        let clone = NodeView { name: "n2".into(), machine_id: Some("m1".into()), ..NodeView::default() };
        if shared {
            world.snapshot.nodes.insert("n2".into(), Arc::new(clone));
        }
        world.pass(20);
        let entry = world.entry();
        let known = entry.phase == Phase::Running && entry.node_uid.as_deref() == Some("another");
        assert_eq!(known, came_back, "{shared}: {entry:?}");
    }
}

#[test]
fn claim_and_cordon_are_enforced() {
    let enforced = |world: &World| {
        world.decide(|ctx| {
            let Planned { value, effects } = claim_and_cordon(ctx);
            let nothing = Planned { value: None::<Decision>, effects: effects.clone() };
            value.map_or_else(
                || {
                    format!(
                        "in place{}",
                        nothing
                            .effects
                            .questions
                            .iter()
                            .map(|asked| format!("; asks {asked}"))
                            .collect::<String>()
                    )
                },
                |value| line(&Planned { value, effects }),
            )
        })
    };
    let uncordoned = || draining().node(|node| node.unschedulable = false);
    let unclaimed = || draining().node(|node| node.claimed_by = None);
    let mut other = Vec::new();
    for (world, expected) in [
        (draining(), "in place"),
        (uncordoned(), "waits: cordoning the node again, which somebody uncordoned; patching node n1"),
        (unclaimed(), "waits: checking that the node is still to be claimed; asks reading NodeOp ns/op"),
        (unclaimed().answer(me(), Answer::Found), "waits: claiming the node; patching node n1"),
        (
            draining().node(|node| node.claimed_by = Some(rival())),
            "gives up: the node was taken over by NodeOp ns/other",
        ),
        // Who cordoned it decides whether it is uncordoned in the end.
        (draining().node(|node| node.cordoned_by = Some(rival())), "in place; asks reading NodeOp ns/other"),
        (draining().node(|node| node.cordoned_by = None), "in place"),
    ] {
        other.extend(unexpected(&enforced(&world), expected));
    }
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn preparing_a_node() {
    let deleted = || draining().op(|op| op.metadata.deletion_timestamp = Some(Time(at(0))));
    let mut other = Vec::new();
    for (world, expected) in [
        (deleted(), "gives up: the NodeOp was deleted before the operation started"),
        (draining(), "waits: waiting for the reboot waiter: it starts; creating reboot waiter"),
        (draining().pod(|world| world.waiter(0)), "waits: waiting for the reboot waiter: it starts"),
        (draining().pod(|world| waiter(world, "waiting")), "records Running/Job"),
        (
            draining().pod(broken).now(10_000),
            "waits: waiting for the reboot waiter: CrashLoopBackOff: back-off 5m0s; deleting pod ns/op-n1-",
        ),
        (draining().op(|op| op.spec.reboot_on_success = Some(false)), "records Running/Job"),
        (
            draining().node(|node| node.unschedulable = false).pod(|world| waiter(world, "waiting")),
            "waits: cordoning the node again, which somebody uncordoned; patching node n1",
        ),
    ] {
        other.extend(unexpected(&came(&world), expected));
    }
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn rebooting_a_node() {
    let down = || rebooting().pod(|world| waiter(world, "rebooting")).node(|node| node.ready = false);
    let back = || rebooting().node(|node| node.boot_id = "b2".into());
    let live = || Question::Node("n1".into());
    let mut other = Vec::new();
    for (world, expected) in [
        (rebooting().pod(|world| waiter(world, "waiting")), "waits: Job completed, the node reboots"),
        (down(), "waits: Job completed, the node reboots"),
        (
            rebooting(),
            "waits: Job completed, the reboot is due; its waiter was lost: it starts; creating reboot waiter",
        ),
        (
            rebooting().pod(|world| waiter(world, "waiting")).now(1800),
            "gives up: RebootTimeout: the operation succeeded, but 1800 s later the node is still in the boot",
        ),
        (
            down().now(1800),
            "gives up: RebootTimeout: the operation succeeded, but 1800 s later the node went away",
        ),
        (back(), "waits: the node rebooted; reading its boot id once more; asks reading node n1"),
        (back().answer(live(), Answer::Found), "records Completed: Job and reboot completed successfully"),
        (back().node(|node| node.ready = false).answer(live(), Answer::Found), "records Running/Reboot"),
        (
            back().node(|node| node.ready = false).answer(live(), Answer::Found).now(1800),
            "records Failed: RebootTimeout: the node rebooted, but is not Ready",
        ),
        (
            back().answer(live(), Answer::Found).op(|op| op.spec.min_ready_seconds = Some(10)),
            "records Running/Reboot",
        ),
        (
            rebooting()
                .pod(|world| waiter(world, "waiting"))
                .op(|op| op.metadata.deletion_timestamp = Some(Time(at(0)))),
            "gives up: the NodeOp was deleted before the reboot",
        ),
        // It has started anew, and its boot id stays (kind, k3d).
        (
            rebooting().pod(|world| same_boot(waiter(world, "rebooting"))),
            "gives up: the node started anew when it was asked to reboot, and its boot id is what it was",
        ),
        // What somebody uncordoned in the new boot is for others to cordon.
        (
            back().node(|node| node.unschedulable = false).answer(live(), Answer::Found),
            "records Completed: Job and reboot completed successfully; patching node n1",
        ),
        (
            back()
                .node(|node| (node.unschedulable, node.cordoned_by) = (false, Some(rival())))
                .answer(live(), Answer::Found),
            "records Completed: Job and reboot completed successfully|",
        ),
        // It was asked to reboot already: nobody can call that off.
        (
            rebooting()
                .pod(|world| waiter(world, "rebooting"))
                .op(|op| op.metadata.deletion_timestamp = Some(Time(at(0)))),
            "waits: Job completed, the node reboots",
        ),
    ] {
        other.extend(unexpected(&came(&world), expected));
    }
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn verifying_a_node() {
    let mut other = Vec::new();
    for (world, expected) in [
        (verifying(), "waits: the node rebooted; reading what it runs"),
        (
            verifying().node(|node| says(node, "b1", "v1", "active")),
            "waits: the node rebooted; reading what it runs",
        ),
        (
            verifying().node(|node| says(node, "b2", "v2", "active")),
            "records Completed: Job and reboot completed successfully: upgraded to v2",
        ),
        (
            verifying().node(|node| says(node, "b2", "v1", "active")),
            "records Failed: the node runs v1 after the upgrade to v2",
        ),
        (
            verifying().node(|node| says(node, "b2", "v2", "passive")),
            "records Failed: the node booted its passive image",
        ),
        (
            verifying().now(300),
            "records Completed: Job and reboot completed successfully; not verified: what the node runs could not be read in 300 s",
        ),
        // The new image did not stay up: nothing that was read before, or not, makes that a success.
        (
            verifying().node(|node| (says(node, "b2", "v2", "active"), node.ready = false).1),
            "records Running/Verify",
        ),
        // It has the time for it that a reboot has: it may have rebooted once more.
        (verifying().node(|node| node.ready = false).now(1799), "records Running/Verify"),
        (
            verifying().node(|node| (says(node, "b2", "v2", "active"), node.ready = false).1).now(1800),
            "records Failed: RebootTimeout: the node rebooted, and has not stayed Ready in the 1800 s since",
        ),
        (
            verifying().node(|node| node.ready = false).now(1800),
            "records Failed: RebootTimeout: the node rebooted, and has not stayed Ready in the 1800 s since",
        ),
        (
            verifying().node(|node| (says(node, "b2", "v1", "active"), node.ready = false).1),
            "records Failed: the node runs v1 after the upgrade to v2",
        ),
        (
            verifying().node(|node| node.unschedulable = false),
            "waits: the node rebooted; reading what it runs; patching node n1",
        ),
        // It booted once more, by itself: what it runs now is what counts.
        (verifying().node(|node| node.boot_id = "b3".into()), "records Running/Verify"),
        (verifying().node(|node| node.boot_id = "b3".into()).now(1799), "records Running/Verify"),
        (
            verifying().node(|node| node.boot_id = "b3".into()).now(1800),
            "records Failed: RebootTimeout: the node rebooted, and has not stayed Ready in the 1800 s since",
        ),
    ] {
        other.extend(unexpected(&came(&world), expected));
    }
    assert!(other.is_empty(), "{other:#?}");
}

/// The image crashes soon after its node is Ready, and firmware and fallback take longer than the proof may.
#[test]
fn a_node_that_was_away_has_the_whole_time_to_say_what_it_runs() {
    for boot in ["b2", "b3"] {
        for second in [295, 370, 1799] {
            let mut world = verifying();
            world.pass(10);
            world = world.node(|node| node.ready = false);
            world.pass(20);
            world = world.node(|node| (node.ready, node.boot_id) = (true, boot.into()));
            world.pass(second);
            world.pass(second + 299);
            let entry = world.entry();
            assert_eq!(entry.phase, Phase::Running, "{boot} at {second}: {entry:?}");
            let mut fell_back = verifying();
            fell_back.snapshot = world.snapshot.clone();
            fell_back = fell_back.node(|node| says(node, boot, "v1", "passive"));
            fell_back.pass(second + 299);
            let entry = fell_back.entry();
            assert_eq!(entry.phase, Phase::Failed, "{boot} at {second}: {entry:?}");
            world.pass(second + 300);
            let entry = world.entry();
            let said = entry.message.unwrap();
            assert!(said.contains("could not be read in 300 s"), "{boot} at {second}: {said}");
        }
    }
}

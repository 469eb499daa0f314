//! What an earlier leader wrote down by a clock that was an hour ahead of ours, or an hour behind it:
//! whatever counts from there counts from when we began to lead, at the earliest, and comes to its end.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    api::{
        names::{self, container},
        nodeop::{NodeStatus, Phase, Step},
    },
    plan::{
        attempts, fixtures,
        model::{
            action::Action,
            effects::Plan,
            snapshot::{
                ContainerState, ContainerView, JobState, JobView, NodeView, Owner, PodPhase, PodView, Role,
            },
        },
        node::fixtures::{World, at},
    },
};

/// By how many seconds the earlier leader's clock was wrong.
const SKEWS: [i64; 3] = [-3600, 0, 3600];

/// A node of which the earlier leader wrote this at second 0, by its clock. We lead since second 1.
fn led(skew: i64, entry: impl Fn(Value) -> Value) -> World {
    let mut world = World::new(entry(json!(Time(at(skew)))));
    world.snapshot.leading_since = at(1);
    world
}

/// The world comes to its end at this second by our clock, and not before.
fn ends_at(
    what: &str,
    second: i64,
    world: impl Fn(i64) -> World,
    is_over: impl Fn(&Plan, &NodeStatus) -> bool,
) {
    for skew in SKEWS {
        let mut world = world(skew);
        for now in [2, second - 1, second] {
            let out = world.pass(now);
            let (over, entry) = (is_over(&out, &world.entry()), world.entry());
            assert_eq!(
                over,
                now == second,
                "{what}, by a clock that is {skew} s wrong, at second {now}: {entry:?}"
            );
        }
    }
}

#[test]
fn a_waiter_is_made_again_after_its_pause() {
    let world = |skew| {
        led(skew, |then| {
            json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b1",
                "rebootStatus": "pending", "deadline": Time(at(skew + 900)), "attempt": 1, "since": then, "lastUpdated": then})
        })
    };
    let makes = |action: &Action| matches!(action, Action::CreateWaiter { .. });
    ends_at("pause", 6, world, |out, _| out.actions.iter().any(makes));
}

#[test]
fn a_node_is_ready_for_long_enough() {
    let world = |skew| {
        let world = led(skew, |then| {
            json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b0",
                "newBoot": "b1", "rebootStatus": "pending", "deadline": Time(at(skew + 900)), "since": then, "lastUpdated": then})
        });
        world.op(|op| op.spec.min_ready_seconds = Some(30))
    };
    ends_at("minReadySeconds", 31, world, |_, entry| entry.phase == Phase::Completed);
}

#[test]
fn a_node_whose_object_was_deleted_is_awaited_until_its_reboot_must_be_over() {
    let world = |skew| {
        let mut world = led(skew, |then| {
            json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b1",
                "machineId": "m1", "rebootStatus": "pending", "deadline": Time(at(skew + 300)), "lastUpdated": then})
        })
        .op(|op| op.spec.reboot_timeout_seconds = Some(300));
        world.snapshot.nodes.remove("n1");
        world
    };
    ends_at("a deleted Node", 301, world, |_, entry| entry.phase == Phase::Failed);
}

#[test]
fn a_node_that_is_not_ready_is_failed_after_its_time() {
    let world = |skew| {
        led(skew, |then| json!({"phase": "Pending", "since": then}))
            .op(|op| op.spec.not_ready_timeout_seconds = Some(60))
            .node(|node| {
                (node.ready, node.claimed_by, node.cordoned_by, node.unschedulable) =
                    (false, None, None, false)
            })
    };
    ends_at("notReadyTimeoutSeconds", 61, world, |_, entry| entry.phase == Phase::Failed);
}

#[test]
fn a_preflight_whose_pods_are_lost_is_tried_for_as_long_as_a_pull_may_take() {
    for skew in SKEWS {
        let preflight = serde_json::from_value(json!({"command": ["check"]})).ok();
        let mut world = led(
            skew,
            |then| json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b1", "lastUpdated": then}),
        )
        .op(|op| op.spec.preflight = preflight)
        .node(|node| (node.claimed_by, node.cordoned_by, node.unschedulable) = (None, None, false));
        // The time of a pull is 40 s here.
        for (now, phase) in [(2, Phase::Preflight), (30, Phase::Preflight), (42, Phase::Failed)] {
            let name = crate::plan::model::object_name::object(
                ("op", "u"),
                "n1",
                "preflight",
                world.entry().attempt.unwrap_or(0),
            );
            world.put(PodView {
                name: name.clone(),
                phase: PodPhase::Failed,
                reason: "OutOfcpu: Pod was rejected".into(),
                ..fixtures::pod(Role::Preflight, &name, Owner::nodeop("op", "u"), "n1")
            });
            world.pass(now);
            assert_eq!(world.entry().phase, phase, "{skew}, {now}: {:?}", world.entry());
        }
    }
}

#[test]
fn a_success_is_recorded_for_as_long_as_a_pod_may_take_to_start() {
    for skew in SKEWS {
        // The time of a pull is 40 s here.
        for (now, records) in [(2, true), (40, true), (41, false)] {
            let mut world = led(skew, |then| {
                json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b1",
                    "succeededIn": "b1", "blockedSince": then, "since": then, "lastUpdated": then, "rebootStatus": "pending"})
            });
            let state =
                ContainerState::Ended { code: 128, reason: "StartError".into(), message: String::new() };
            world.put(PodView {
                phase: PodPhase::Failed,
                containers: vec![ContainerView::new(container::SENTINEL, state)],
                ..fixtures::pod(Role::Job, "ju", Owner::job(&fixtures::job_name(), "ju"), "n1")
            });
            let failed = JobState::Failed("PodFailurePolicy".into());
            let job = JobView { uid: "ju".into(), failed: 1, ..fixtures::job(&fixtures::job_name(), failed) };
            world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
            world.pass(now);
            let entry = world.entry();
            let again = entry.step == Some(Step::Job) && entry.job_uid.is_none() && entry.given_up.is_none();
            assert_eq!(again && entry.phase == Phase::Running, records, "{skew}, {now}: {entry:?}");
        }
    }
}

/// Done by the earlier leader; n2 is still to be taken, and somebody holds it.
fn done(skew: i64) -> World {
    let mut world = led(skew, |then| {
        json!({"phase": "Completed", "jobName": fixtures::job_name(), "rebootStatus": "completed", "lastUpdated": then})
    })
    .op(|op| op.status.as_mut().unwrap().node_statuses.insert("n2", NodeStatus::default()))
    .node(|node| {
        (node.claimed_by, node.cordoned_by, node.unschedulable) = (None, None, false);
        let attempt = format!("other/1@{:.0}", at(skew));
        node.annotations.insert(names::ATTEMPTED.into(), attempt);
    });
    let mut held = NodeView { name: "n2".into(), uid: "n2".into(), ready: true, ..NodeView::default() };
    held.labels.insert(names::HOLD.into(), "true".into());
    world.snapshot.nodes.insert("n2".into(), Arc::new(held));
    world
}

/// An image that comes up and does not stay so would take one node after the other.
#[test]
fn a_node_that_goes_down_soon_after_it_was_done_is_known_to() {
    for skew in SKEWS {
        for (second, soon) in [(61, true), (600, true), (601, false)] {
            let mut world = done(skew);
            world.pass(2);
            world = world.node(|node| (node.ready, node.ready_changed) = (false, Some(at(second))));
            world.pass(second);
            let entry = world.entry();
            assert_eq!(entry.holds_slot == Some(true), soon, "{skew}, {second}: {entry:?}");
            let node = &world.snapshot.nodes["n1"];
            assert_eq!(attempts::went_down(&world.snapshot, node), soon, "{skew}, {second}");
        }
    }
}

/// Whoever has not seen it go down knows no more of it than was written down, by two clocks that may be
/// apart.
#[test]
fn a_node_that_was_down_when_we_came_went_down_when_others_say() {
    for (second, soon) in [(-601, false), (-600, true), (0, true), (1199, true), (1200, false)] {
        let mut world = done(0).now(700);
        world.snapshot.leading_since = at(690);
        world = world.node(|node| (node.ready, node.ready_changed) = (false, Some(at(second))));
        for now in [700, 701] {
            world.pass(now);
            let node = &world.snapshot.nodes["n1"];
            assert_eq!(attempts::went_down(&world.snapshot, node), soon, "{second}");
            assert_eq!(world.entry().holds_slot == Some(true), soon, "{second}");
        }
    }
}

//! Tests of the one attempt that a node has in a run, whoever is killed, and whatever a cache shows.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::{super::*, rounds::joined, world::World};
use crate::{
    api::{
        names,
        nodeop::{NodeOpStatus, Phase},
        run::Run,
    },
    plan::{
        attempts, fixtures,
        model::{
            action::Action,
            id::OpRef,
            object_name,
            question::{Answer, Question},
            snapshot::{Owner, PodPhase, PodView, Role},
        },
    },
};

/// Whether it is said that n3 failed.
fn fails(action: &Action) -> bool {
    let failed = |status: &NodeOpStatus| {
        status.node_statuses.get("n3").is_some_and(|entry| entry.phase == Phase::Failed)
    };
    matches!(action, Action::PatchStatus { status, .. } if failed(status))
}

/// Whether a node is told with what it is tried.
fn marks(action: &Action) -> bool {
    matches!(action, Action::PatchNode { change, .. } if change.annotations.contains_key(names::ATTEMPTED))
}

/// A cache that is late shows a node as it was before it was tried.
#[test]
fn a_node_that_was_tried_has_no_second_attempt_in_a_later_round() {
    let mut world = joined(json!({}));
    world.until_stable();
    world.tried("n3");
    let round = world.current();
    let node = world.snapshot.nodes["n3"].clone();
    assert!(attempts::is_spent(&round, &node));
    world.until_stable();
    let status = world.current().status.unwrap();
    let entry = &status.node_statuses["n3"];
    assert_eq!(entry.phase, Phase::Completed);
    assert!(entry.message.as_ref().unwrap().contains("has had its attempt"), "{entry:?}");

    // About to be claimed when its record is seen: it goes back, and is not claimed.
    let mut world = joined(json!({}));
    world.until_stable();
    world.says(json!({"n3": {"phase": "Running", "step": "Claim", "nodeUid": "n3", "boot": "b"}}));
    let mut late = world.snapshot.clone();
    world.tried("n3");
    let claims =
        |action: &Action| matches!(action, Action::PatchNode { change, .. } if change.claimed_by.is_some());
    for _ in 0..3 {
        assert!(!world.step().actions.iter().any(claims));
    }
    // Of one that has not been tried, the claim says so.
    late.answers.insert(Question::Op(OpRef::of(&world.current())), Answer::Found);
    let out = crate::plan::plan(&late);
    let Some(Action::PatchNode { change, .. }) = out.actions.iter().find(|action| claims(action)) else {
        panic!("{:?}", out.actions)
    };
    assert!(
        change.annotations[names::ATTEMPTED].as_ref().is_some_and(|text| text.starts_with("u/")),
        "{change:?}"
    );
}

/// Or the next round would take it, and fail, and so on.
#[test]
fn a_node_that_fails_untouched_says_that_it_was_tried_before_it_is_said_to_have_failed() {
    let mut world = joined(json!({"notReadyTimeoutSeconds": 60}));
    world.until_stable();
    world.node("n3", |node| node.ready = false);
    world.step();
    world.snapshot.now += SignedDuration::from_mins(2);
    let out = world.planned();
    assert_eq!(out.actions.iter().filter(|action| marks(action)).count(), 1, "{:?}", out.actions);
    assert!(!out.actions.iter().any(fails), "not before that stands on the node");
    world.until_stable();
    assert_eq!(world.current().status.unwrap().node_statuses["n3"].phase, Phase::Failed);
    let made = world.names();
    world.node("n3", |node| node.ready = true);
    world.until_stable();
    assert_eq!(world.names(), made, "and there it stays");
}

/// The preflight of n3 in the present round comes to nothing for as long as it may: its pods are evicted.
fn loses_its_preflights(world: &mut World) {
    let op = OpRef::of(&world.current());
    let since = (world.snapshot.now - SignedDuration::from_hours(1)).to_string();
    world.says(
        json!({"n3": {"phase": "Preflight", "step": "Preflight", "newBoot": "b", "lastUpdated": since}}),
    );
    let name = object_name::object((&op.name, &op.uid), "n3", "preflight", 0);
    let pod = PodView {
        phase: PodPhase::Failed,
        reason: "Evicted: The node was low on resource: ephemeral-storage.".into(),
        ..fixtures::pod(Role::Preflight, &name, Owner::nodeop(&op.name, &op.uid), "n3")
    };
    world.snapshot.pods.insert((op.namespace.clone(), name), Arc::new(pod));
    for _ in 0..10 {
        let asked = world.planned().questions.into_iter();
        let asked = asked.filter(|question| matches!(question, Question::Node(_) | Question::AllNodeOps));
        world.snapshot.answers.extend(asked.map(|question| (question, Answer::Found)));
        world.step();
    }
    assert_eq!(world.current().status.unwrap().node_statuses["n3"].phase, Phase::Failed);
}

/// A registry that is down for a night, or a token that has expired, says nothing about the image.
#[test]
fn a_node_whose_preflight_came_to_nothing_is_tried_again_an_hour_later_and_not_before() {
    let mut world = joined(json!({}));
    for round in 1..4 {
        world.until_stable();
        assert_eq!(Run::of(&world.current().metadata).map(|run| run.round), Some(round));
        let failed = world.snapshot.now;
        loses_its_preflights(&mut world);
        let until = failed + SignedDuration::from_hours(1);
        world.until_stable();
        let said = "; mode Continuous: n3 waits: a preflight that could not run is tried again an hour later";
        assert!(world.status().message.unwrap().ends_with(said), "{:?}", world.status().message);
        assert_eq!(world.planned().wake_at, Some(until));
        world.snapshot.now = until - SignedDuration::from_secs(1);
        world.step();
        assert_eq!(Run::of(&world.current().metadata).map(|run| run.round), Some(round));
        world.snapshot.now = until;
    }
    // A clock that was wrong by years has written that: nobody waits for years.
    let record = world.snapshot.nodes["n3"].annotations[names::ATTEMPTED].clone();
    let years = format!("{}~2100-01-01T00:00:00Z", record.split_once('~').unwrap().0);
    world.node("n3", |node| drop(node.annotations.insert(names::ATTEMPTED.into(), years)));
    world.until_stable();
    assert_eq!(Run::of(&world.current().metadata).map(|run| run.round), Some(4));
    // What it comes to in the end is its attempt.
    world.tried("n3");
    world.says(json!({"n3": {"phase": "Failed", "jobName": "j", "target": "v1", "message": "it fell back"}}));
    let made = world.names();
    world.snapshot.now += SignedDuration::from_hours(10);
    world.until_stable();
    assert_eq!(world.names(), made);
}

#[test]
fn whoever_is_killed_between_two_writes_makes_no_round_twice() {
    let mut world = joined(json!({}));
    world.step();
    let announced = world.status().node_op_name.unwrap();
    world.makes_and_is_killed();
    let round = world.snapshot.ops[&("ns".into(), announced.clone())].clone();
    assert!(!world.may_start(&round), "its UID is not recorded");
    // Meanwhile another node joins, and something is steered.
    world.joins("n4");
    world.runs("n4", "v0");
    world.edit(json!({"historyLimit": 5}));
    world.until_stable();
    assert_eq!((world.names().len(), world.status().node_op_name), (2, Some(announced)));
    assert_eq!(world.current().spec.node_names, ["n3"]);
    let generation = Run::of(&world.current().metadata).map(|run| run.generation);
    assert_eq!(generation, world.status().round.map(|round| round.generation), "that of its run");

    // The status is lost: the latest round is found.
    let (before, mut bare) = (world.status(), world.upgrade().clone());
    bare.status = None;
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(bare));
    world.until_stable();
    let after = world.status();
    assert_eq!((&after.node_op_uid, &after.run), (&before.node_op_uid, &before.run));
    assert_eq!(
        after.round.map(|round| (round.generation, round.number)),
        before.round.map(|round| (round.generation, round.number))
    );
}

/// n3 is in progress in a round, as the entry says; its Node was deleted meanwhile.
fn away(entry: serde_json::Value) -> World {
    let mut world = joined(json!({}));
    world.until_stable();
    world.tried("n3");
    world.says(json!({"n3": entry}));
    world.snapshot.nodes.remove("n3");
    world
}

/// The machine joins again under a Node that knows of nothing.
fn joins_again(world: &mut World, machine: &str) {
    world.joins("n3");
    world.runs("n3", "v0");
    world.node("n3", |node| (node.uid, node.machine_id) = ("again".into(), Some(machine.into())));
}

/// Else an image that falls back, on a machine whose Node a cloud controller deletes while it is away, would
/// be tried again and again.
#[test]
fn a_node_that_was_made_anew_while_it_was_tried_says_so_before_its_end_is_said() {
    let mut world = away(
        json!({"phase": "Running", "step": "Verify", "nodeUid": "n3", "machineId": "m3", "newBoot": "b",
        "deadline": "2100-01-01T00:00:00Z", "jobName": "j", "jobUid": "ju", "target": "v1", "rebootStatus": "completed"}),
    );
    joins_again(&mut world, "m3");
    world.snapshot.answers.insert(Question::Node("n3".into()), Answer::Found);
    let mut marked = false;
    for _ in 0..10 {
        let out = world.step();
        assert!(marked || !out.actions.iter().any(fails), "{:?}", out.actions);
        marked |= out.actions.iter().any(marks);
    }
    assert!(marked);
    let entry = world.current().status.unwrap().node_statuses["n3"].clone();
    assert_eq!(entry.phase, Phase::Failed, "{entry:?}");
    let made = world.names();
    world.node("n3", |node| node.claimed_by = None);
    world.until_stable();
    assert_eq!(world.names(), made, "it is not taken again");
}

#[test]
fn a_machine_whose_node_was_still_away_when_it_was_given_up_is_not_tried_again_and_another_one_is() {
    // Machines that were made from one disk image may have one id, which tells of none of them then.
    for (machine, other, is_tried) in [("m3", "", true), ("m4", "", false), ("m3", "m3", false)] {
        let mut world = away(
            json!({"phase": "Running", "step": "Reboot", "nodeUid": "n3", "machineId": "m3", "boot": "b0",
            "deadline": "1970-01-01T00:00:00Z", "jobName": "j", "jobUid": "ju", "target": "v1", "rebootStatus": "pending"}),
        );
        let absent = [Question::Node("n3".into()), Question::Job(("ns".into(), "j".into()))];
        world.snapshot.answers.extend(absent.map(|question| (question, Answer::NotFound)));
        for _ in 0..10 {
            world.answer_pods();
            world.step();
        }
        let entry = world.current().status.unwrap().node_statuses["n3"].clone();
        assert_eq!((entry.phase, entry.machine_id.as_deref()), (Phase::Failed, Some("m3")), "{entry:?}");
        world.node("n1", |node| node.machine_id = Some(other.into()));
        // Another round comes in between: it is remembered over that.
        world.joins("n4");
        world.runs("n4", "v0");
        world.until_stable();
        assert_eq!(world.current().spec.node_names, ["n4"]);
        world.tried("n4");
        world.runs("n4", "v1");
        world.says(json!({"n4": {"phase": "Completed", "jobName": "j", "target": "v1", "verified": true}}));
        world.until_stable();
        joins_again(&mut world, machine);
        world.until_stable();
        let taken = world.current().spec.node_names == ["n3"];
        let said = world.status().message.unwrap_or_default();
        assert_eq!(taken, !is_tried, "{machine}: {said}");
        assert!(!is_tried || said.contains("its Node was deleted while this run had its attempt"), "{said}");
        // An edit is another run.
        world.edit(json!({"image": "kairos:v2"}));
        world.until_stable();
        assert!(world.status().round.is_none_or(|round| round.lost.is_empty()));
    }
}

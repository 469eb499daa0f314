//! Tests of what a `Continuous` upgrade does once its run is over.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use serde_json::{Value, json};

use super::{super::*, world::World};
use crate::{
    api::{
        names,
        run::Run,
        upgrade::{RunResult, UpgradePhase},
    },
    plan::model::{action::Action, id::OpRef, kept_cordon::KeptCordon, snapshot::NodeView},
};

pub fn done() -> Value {
    json!({"phase": "Completed", "jobName": "j", "target": "v1", "verified": true, "rebootStatus": "completed"})
}

pub fn skipped() -> Value {
    json!({"phase": "Completed", "target": "v1", "message": "Skipped by preflight: node is already at v1"})
}

pub fn failed() -> Value {
    json!({"phase": "Failed", "jobName": "j", "target": "v1", "message": "it fell back"})
}

/// The first run is over: n1 was upgraded to v1, n2 ran it already.
pub fn over(change: Value) -> World {
    let mut world = World::new();
    world.edit(json!({"mode": "Continuous"}));
    world.edit(change);
    world.until_stable();
    world.tried("n1");
    ["n1", "n2"].iter().for_each(|node| world.runs(node, "v1"));
    world.says(json!({"n1": done(), "n2": skipped()}));
    world.until_stable();
    world
}

pub fn joined(change: Value) -> World {
    let mut world = over(change);
    world.joins("n3");
    world.runs("n3", "v0");
    world
}

pub fn ready(world: &World) -> (String, String) {
    world.condition("Ready").map(|(status, reason, _)| (status, reason)).unwrap()
}

pub fn message(world: &World) -> String {
    world.status().message.unwrap_or_default()
}

/// Nothing is written for as long as nothing changes.
pub fn is_still(world: &mut World) {
    world.snapshot.now += SignedDuration::from_mins(5);
    let out = world.planned();
    let is_ours =
        |action: &&Action| !matches!(action, Action::CreateFactsPod { .. } | Action::PatchNode { .. });
    let written: Vec<&Action> = out.actions.iter().filter(is_ours).collect();
    assert!(written.is_empty(), "{written:?}");
}

#[test]
fn a_node_that_joins_is_tried_once_and_again_only_after_an_edit() {
    let mut world = joined(json!({}));
    assert_eq!(ready(&world), ("True".into(), "Completed".into()));
    world.step();
    let status = world.status();
    assert_eq!(status.phase, Some(UpgradePhase::Initializing));
    assert_eq!(ready(&world), ("False".into(), "Initializing".into()));
    assert_eq!(world.condition("Reconciling").unwrap().0, "True", "in the first write");
    assert_eq!(
        (status.release.as_deref(), world.names().len()),
        (Some("v1"), 1),
        "announced before it is made"
    );
    assert_eq!((status.history[0].result, status.history[0].node_op.as_str()), (RunResult::Completed, "up"));
    world.until_stable();
    let round = world.current();
    let decided = Run::of(&round.metadata).unwrap();
    assert_eq!((decided.round, round.spec.node_names.clone()), (1, vec!["n3".to_owned()]));
    assert!(world.may_start(&round) && world.superseded(&round).is_none());
    let targets: Vec<String> = round.status.unwrap().node_statuses.keys().cloned().collect();
    assert_eq!(targets, ["n3"]);

    // It is tried, and falls back.
    world.tried("n3");
    world.says(json!({"n3": failed()}));
    world.until_stable();
    assert_eq!((world.status().phase, world.names().len()), (Some(UpgradePhase::Failed), 2));
    assert!(
        message(&world).contains("n3 runs another release, and had the one attempt"),
        "{}",
        message(&world)
    );
    is_still(&mut world);
    // Another one joins: the one that failed has no part in that round, and Ready is not said while it is so.
    world.joins("n4");
    world.runs("n4", "v0");
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n4"]);
    assert_eq!(Run::of(&world.current().metadata).map(|run| run.round), Some(2));
    world.tried("n4");
    world.runs("n4", "v1");
    world.says(json!({"n4": done()}));
    world.until_stable();
    assert_eq!(ready(&world), ("False".into(), "Drifted".into()));
    assert!(
        message(&world).contains("node n3 runs v0, not v1, and this run has had its attempt"),
        "{}",
        message(&world)
    );
    let results: Vec<RunResult> = world.status().history.iter().map(|run| run.result).collect();
    assert_eq!(results, [RunResult::Failed, RunResult::Completed]);
    is_still(&mut world);

    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    let status = world.status();
    assert_eq!((status.round.clone().unwrap().number, status.release), (0, None));
    assert_eq!(status.history[0].result, RunResult::Completed, "the round had done what it was to do");
    assert!(world.current().spec.node_names.is_empty(), "all nodes are asked for");
    assert_eq!(world.current().status.unwrap().node_statuses.len(), 4);
}

#[test]
fn an_upgrade_that_is_not_continuous_is_over() {
    let mut world = joined(json!({"mode": "Once"}));
    is_still(&mut world);
    assert_eq!(world.names(), ["up"]);
    world.edit(json!({"mode": "Continuous"}));
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n3"], "what was tried before is known");
    world.edit(json!({"mode": "Once"}));
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n3"], "a round that has begun goes to its end");
}

#[test]
fn a_node_that_drifts_is_taken_if_it_was_not_tried_and_told_of_if_it_was() {
    let mut world = over(json!({}));
    world.runs("n2", "v0");
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n2"], "it needed nothing so far");

    let mut world = over(json!({}));
    world.runs("n1", "v0");
    world.until_stable();
    assert_eq!((world.names().len(), ready(&world)), (1, ("False".into(), "Drifted".into())));
    assert_eq!(world.condition("Stalled").unwrap().0, "True");
    let said = message(&world);
    assert!(said.contains("n1 runs v0") && said.contains("change the upgrade"), "{said}");
    is_still(&mut world);
    // What it runs now is not known: nothing is said of it, and nothing is taken back.
    world.runs("n1", "v1");
    world.until_stable();
    assert_eq!(ready(&world), ("True".into(), "Completed".into()));
    assert_eq!(world.status().phase, Some(UpgradePhase::Completed));
    is_still(&mut world);
}

#[test]
fn while_a_node_must_wait_ready_stays_and_the_message_says_why() {
    let past = json!(Time(World::new().snapshot.now - SignedDuration::from_hours(1)));
    let hold = |world: &mut World| {
        world.node("n3", |node| drop(node.labels.insert(names::HOLD.into(), "true".into())));
    };
    type Change = Box<dyn Fn(&mut World)>;
    let nothing = || -> Change { Box::new(|_| {}) };
    for (spec, change, said) in [
        (json!({"paused": true}), nothing(), "; mode Continuous: n3 waits: paused (spec.paused)"),
        (json!({}), Box::new(hold), "; mode Continuous: n3 waits: held by the label kairos.io/hold"),
        (json!({}), Box::new(|world| world.node("n3", |node| node.ready = false)), "n3 waits: not Ready"),
        (
            json!({}),
            Box::new(|world| {
                world.node("n3", |node| drop(node.annotations.insert(names::ATTEMPTED.into(), "?".into())));
            }),
            "n3 waits: the annotation operator.kairos.io/attempted cannot be read",
        ),
        (
            json!({"concurrency": 1}),
            Box::new(|world| {
                let by = OpRef { namespace: "ns".into(), name: "up".into(), uid: "x".into() };
                world.node("n1", |node| {
                    node.unschedulable = true;
                    node.kept_cordon = Some(KeptCordon { by, deleted: false });
                });
            }),
            "n3 waits: tried by this run, and out of service since: n1",
        ),
    ] {
        let mut world = joined(json!({}));
        change(&mut world);
        world.edit(spec);
        world.until_stable();
        assert!(message(&world).ends_with(said) || message(&world).contains(said), "{}", message(&world));
        let paused = said.contains("paused");
        let current = world.status().counts.unwrap_or_default().current;
        assert_eq!(current, if paused { "(paused)" } else { "" });
        assert_eq!((world.names().len(), ready(&world).0.as_str()), (1, "True"), "{said}");
        is_still(&mut world);
    }
    let mut world = joined(json!({}));
    world.edit(json!({"notAfter": past}));
    world.until_stable();
    assert!(message(&world).contains("n3 waits: its time was over at"), "{}", message(&world));
    assert_eq!(world.names().len(), 1);
    is_still(&mut world);
}

#[test]
fn a_run_that_failed_under_stop_on_failure_or_ended_early_is_followed_by_no_round() {
    let pending = json!({"phase": "Pending"});
    for (stop, nodes, said) in [
        (true, json!({"n1": failed(), "n2": skipped()}), "the last run failed (stopOnFailure)"),
        (true, json!({"n1": failed(), "n2": pending}), "the last run failed (stopOnFailure)"),
        (false, json!({"n1": failed(), "n2": skipped()}), ""),
    ] {
        let mut world = World::new();
        world.edit(json!({"mode": "Continuous", "stopOnFailure": stop}));
        world.until_stable();
        world.tried("n1");
        ["n1", "n2"].iter().for_each(|node| world.runs(node, "v1"));
        world.says(nodes);
        world.joins("n3");
        world.runs("n3", "v0");
        world.until_stable();
        let rounds = world.names().len() - 1;
        assert_eq!(rounds, usize::from(!stop), "{}", message(&world));
        if stop {
            assert!(message(&world).contains(said), "{}", message(&world));
            is_still(&mut world);
        }
    }
}

#[test]
fn nothing_follows_where_the_release_is_not_known() {
    let mut world = World::new();
    world.edit(json!({"mode": "Continuous"}));
    world.until_stable();
    let unknown =
        json!({"phase": "Completed", "jobName": "j", "verified": false, "rebootStatus": "completed"});
    world.says(json!({"n1": unknown, "n2": unknown}));
    world.joins("n3");
    world.runs("n3", "v0");
    world.until_stable();
    assert!(message(&world).contains("which release the image brings is not known"), "{}", message(&world));
    assert_eq!(world.names().len(), 1);
    is_still(&mut world);
}

/// Of several nodes that fail as many are out of service as may be in progress, and no more.
#[test]
fn rounds_keep_the_pace() {
    let mut world = joined(json!({"concurrency": 2}));
    world.node("n1", |node| (node.ready, node.boot_id) = (false, "b2".into()));
    world.joins("n4");
    world.runs("n4", "v0");
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n3"], "there is room for one");
}

/// The image comes up, is proved, and does not stay so: nodes that join would follow one after the other.
#[test]
fn no_round_follows_a_node_that_went_down_soon_after_it_was_done() {
    for (after, follows) in [(100, false), (1300, true)] {
        let mut world = joined(json!({"concurrency": 1}));
        let done = world.snapshot.now - SignedDuration::from_secs(2000);
        world.node("n1", |node| {
            let said = node.annotations.get_mut(names::ATTEMPTED).unwrap();
            *said = format!("{said}@{done:.0}");
            node.ready = false;
            node.ready_changed = Some(done + SignedDuration::from_secs(after));
        });
        world.until_stable();
        assert_eq!(world.names().len() > 1, follows, "{}", message(&world));
        let said = message(&world).contains("n3 waits: tried by this run, and out of service since: n1");
        assert_eq!(said, !follows, "{}", message(&world));
    }
    // One report of a kubelet is no recovery: its link may flap.
    let mut world = joined(json!({"concurrency": 1}));
    let done = world.snapshot.now - SignedDuration::from_secs(300);
    world.node("n1", |node| {
        let said = node.annotations.get_mut(names::ATTEMPTED).unwrap();
        *said = format!("{said}@{done:.0}");
        (node.ready, node.ready_changed) = (false, Some(done + SignedDuration::from_secs(100)));
    });
    world.until_stable();
    world.looks();
    world.node("n1", |node| node.ready = true);
    world.looks();
    world.until_stable();
    assert!(message(&world).contains("n3 waits: tried by this run, and out of service since: n1"));
    let wakes = world.planned().wake_at.map(|at| (at - world.snapshot.now).get_seconds());
    assert!(wakes.is_some_and(|seconds| (1..60).contains(&seconds)), "{wakes:?}");
    world.snapshot.now += SignedDuration::from_secs(60);
    world.until_stable();
    assert_eq!(world.current().spec.node_names, ["n3"], "{}", message(&world));
}

/// That it was away for its reboot, and is Ready again since a moment ago, was seen before it was done.
#[test]
fn a_node_that_came_back_from_its_upgrade_just_now_did_not_go_down_after_it() {
    let mut world = joined(json!({"concurrency": 1}));
    world.looks();
    world.node("n1", |node| node.ready = false);
    world.looks();
    world.node("n1", |node| node.ready = true);
    world.snapshot.now += SignedDuration::from_secs(10);
    world.looks();
    let done = world.snapshot.now + SignedDuration::from_secs(1);
    world.node("n1", |node| {
        let said = node.annotations.get_mut(names::ATTEMPTED).unwrap();
        *said = format!("{said}@{done:.0}");
    });
    // Before it has been Ready for a minute.
    world.snapshot.now = done;
    (0..4).for_each(|_| drop(world.step()));
    assert_eq!(world.current().spec.node_names, ["n3"], "{}", message(&world));
}

#[test]
fn what_a_round_cannot_take_it_lets_go() {
    let hold = |is: bool| {
        move |node: &mut NodeView| {
            drop(node.labels.insert(names::HOLD.into(), is.to_string()));
        }
    };
    let mut world = joined(json!({}));
    world.until_stable();
    world.node("n3", hold(true));
    world.until_stable();
    assert_eq!(ready(&world).0, "True", "{}", message(&world));
    assert!(message(&world).contains("n3 waits: held"), "{}", message(&world));
    world.node("n3", hold(false));
    world.until_stable();
    assert_eq!(Run::of(&world.current().metadata).map(|run| run.round), Some(2));
    // Its Node is deleted, and another one joins.
    world.node("n3", |node| node.ready = false);
    world.joins("n4");
    world.runs("n4", "v0");
    for _ in 0..4 {
        world.until_stable();
        world.snapshot.now += SignedDuration::from_mins(2);
    }
    assert_eq!(world.current().spec.node_names, ["n4"]);
    // The selector does not match it any more.
    let mut world = joined(json!({"nodeSelector": {"matchLabels": {"kairos.io/managed": "true"}}}));
    world.step();
    world.makes_and_is_killed();
    world.node("n3", |node| drop(node.labels.insert(names::MANAGED.into(), "false".into())));
    world.until_stable();
    assert_eq!(ready(&world).0, "True", "{}", message(&world));
    is_still(&mut world);
}

#[test]
fn a_node_that_a_newer_upgrade_has_to_do_with_is_left_to_it() {
    let mut world = joined(json!({}));
    let mut newer = world.upgrade().clone();
    (newer.metadata.name, newer.metadata.uid) = (Some("newer".into()), Some("newer".into()));
    newer.metadata.creation_timestamp = Some(Time(world.snapshot.now));
    (newer.spec.image, newer.spec.paused, newer.spec.mode) = ("kairos:v9".into(), Some(true), None);
    newer.status = None;
    world.snapshot.upgrades.insert(("ns".into(), "newer".into()), Arc::new(newer));
    world.until_stable();
    assert!(!world.current().spec.node_names.contains(&"n3".to_owned()));
    let said = "n3 waits: NodeOpUpgrade ns/newer, which is newer, comes first";
    assert!(message(&world).contains(said), "{}", message(&world));
    assert_eq!(ready(&world).0, "True");
    // It has upgraded n1, which this one had upgraded before.
    world.runs("n1", "v9");
    world.until_stable();
    let said = "node n1 runs v9, not v1: NodeOpUpgrade ns/newer, which is newer, decides";
    assert!(message(&world).contains(said), "{}", message(&world));
    assert_eq!(ready(&world), ("False".into(), "Drifted".into()));
}

//! What blocks a drain, and what comes to the node while it lasts.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    api::nodeop::{DrainOptions, Step},
    contract::reboot_state,
    plan::{
        model::{
            effects::Plan,
            id::OpRef,
            question::Question,
            snapshot::{Eviction, Owner, PodView},
        },
        node::fixtures::{World, at},
        plan,
    },
};

/// Since when the drain is blocked after a plan of a leader that came at second 90 and tried this on the
/// pod.
fn blocked_since(tried: Option<(bool, bool)>) -> Option<Time> {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "lastUpdated": Time(at(0)),
        "drainStartedAt": Time(at(0)), "blockedSince": Time(at(10))});
    let drain = DrainOptions { enabled: Some(true), force: Some(true), ..DrainOptions::default() };
    let mut world = World::new(entry).op(|op| op.spec.drain_options = Some(drain));
    world.snapshot.leading_since = at(90);
    let pod = NodePod {
        uid: "db".into(),
        controller: Some(Owner { kind: "ReplicaSet".into(), ..Owner::default() }),
        ..NodePod::default()
    };
    world.snapshot.drained_pods = [("n1".to_owned(), vec![Arc::new(pod)].into())].into();
    let refusal = Refusal { since: at(95), message: "no".into(), retry_after: None, permanent: false };
    let eviction = tried.map(|(under_way, refused)| Eviction {
        at: at(95),
        under_way,
        refusal: refused.then_some(refusal),
    });
    let of_node = eviction.map(|eviction| ("db".to_owned(), eviction)).into_iter().collect();
    world.snapshot.evictions = [("n1".to_owned(), Arc::new(of_node))].into();
    world.pass(96);
    world.entry().blocked_since
}

#[test]
fn since_when_a_drain_is_blocked_stands_until_a_new_leader_has_tried_itself() {
    for tried in [None, Some((true, false)), Some((true, true)), Some((false, true))] {
        assert_eq!(blocked_since(tried), Some(Time(at(10))), "{tried:?}");
    }
    assert_eq!(blocked_since(Some((false, false))), None, "its own try was not refused");
}

#[test]
fn no_server_keeps_a_pod_from_being_tried_for_longer_than_a_minute() {
    let pod = NodePod { uid: "db".into(), ..NodePod::default() };
    let refusal =
        |retry_after, permanent| Refusal { since: at(0), message: "no".into(), retry_after, permanent };
    let after = |asked, permanent| pause(&pod, &refusal(asked, permanent)).as_secs();
    assert_eq!([after(None, false), after(Some(10), false), after(Some(86_400), false)], [5, 10, 60]);
    assert_eq!(after(None, true), 60);
}

/// A node that is being drained for an operation with a reboot, and has no pods; its waiter stands, or not
/// yet.
fn drained(options: DrainOptions, waits: bool) -> World {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "lastUpdated": Time(at(0)),
        "drainStartedAt": Time(at(0)), "detachingSince": Time(at(0))});
    let options = DrainOptions { enabled: Some(true), ..options };
    let mut world = World::new(entry).op(|op| op.spec.drain_options = Some(options));
    world.snapshot.leading_since = at(-10);
    lives(&mut world, vec![]);
    if waits {
        stands(&mut world);
    }
    world
}

fn stands(world: &mut World) {
    world.put(PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) });
}

fn lives(world: &mut World, pods: Vec<NodePod>) {
    world.snapshot.drained_pods =
        [("n1".to_owned(), Arc::new(pods.into_iter().map(Arc::new).collect()))].into();
}

fn web(uid: &str) -> NodePod {
    let controller = Some(Owner { kind: "StatefulSet".into(), uid: "web".into(), ..Owner::default() });
    NodePod { namespace: "ns".into(), name: uid.into(), uid: uid.into(), controller, ..NodePod::default() }
}

fn evicted(out: &Plan) -> Vec<&str> {
    let pods = out.actions.iter().filter_map(|action| match action {
        Action::Evict { pod, .. } => Some(pod.name.as_str()),
        _ => None,
    });
    pods.collect()
}

/// What is said of pods that stay, when the operation is next.
fn said(out: &Plan) -> Option<String> {
    let notices = out.actions.iter().find_map(|action| match action {
        Action::PatchStatus { notices, .. } => Some(notices),
        _ => None,
    });
    notices?.iter().find(|notice| notice.reason == "PodsLeft").map(|notice| notice.message.clone())
}

/// The scheduler had chosen the node before the cordon, and binds the pod when its volume is there.
#[test]
fn a_pod_that_is_bound_after_the_first_list_goes_like_those_before_it() {
    let mut world = drained(DrainOptions::default(), false);
    world.pass(1);
    lives(&mut world, vec![web("late")]);
    assert_eq!(evicted(&world.pass(2)), ["late"]);
    assert_eq!(world.entry().detaching_since, None, "its volume has the whole time to be detached");

    stands(&mut world);
    world.pass(3);
    assert_eq!(world.entry().step, Some(Step::Drain), "it is waited for");
    lives(&mut world, vec![]);
    world.pass(4);
    assert_eq!(world.entry().step, Some(Step::Job));
}

/// Its volume took longer than the drain.
#[test]
fn a_pod_that_is_bound_while_the_operation_runs_is_evicted_and_holds_nothing_up() {
    let mut world = drained(DrainOptions::default(), true);
    world.pass(1);
    assert_eq!(world.entry().step, Some(Step::Job));
    let out = world.pass(2);
    assert!(out.watched_nodes.contains("n1"), "its pods are watched on");
    let tolerant = NodePod { tolerates_cordon: true, ..web("tolerant") };
    lives(&mut world, vec![web("late"), tolerant, NodePod { controller: None, ..web("bare") }]);
    let out = world.pass(3);
    assert_eq!(evicted(&out), ["late"]);
    let makes = |action: &Action| matches!(action, Action::CreateJob { .. });
    assert!(out.actions.iter().any(makes), "{:?}", out.actions);

    let mut open = world.node(|node| node.unschedulable = false);
    assert!(evicted(&open.pass(4)).is_empty(), "it would come back");

    // A new leader's first list has it, and the operation's own pods.
    let mut other = open.node(|node| node.unschedulable = true);
    let uid = other.entry().job_uid.unwrap_or_else(|| "job".into());
    let own = [Owner::nodeop("op", "u"), Owner::job(&other.entry().job_name.unwrap(), &uid)];
    let own = own.map(|owner| NodePod { controller: Some(owner), ..web("own") });
    let there = [web("late"), NodePod { tolerates_cordon: true, ..web("tolerant") }];
    lives(&mut other, there.into_iter().chain(own).collect());
    other.snapshot.sightings = <_>::default();
    assert_eq!(evicted(&other.pass(5)), ["late"], "the drain was over: whatever has to go came late");
}

/// Where there is no reboot, the node is let go and the pod may stay; where there is one, an eviction comes
/// too late.
#[test]
fn what_came_late_is_no_longer_evicted_once_the_job_is_over() {
    let mut world = drained(DrainOptions::default(), true);
    world.pass(1);
    world.pass(2);
    lives(&mut world, vec![web("late")]);
    assert_eq!(evicted(&world.pass(3)), ["late"], "while the Job runs");
    let moves_to = |changes: serde_json::Value| {
        let mut status = serde_json::to_value(world.entry()).unwrap();
        status.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let entry = Entry::parse(&serde_json::from_value(status).unwrap()).unwrap();
        let planned =
            world.decide(|ctx| keep_clear(ctx, Planned::from(Decision::Record(Box::new(entry.clone())))));
        let actions = planned.effects.actions;
        let evicts = actions.iter().filter(|action| matches!(action, Action::Evict { .. })).count();
        (evicts, planned.effects.notices.into_iter().map(|notice| notice.message).collect::<Vec<_>>())
    };
    assert_eq!(moves_to(json!({"message": "another one"})), (1, vec![]));
    let (evicts, said) = moves_to(json!({"step": "Reboot", "jobUid": "j", "deadline": Time(at(600))}));
    assert_eq!((evicts, said.len()), (0, 1), "{said:?}");
    assert!(said[0].contains("ns/late: it came while the operation ran"), "{said:?}");
    assert_eq!(moves_to(json!({"phase": "Completed", "step": null})), (0, vec![]));
}

/// Somebody deleted the Node while the Job runs; its kubelet has made it again, and a person has cordoned it.
#[test]
fn a_node_that_is_not_claimed_again_yet_is_cleared_of_no_pod() {
    let mut world = drained(DrainOptions::default(), true);
    world.pass(1);
    world.pass(2);
    lives(&mut world, vec![web("late")]);
    let mut old = Snapshot { answers: <_>::default(), now: at(3), ..world.snapshot.clone() };
    let mut sightings = (*old.sightings).clone();
    sightings.note(&old);
    old.sightings = Arc::new(sightings);
    let out = plan(&old);
    assert!(
        evicted(&out).is_empty() && out.questions.contains(&Question::Node("n1".into())),
        "it may be old"
    );
    let mut again = world.node(|node| (node.claimed_by, node.cordoned_by) = (None, None));
    assert_eq!(evicted(&again.pass(3)), [""; 0]);
    let me = again.me.clone();
    let mut claimed = again.node(|node| node.claimed_by = Some(me));
    assert_eq!(evicted(&claimed.pass(4)), ["late"]);

    // Whose its cordon is has to be read before it is claimed again, and nothing is done to it meanwhile.
    let mut world = drained(DrainOptions::default(), false);
    world.pass(1);
    lives(&mut world, vec![web("first")]);
    let of = OpRef { namespace: "ns".into(), name: "former".into(), uid: "former".into() };
    let again = world.node(|node| (node.claimed_by, node.cordoned_by) = (None, Some(of.clone())));
    let out = plan(&Snapshot { answers: <_>::default(), ..again.snapshot.clone() });
    assert!(out.questions.contains(&Question::Op(of)) && evicted(&out).is_empty(), "{:?}", out.actions);
}

/// The watch of the node's pods ends for many reasons, of which a node that could not be read is one.
#[test]
fn what_came_late_is_known_though_the_watch_of_the_pods_began_anew() {
    let mut world = drained(DrainOptions::default(), true);
    world.pass(1);
    world.pass(2);
    lives(&mut world, vec![web("late")]);
    assert_eq!(evicted(&world.pass(3)), ["late"]);
    world.snapshot.drained_pods.clear();
    world.pass(4);
    lives(&mut world, vec![web("late"), web("meanwhile")]);
    assert_eq!(evicted(&world.pass(5)), ["late", "meanwhile"]);

    let strict = DrainOptions { strict: Some(true), ..DrainOptions::default() };
    let mut world = drained(strict, true);
    lives(&mut world, vec![web("first")]);
    assert_eq!(evicted(&world.pass(1)), ["first"]);
    world.snapshot.drained_pods.clear();
    world.pass(2);
    lives(&mut world, vec![NodePod { controller: None, ..web("bare") }]);
    assert!(said(&world.pass(3)).unwrap().contains("ns/bare: no controller"), "the drain has begun");

    // What an operation knows of a node ends with it.
    let over = world.op(|op| op.status.as_mut().unwrap().node_statuses = <_>::default());
    let mut sightings = (*over.snapshot.sightings).clone();
    assert!(over.snapshot.is_kept_clear("n1"));
    sightings.note(&over.snapshot);
    assert!(!Snapshot { sightings: Arc::new(sightings), ..Snapshot::default() }.is_kept_clear("n1"));
}

#[test]
fn what_comes_back_for_ever_is_left_and_named() {
    let mut world = drained(DrainOptions::default(), false);
    world.pass(1);
    // Each has to go as soon as it is there, and the next one comes at once.
    let mut before = None;
    let tried =
        |uid: &str, second| (uid.to_owned(), Eviction { at: at(second), under_way: false, refusal: None });
    for second in 2..10 {
        let pod = web(&format!("pinned-{second}"));
        lives(&mut world, before.into_iter().chain([pod.clone()]).collect());
        let out = world.pass(second);
        assert_eq!(evicted(&out).is_empty(), second > 6, "{second}");
        let of_node = evicted(&out).iter().map(|uid| tried(uid, second)).collect();
        world.snapshot.evictions = [("n1".to_owned(), Arc::new(of_node))].into();
        before = Some(NodePod { ends_by: Some(at(second)), ..pod });
    }
    let tolerant = NodePod { tolerates_cordon: true, ..web("tolerant") };
    lives(&mut world, vec![web("pinned-9"), tolerant]);
    stands(&mut world);
    let out = world.pass(10);
    assert_eq!((evicted(&out).len(), world.entry().step), (0, Some(Step::Job)));
    let said = said(&out).unwrap();
    assert!(
        said.contains("ns/pinned-9: it came after") && said.contains("ns/tolerant: it came after"),
        "{said}"
    );
}

#[test]
fn a_strict_drain_that_has_begun_is_not_refused_for_what_comes_late() {
    let strict = DrainOptions { strict: Some(true), ..DrainOptions::default() };
    let mut world = drained(strict, true);
    world.snapshot.drained_pods.clear();
    world.pass(1);
    lives(&mut world, vec![web("first")]);
    assert_eq!(evicted(&world.pass(2)), ["first"]);
    lives(&mut world, vec![NodePod { controller: None, ..web("bare") }]);
    let said = said(&world.pass(3)).unwrap();
    assert_eq!(world.entry().step, Some(Step::Job));
    assert!(said.contains("ns/bare: no controller"), "{said}");
}

/// A watch that broke shows what was there, and neither who came since nor who has gone.
#[test]
fn a_drain_is_not_over_in_an_old_view_and_says_so() {
    let told = |world: &World| world.entry().message.unwrap_or_default();
    let strict = |strict: bool| DrainOptions { strict: Some(strict), ..DrainOptions::default() };
    let why = "you may not watch pods";
    for (options, pods) in
        [(strict(false), vec![]), (strict(true), vec![NodePod { controller: None, ..web("bare") }])]
    {
        let mut world = drained(options, true);
        lives(&mut world, pods);
        world.snapshot.unlisted = [("n1".to_owned(), why.to_owned())].into();
        world.pass(1);
        assert_eq!(world.entry().step, Some(Step::Drain));
        assert_eq!(told(&world), format!("draining: the node's pods cannot be listed: {why}"));
        world.snapshot.unlisted.clear();
        world.pass(2);
        let entry = world.entry();
        assert!(entry.step != Some(Step::Drain) || entry.given_up.is_some(), "{entry:?}");
    }
    let mut world = drained(strict(false), true);
    lives(&mut world, vec![web("db")]);
    world.snapshot.unlisted = [("n1".to_owned(), why.to_owned())].into();
    assert_eq!(evicted(&world.pass(1)), ["db"], "it is asked for all the same");
    world.pass(4);
    assert!(
        told(&world).contains(&format!("db; the node's pods cannot be listed: {why}")),
        "{}",
        told(&world)
    );
}

/// Kubernetes computes no budget that selects pods whose controllers have no number of replicas.
#[test]
fn a_budget_that_counts_pods_of_operations_is_told_from_one_without_room() {
    let told = |namespace: &str, message: &str, since: i64| {
        let mut world = drained(DrainOptions::default(), true);
        let pods = ["a", "b"].map(|uid| NodePod { namespace: namespace.into(), ..web(uid) });
        lives(&mut world, pods.to_vec());
        let refusal =
            Refusal { since: at(since), message: message.into(), retry_after: None, permanent: false };
        let eviction = Eviction { at: at(99), under_way: false, refusal: Some(refusal) };
        let of_node = ["a", "b"].map(|uid| (uid.to_owned(), eviction.clone())).into();
        world.snapshot.evictions = [("n1".to_owned(), Arc::new(of_node))].into();
        world.pass(100);
        world.entry().message.unwrap_or_default().matches("have its selector leave them out").count()
    };
    let sync = |kind: &str| {
        format!(
            "The disruption budget all does not allow evicting pods currently because it failed sync: {kind} does not implement the scale subresource"
        )
    };
    assert_eq!(told("other", &sync("nodeops.operator.kairos.io"), 99), 1, "it is said once");
    assert_eq!(told("other", &sync("jobs.batch"), 99), 1);
    assert_eq!(told("ns", &sync("widgets.example.com"), 99), 0);
    let counts = |needs: u32, has: u32| {
        format!("The disruption budget all needs {needs} healthy pods and has {has} currently")
    };
    assert_eq!(told("ns", &counts(1, 3), 50), 1);
    assert_eq!(told("ns", &counts(1, 3), 90), 0, "another eviction has spent it a moment ago");
    assert_eq!(told("ns", &counts(2, 2), 50), 0, "it has no room");
    assert_eq!(told("other", &counts(1, 3), 50), 0, "no pod of ours is in its namespace");
}

//! Who goes first on a node: random sets of operations and upgrades come to an end, the newest upgrade first.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        child, names,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, Round, UpgradePhase},
    },
    plan::{
        attempts,
        fixtures::{self, at},
        model::{
            question::Answer,
            snapshot::{JobState, Owner, facts_of},
        },
        release,
        rollout::{
            context::{Outcome, RolloutContext},
            start, status,
        },
        upgrades::maker,
    },
};

fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), uid: name.into(), ready: true, boot_id: "b".into(), ..NodeView::default() }
}

/// Operations with all nodes before them, on a server where each was created when it says.
#[derive(Default)]
struct World(Snapshot);

impl World {
    fn new() -> Self {
        let mut world = Self(Snapshot { now: at(1000), ..Snapshot::default() });
        for name in ["n1", "n2", "n3"] {
            world.0.nodes.insert(name.into(), Arc::new(node(name)));
        }
        world
    }

    fn put(&mut self, mut op: NodeOp, created: i64) {
        op.metadata.creation_timestamp = Some(Time(at(created)));
        let nodes: serde_json::Map<String, Value> =
            self.0.nodes.keys().map(|name| (name.clone(), json!({"phase": "Pending"}))).collect();
        let status = json!({"phase": "Pending", "observedGeneration": 1, "nodeStatuses": nodes});
        op.status = Some(serde_json::from_value(status).unwrap());
        self.0.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    fn op(&mut self, name: &str, created: i64) {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"command": ["true"], "preflight": {"command": ["check"]}, "concurrency": 1},
        }))
        .unwrap();
        self.put(op, created);
    }

    /// An upgrade, whose NodeOp was made `after` seconds later.
    fn upgrade(&mut self, name: &str, created: i64, after: i64, spec: Value) {
        let mut all = json!({"image": format!("kairos:{name}"), "concurrency": 1});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut upgrade: NodeOpUpgrade = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "creationTimestamp": Time(at(created))},
            "spec": all,
        }))
        .unwrap();
        let mut op = child::first(&upgrade);
        op.metadata.uid = Some(format!("{name}-op"));
        upgrade.status = Some(NodeOpUpgradeStatus {
            phase: Some(UpgradePhase::Pending),
            node_op_name: Some(name.into()),
            node_op_uid: op.metadata.uid.clone(),
            observed_generation: Some(1),
            release: Some(name.into()),
            run: Some(crate::api::run::hash(&op.spec)),
            round: Some(Round { generation: 1, since: Some(Time(at(created + after))), ..Round::default() }),
            ..NodeOpUpgradeStatus::default()
        });
        self.0.upgrades.insert(("ns".into(), name.into()), Arc::new(upgrade));
        self.put(op, created + after);
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut NodeOpUpgrade)) {
        change(Arc::make_mut(self.0.upgrades.get_mut(&("ns".into(), name.into())).unwrap()));
    }

    fn decided(&self, op: &str, node: &str) -> Option<String> {
        let op = Op::of(&self.0.ops[&("ns".into(), op.into())]);
        Others::of(&self.0, &op, maker(&self.0, &op.object).map(AsRef::as_ref))
            .decided(&self.0.nodes[node])
            .map(|(_, name)| name)
    }

    fn waits(&self, op: &str, node: &str) -> Option<String> {
        let op = Op::of(&self.0.ops[&("ns".into(), op.into())]);
        Others::of(&self.0, &op, maker(&self.0, &op.object).map(AsRef::as_ref))
            .precede(&self.0.nodes[node])
            .map(|why| why.to_string())
    }

    /// The operation has done what it was to do on the node.
    fn does(&mut self, name: &str, node: &str) {
        let key = ("ns".to_owned(), name.to_owned());
        let op = Arc::make_mut(self.0.ops.get_mut(&key).unwrap());
        let status = op.status.as_mut().unwrap();
        status.node_statuses.update(node, |entry| entry.phase = Phase::Completed);
        if status.node_statuses.values().all(|entry| entry.phase.is_final()) {
            status.phase = Some(Phase::Completed);
        }
        let (over, op) = (status.phase, op.clone());
        let view = Arc::make_mut(self.0.nodes.get_mut(node).unwrap());
        let mark = attempts::record(&op, view, None);
        view.annotations.extend(mark.and_then(|(key, value)| Some((key, value?))));
        if over == Some(Phase::Completed) && self.0.upgrades.contains_key(&key) {
            self.change(name, |upgrade| {
                upgrade.status.as_mut().unwrap().phase = Some(UpgradePhase::Completed)
            });
        }
    }
}

const WAITS: &str = "waiting: NodeOpUpgrade ns/b, which is newer, has this node";

#[test]
fn the_newest_upgrade_goes_first_and_the_older_one_says_so() {
    for (spec, after) in
        [(json!({}), 0), (json!({}), 100), (json!({"paused": true}), 0), (json!({"mode": "Continuous"}), 0)]
    {
        let mut world = World::new();
        world.upgrade("a", 0, 50, json!({}));
        world.upgrade("b", 1, after, spec.clone());
        assert_eq!(world.waits("a", "n1").as_deref(), Some(WAITS), "{spec}");
        assert_eq!(world.waits("b", "n1"), None, "{spec}");
        world.does("b", "n1");
        assert_eq!(world.decided("a", "n1").as_deref(), Some("b"), "and has decided what it runs");
        assert_eq!(world.decided("a", "n2"), None);
        world.does("b", "n2");
        world.does("b", "n3");
        let (decided, waits) = (world.decided("a", "n1"), world.waits("a", "n1"));
        assert_eq!((decided.as_deref(), waits.is_some()), (Some("b"), true), "also once it is over");
    }
    // Of one second: by name.
    let mut world = World::new();
    world.upgrade("a", 0, 0, json!({}));
    world.upgrade("b", 0, 0, json!({}));
    assert!(world.waits("a", "n1").is_some() && world.waits("b", "n1").is_none());
}

#[test]
fn a_newer_upgrade_keeps_only_its_own_nodes_and_only_while_it_may_take_them() {
    let elsewhere = json!({"nodeSelector": {"matchLabels": {"a": "b"}}});
    let past = json!({"notAfter": Time(at(0))});
    for (spec, chosen) in [(elsewhere, false), (past, true)] {
        let mut world = World::new();
        world.upgrade("a", 0, 0, json!({}));
        world.upgrade("b", 1, 0, spec.clone());
        if !chosen {
            // It has not chosen its nodes yet.
            let op = Arc::make_mut(world.0.ops.get_mut(&("ns".into(), "b".into())).unwrap());
            op.status = None;
        }
        assert_eq!(world.waits("a", "n1"), None, "{spec}");
    }
    let mut world = World::new();
    world.upgrade("a", 0, 0, json!({}));
    world.upgrade("b", 1, 0, json!({}));
    world.0.ops.remove(&("ns".into(), "b".into()));
    assert!(world.waits("a", "n1").is_some(), "its NodeOp is not there yet");
    world.change("b", |upgrade| upgrade.metadata.deletion_timestamp = Some(Time(at(5))));
    assert_eq!(world.waits("a", "n1"), None, "it is being deleted");
}

/// Whoever labels a canary after both were applied: the fleet's upgrade, which is the newer one, is paused.
#[test]
fn a_newer_upgrade_that_is_paused_and_has_chosen_no_node_keeps_those_that_it_selects_now() {
    let mut world = World::new();
    world.upgrade("a", 0, 0, json!({}));
    let selector = json!({"matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]});
    world.upgrade("b", 1, 0, json!({"paused": true, "nodeSelector": selector}));
    let op = Arc::make_mut(world.0.ops.get_mut(&("ns".into(), "b".into())).unwrap());
    op.status = None;
    let op = Op::of(&world.0.ops[&("ns".into(), "b".into())]);
    world.0.answers.insert(Question::OwnedWorkload(op.id.clone()), Answer::Found);
    let releases = release::find_releases(&world.0);
    let started = start(&RolloutContext::new(&world.0, &op, &releases)).value;
    let Outcome::Record(rollout) = started else { panic!("{started:?}") };
    assert_eq!(rollout.nodes.len(), 0);
    let status = status::summarize(&op.object, rollout.nodes, &rollout.progress, world.0.now);
    drop(releases);
    Arc::make_mut(world.0.ops.get_mut(&("ns".into(), "b".into())).unwrap()).status = Some(status);
    assert_eq!(world.waits("a", "n1").as_deref(), Some(WAITS));
    Arc::make_mut(world.0.nodes.get_mut("n1").unwrap()).labels.insert("canary".into(), "true".into());
    assert_eq!(world.waits("a", "n1"), None);
}

#[test]
fn what_a_newer_upgrade_did_before_the_older_one_was_changed_decides_nothing() {
    let mut world = World::new();
    world.upgrade("a", 0, 0, json!({}));
    world.upgrade("b", 1, 0, json!({}));
    ["n1", "n2", "n3"].iter().for_each(|node| world.does("b", node));
    assert!(world.decided("a", "n1").is_some());
    let asked_for = |upgrade: &mut NodeOpUpgrade| {
        let round = Round { generation: 2, since: Some(Time(at(500))), ..Round::default() };
        upgrade.status.as_mut().unwrap().round = Some(round);
    };
    world.change("a", asked_for);
    assert_eq!((world.decided("a", "n1"), world.waits("a", "n1")), (None, None));
}

/// It may leave the node as it is for ever: it was stopped, or cannot tell what the node runs.
#[test]
fn a_continuous_upgrade_whose_run_is_over_is_not_waited_for_on_any_node() {
    for (over, spec, decides) in [
        (false, json!({}), false),
        (true, json!({}), true),
        (true, json!({"paused": true}), true),
        (true, json!({"stopOnFailure": true}), true),
        (true, json!({"nodeSelector": {"matchLabels": {"a": "b"}}}), false),
    ] {
        let mut world = World::new();
        world.upgrade("a", 0, 0, json!({}));
        let mut all = json!({"mode": "Continuous"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        world.upgrade("b", 1, 0, all);
        let phase = if over { UpgradePhase::Failed } else { UpgradePhase::Running };
        world.change("b", |upgrade| upgrade.status.as_mut().unwrap().phase = Some(phase));
        assert_eq!(world.decided("a", "n1").is_some(), decides, "{over} {spec}");
        assert_eq!(world.waits("a", "n1").is_some(), decides || !over, "{over} {spec}");
    }
}

#[test]
fn a_node_that_runs_what_the_newer_one_brings_is_left_as_it_is() {
    let mut world = World::new();
    world.upgrade("a", 0, 0, json!({}));
    world.upgrade("b", 1, 0, json!({}));
    let op = Arc::make_mut(world.0.ops.get_mut(&("ns".into(), "b".into())).unwrap());
    let status = op.status.as_mut().unwrap();
    for name in ["n1", "n2", "n3"] {
        status.node_statuses.update(name, |entry| entry.phase = Phase::Completed);
    }
    status.phase = Some(Phase::Completed);
    world.change("b", |upgrade| upgrade.status.as_mut().unwrap().phase = Some(UpgradePhase::Completed));
    assert_eq!(world.decided("a", "n1"), None);
    let view = Arc::make_mut(world.0.nodes.get_mut("n1").unwrap());
    let says = [(names::FACTS_OF, facts_of("b", |_| None)), (names::RELEASE, "b".to_owned())];
    view.annotations.extend(says.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(world.decided("a", "n1").as_deref(), Some("b"));
}

/// Whoever waits, waits for somebody who does not wait for it: on every node somebody may go on, until
/// nothing is left to do.
#[test]
fn random_sets_of_operations_come_to_an_end() {
    let mut upgraded = 0;
    for seed in 0..400 {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut created = BTreeMap::new();
        for number in 0..rng.i64(2..7) {
            let (name, when) = (format!("o{number}"), rng.i64(0..8));
            if rng.u8(..3) > 0 {
                let mode = if rng.u8(..6) == 0 { "Continuous" } else { "Once" };
                world.upgrade(&name, when, rng.i64(0..8), json!({"mode": mode}));
                created.insert(name, when);
            } else {
                world.op(&name, when);
            }
        }
        for _ in 0..100 {
            let mut open = Vec::new();
            for ((_, name), op) in &world.0.ops {
                for (node, _) in op
                    .status
                    .iter()
                    .flat_map(|status| &status.node_statuses)
                    .filter(|(_, entry)| !entry.phase.is_final())
                {
                    open.push((name.clone(), node.clone()));
                }
            }
            let may: Vec<_> = open
                .iter()
                .filter(|(op, node)| world.decided(op, node).is_some() || world.waits(op, node).is_none())
                .collect();
            let Some((op, node)) = rng.choice(&may).copied().cloned() else {
                assert!(open.is_empty(), "seed {seed}: nobody goes on: {open:?}");
                break;
            };
            if let Some(newer) = world.decided(&op, &node) {
                assert!(created[&newer] >= created[&op], "seed {seed}: {newer} is older than {op}");
            } else if let Some(when) = created.get(&op) {
                // No newer upgrade had the node before it.
                let newer = created.iter().filter(|(other, at)| (*at, *other) > (when, &op));
                for (other, _) in newer {
                    let entry =
                        &world.0.ops[&("ns".into(), other.clone())].status.as_ref().unwrap().node_statuses
                            [&*node];
                    assert!(entry.phase.is_final(), "seed {seed}: {op} goes before {other}");
                }
                upgraded += 1;
            }
            let of_upgrade = created.contains_key(&op) && world.decided(&op, &node).is_none();
            world.does(&op, &node);
            if of_upgrade {
                assert!(
                    Newer::than_maker_of(&world.0, &world.0.ops[&("ns".into(), op.clone())])
                        .on(&world.0.nodes[&node])
                        .is_none()
                );
            }
        }
    }
    assert!(upgraded > 500, "{upgraded}");
}

/// Whoever may create Jobs can name any NodeOp as their owner, one that is not there or one that has no part
/// in the node: nobody waits for that.
#[test]
fn a_job_keeps_a_node_only_if_the_nodeop_that_it_names_works_by_it() {
    let works = |owner: &str, entry: Value, generation: Option<i64>| {
        let mut world = World::new();
        world.op("op", 0);
        world.op("b", 1);
        let b = Arc::make_mut(world.0.ops.get_mut(&("ns".into(), "b".into())).unwrap());
        let status =
            json!({"phase": "Running", "observedGeneration": generation, "nodeStatuses": {"n1": entry}});
        b.status = Some(serde_json::from_value(status).unwrap());
        let job = fixtures::job("j", JobState::Active);
        let job = JobView { owner: Owner::nodeop(owner, owner), ..job };
        works_by(&world.0, &Op::of(&world.0.ops[&("ns".into(), "op".into())]), &job)
    };
    let names_it = json!({"phase": "Failed", "jobName": "j"});
    assert!(!works("ghost", names_it.clone(), Some(1)), "it is not there");
    assert!(!works("op", names_it.clone(), Some(1)), "it is our own");
    assert!(!works("b", json!({"phase": "Pending"}), Some(1)), "it has no part in the node");
    assert!(works("b", names_it, Some(1)));
    assert!(works("b", json!({"phase": "Pending"}), None), "the Go operator's, of which nothing is written");
}

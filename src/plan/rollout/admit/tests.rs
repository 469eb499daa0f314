//! A table of why a node that waits is not taken: what the cluster shows, and the reason that its entry
//! tells.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    api::nodeop::{NodeOp, Phase},
    plan::{
        fixtures::{self, at},
        model::{
            action::Action,
            id::OpRef,
            question::{Answer, Question},
            snapshot::{NodeView, Snapshot},
        },
        plan,
    },
};

/// Nodes c1 and c2 of the control plane and worker w1, and one operation on some of them.
struct World(Snapshot);

impl World {
    /// The operation's spec on top of what all have, and the entries of its nodes.
    fn new(spec: Value, entries: Value) -> Self {
        let mut snapshot = Snapshot { now: at(0), ..Snapshot::default() };
        snapshot.config.control_plane_concurrency = 1;
        for name in ["c1", "c2", "w1"] {
            let mut node = fixtures::node(name);
            if name.starts_with('c') {
                node.labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
            }
            node.etcd_votes = name.starts_with('c').then_some(true);
            snapshot.answers.insert(Question::ControlPlanePods(name.into()), Answer::NotFound);
            snapshot.nodes.insert(name.into(), Arc::new(node));
        }
        let mut world = Self(snapshot);
        world.add("op", spec, entries);
        world
    }

    fn add(&mut self, name: &str, spec: Value, entries: Value) {
        let op = fixtures::nodeop(name, &spec, &entries);
        self.0.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    fn node(mut self, name: &str, change: impl FnOnce(&mut NodeView)) -> Self {
        change(Arc::make_mut(self.0.nodes.get_mut(name).unwrap()));
        self
    }

    fn op(mut self, change: impl FnOnce(&mut NodeOp)) -> Self {
        change(Arc::make_mut(self.0.ops.get_mut(&("ns".into(), "op".into())).unwrap()));
        self
    }

    fn beside(mut self, name: &str, spec: Value, entries: Value) -> Self {
        self.add(name, spec, entries);
        self
    }

    fn answer(mut self, question: Question, answer: Answer) -> Self {
        self.0.answers.insert(question, answer);
        self
    }

    fn unanswered(mut self, question: &Question) -> Self {
        self.0.answers.remove(question);
        self
    }

    fn admits(self, answer: Answer) -> Self {
        let node = self.0.ops[&("ns".into(), "op".into())].status.as_ref().unwrap();
        let node = node.node_statuses.keys().next().unwrap().clone();
        self.answer(Question::Admission(op("op"), node), answer)
    }

    /// Why the node waits; nothing if it does not.
    fn why(&self, node: &str) -> String {
        plan(&self.0).why(&("ns".into(), "op".into()), node).map(ToString::to_string).unwrap_or_default()
    }
}

fn op(name: &str) -> OpRef {
    OpRef { namespace: "ns".into(), name: name.into(), uid: name.into() }
}

/// Its preflight has passed.
fn pending() -> Value {
    json!({"phase": "Pending", "boot": ""})
}

fn running(node: &str) -> Value {
    json!({"phase": "Running", "step": "Drain", "nodeUid": node, "drainStartedAt": Time(at(0))})
}

/// Failed on the node, which is cordoned since.
fn failed() -> Value {
    json!({"phase": "Failed", "jobName": "j", "rebootStatus": "not-requested", "holdsSlot": true})
}

fn worker(spec: Value) -> World {
    World::new(spec, json!({"w1": pending()}))
}

#[test]
fn every_node_that_is_not_taken_has_its_reason() {
    let cordoned = |node: &mut NodeView| node.unschedulable = true;
    let control_planes = || World::new(json!({"concurrency": 2}), json!({"c1": pending(), "c2": pending()}));
    let mut other = Vec::new();
    for (world, node, expected) in [
        (worker(json!({})).admits(Answer::Found), "w1", ""),
        (worker(json!({"paused": true})), "w1", "waiting: paused (spec.paused)"),
        (
            worker(json!({})).op(|op| op.metadata.deletion_timestamp = Some(Time(at(0)))),
            "w1",
            "not started: the NodeOp is being deleted",
        ),
        (
            World::new(json!({"stopOnFailure": true}), json!({"c1": failed(), "w1": pending()})),
            "w1",
            "not started: node c1 failed (stopOnFailure)",
        ),
        (worker(json!({})).node("w1", |node| node.ready = false), "w1", "waiting: the node is not Ready"),
        (
            worker(json!({}))
                .node("w1", |node| drop(node.labels.insert("kairos.io/hold".into(), "true".into()))),
            "w1",
            "waiting: held by the label kairos.io/hold on the node",
        ),
        (
            worker(json!({}))
                .node("w1", |node| drop(node.labels.insert("kairos.io/hold".into(), "false".into())))
                .admits(Answer::Found),
            "w1",
            "",
        ),
        (
            worker(json!({"notAfter": Time(at(0))})),
            "w1",
            "not started: its time was over at 1970-01-12T13:46:40Z (notAfter)",
        ),
        (worker(json!({"notAfter": Time(at(1))})).admits(Answer::Found), "w1", ""),
        (worker(json!({})).node("w1", |node| node.deleting = true), "w1", "the node is being deleted"),
        (World::new(json!({}), json!({"gone": pending()})), "gone", "checking whether the node still exists"),
        (
            World::new(json!({}), json!({"gone": pending(), "w1": pending()})),
            "gone",
            "waiting: the Node object is gone; the node is skipped unless it is back before the others are done",
        ),
        (
            World::new(json!({}), json!({"c1": running("c1"), "gone": pending()}))
                .answer(Question::Node("gone".into()), Answer::NotFound),
            "gone",
            "waiting: the Node object is gone; the node is skipped unless it is back before the others are done",
        ),
        (
            World::new(json!({}), json!({"gone": pending(), "w1": {"phase": "Completed"}}))
                .answer(Question::Node("gone".into()), Answer::NotFound),
            "gone",
            "",
        ),
        (
            worker(json!({})).node("w1", |node| node.claimed_by = Some(op("b"))).beside(
                "b",
                json!({}),
                json!({}),
            ),
            "w1",
            "waiting for NodeOp ns/b, which has claimed the node",
        ),
        // A Node that was made again names nobody, and statuses do; until a live read has shown that it was
        // given back.
        (
            worker(json!({})).admits(Answer::Found).beside("b", json!({}), json!({"w1": running("w1")})),
            "w1",
            "waiting for NodeOp ns/b, which has claimed the node",
        ),
        (
            worker(json!({})).admits(Answer::Found).beside(
                "b",
                json!({}),
                json!({"w1": {"phase": "Completed", "nodeUid": "before"}}),
            ),
            "w1",
            "waiting for NodeOp ns/b, which has claimed the node",
        ),
        (worker(json!({})).admits(Answer::Found).beside("b", json!({}), json!({"w1": failed()})), "w1", ""),
        (World::new(json!({}), json!({"c1": running("c1"), "w1": pending()})), "w1", "waiting for its turn"),
        // The first of the control plane holds up all that come after it.
        (
            control_planes().node("c1", |node| node.claimed_by = Some(op("b"))).beside(
                "b",
                json!({}),
                json!({}),
            ),
            "c2",
            "waiting for its turn, after a control-plane node",
        ),
        (
            World::new(json!({"concurrency": 2}), json!({"c1": running("c1"), "c2": pending()})),
            "c2",
            "waiting for its turn: control-plane nodes go one at a time, and c1 is in progress",
        ),
        (
            World::new(json!({}), json!({"c2": pending()})).beside(
                "b",
                json!({}),
                json!({"c1": running("c1")}),
            ),
            "c2",
            "waiting for NodeOp ns/b, which has control-plane node c1",
        ),
        (
            World::new(json!({}), json!({"c1": pending()})).node("c2", |node| node.ready = false),
            "c1",
            "waiting: control-plane node c2 is not Ready, and a second one must not go away",
        ),
        (
            World::new(json!({}), json!({"c1": pending()})).node("c2", |node| {
                (node.etcd_votes, node.etcd_said) = (Some(false), "MemberIsLearner: not promoted".into());
            }),
            "c1",
            "waiting: etcd of control-plane node c2 is not a healthy voting member: MemberIsLearner: not promoted",
        ),
        (
            World::new(json!({}), json!({"c1": pending()}))
                .unanswered(&Question::ControlPlanePods("c2".into())),
            "c1",
            "checking that the other control-plane nodes are well",
        ),
        (
            World::new(json!({}), json!({"c1": pending()}))
                .answer(Question::ControlPlanePods("c2".into()), Answer::NotReady(vec!["etcd-c2".into()])),
            "c1",
            "waiting: pod kube-system/etcd-c2 of control-plane node c2 is not Ready",
        ),
        (
            World::new(json!({}), json!({"c1": failed(), "w1": pending()})).node("c1", cordoned),
            "w1",
            "waiting: nodes out of service hold every slot",
        ),
        (worker(json!({})).op(|op| op.metadata.finalizers = None), "w1", "preparing"),
        (worker(json!({})), "w1", "checking that the API server admits the pods"),
        (
            worker(json!({})).admits(Answer::NotYet("quota exceeded".into())),
            "w1",
            "the API server does not admit what the operation needs yet: quota exceeded",
        ),
        (
            worker(json!({})).admits(Answer::Refused("privileged".into())),
            "w1",
            "the API server refuses what the operation needs, no node was touched: privileged (see docs: the-api-server-refuses-it)",
        ),
    ] {
        let why = world.why(node);
        if why != expected {
            other.push(format!("{why} (not {expected})"));
        }
    }
    assert!(other.is_empty(), "{other:#?}");
}

/// Whoever has had the node meanwhile may have done what the preflight asks for.
#[test]
fn while_it_is_paused_a_verdict_is_forgotten_once_somebody_else_is_at_the_node() {
    let passed = json!({"phase": "Pending", "boot": "b1"});
    let paused = || {
        let spec = json!({"paused": true, "preflight": {"command": ["true"]}});
        World::new(spec, json!({"w1": passed})).node("w1", |node| node.boot_id = "b1".into())
    };
    let forgets = |world: World| {
        let out = plan(&world.0);
        out.actions.iter().any(|action| match action {
            Action::PatchStatus { status, .. } => {
                status.node_statuses.get("w1").is_some_and(|entry| entry.boot.is_none())
            }
            _ => false,
        })
    };
    let held = ("kairos.io/hold".to_owned(), "true".to_owned());
    assert!(!forgets(paused()));
    assert!(forgets(paused().node("w1", |node| node.labels = [held].into_iter().collect())));
    let claimed = paused().node("w1", |node| node.claimed_by = Some(op("b")));
    assert!(forgets(claimed.beside("b", json!({}), json!({}))));
}

/// Four workers of one architecture, whose preflights told these releases, or have still to tell (`None`),
/// and what becomes of each in a few plans: taken, failed, asked, or waiting.
fn disputed(concurrency: i32, told: [Option<&str>; 4], change: impl FnOnce(&mut NodeView)) -> [String; 4] {
    let names = ["w1", "w2", "w3", "w4"];
    let told = names.iter().zip(told).map(|(name, release)| {
        let passed =
            |release| json!({"phase": "Pending", "boot": "b", "target": release, "lastUpdated": Time(at(0))});
        ((*name).to_owned(), release.map_or_else(pending, passed))
    });
    let spec = json!({"command": null, "image": "os:v1", "upgrade": {"active": true}, "concurrency": concurrency,
        "preflightConcurrency": 1});
    let mut world = World::new(spec, Value::Object(told.collect()));
    for name in names {
        let node = NodeView {
            name: name.into(),
            uid: name.into(),
            arch: "amd64".into(),
            boot_id: "b".into(),
            ready: true,
            ..NodeView::default()
        };
        world.0.nodes.insert(name.into(), Arc::new(node));
        world = world.answer(Question::Admission(op("op"), name.into()), Answer::Found);
    }
    world = world.node("w1", change);
    for _ in 0..4 {
        for action in plan(&world.0).actions {
            if let Action::PatchStatus { status, .. } = action {
                world = world.op(|op| op.status = Some(*status));
            }
        }
    }
    let status = world.0.ops[&("ns".into(), "op".into())].status.clone().unwrap();
    names.map(|name| {
        let entry = &status.node_statuses[name];
        let message = entry.message.clone().unwrap_or_default();
        match entry.phase {
            Phase::Pending if message.contains("decides") => "waits".into(),
            Phase::Failed => format!("fails by {}", &message[message.rfind(" on w").unwrap() + 4..][..2]),
            phase => format!("{phase:?}").to_lowercase(),
        }
    })
}

/// The report of one node binds no other, and yet nobody waits for ever.
#[test]
fn nodes_that_disagree_wait_for_another_word_and_then_the_first_in_order_is_taken() {
    let as_it_is = |_: &mut NodeView| ();
    let (a, b, c, d) = (Some("a"), Some("b"), Some("c"), Some("d"));
    // Another one can be asked, beyond what is asked ahead.
    assert_eq!(disputed(1, [a, b, None, None], as_it_is), ["waits", "waits", "preflight", "pending"]);
    // A second report for one of them.
    assert_eq!(disputed(1, [a, b, b, None], as_it_is), ["fails by w2", "running", "pending", "pending"]);
    assert_eq!(disputed(0, [a, b, b, a], as_it_is), ["fails by w2", "running", "running", "fails by w2"]);
    // All disagree: the first one is taken, and the others are held to it.
    for concurrency in [0, 1] {
        let fail = ["running", "fails by w1", "fails by w1", "fails by w1"];
        assert_eq!(disputed(concurrency, [a, b, c, d], as_it_is), fail, "{concurrency}");
    }
    // One that cannot be taken now keeps nobody waiting.
    let away = disputed(1, [a, b, c, d], |node| node.ready = false);
    assert_eq!(away, ["pending", "running", "fails by w2", "fails by w2"]);
    let held = |node: &mut NodeView| drop(node.labels.insert(crate::api::names::HOLD.into(), "true".into()));
    assert_eq!(disputed(0, [None, b, c, c], held), ["pending", "fails by w3", "running", "running"]);
}

/// Else a bad image would stand still after as many failures, though nobody set a limit.
#[test]
fn nodes_that_failed_count_against_what_the_user_allows_and_not_as_in_progress() {
    let down: Vec<String> = (0..1200).map(|n| format!("f{n:04}")).collect();
    let takes = |concurrency: i32| {
        let mut entries: serde_json::Map<_, _> = down.iter().map(|name| (name.clone(), failed())).collect();
        entries.insert("w1".into(), pending());
        let mut world = World::new(json!({"concurrency": concurrency}), Value::Object(entries));
        for name in &down {
            let node = NodeView { name: name.clone(), uid: name.clone(), ready: true, ..NodeView::default() };
            world.0.nodes.insert(name.clone(), Arc::new(NodeView { unschedulable: true, ..node }));
        }
        let world = world.answer(Question::Admission(op("op"), "w1".into()), Answer::Found);
        world.why("w1").is_empty()
    };
    assert!(takes(0), "no limit was set");
    assert!(takes(1201) && !takes(1200));
}

/// As KWOK's, which a selector chose.
#[test]
fn a_node_without_a_boot_id_fails_untouched_where_its_boot_matters() {
    for reboots in [true, false] {
        let world = worker(json!({"rebootOnSuccess": reboots})).node("w1", |node| node.bootless = true);
        let fails = |action: &Action| match action {
            Action::PatchStatus { status, .. } => status.node_statuses["w1"].phase == Phase::Failed,
            _ => false,
        };
        assert_eq!(plan(&world.admits(Answer::Found).0).actions.iter().any(fails), reboots);
    }
}

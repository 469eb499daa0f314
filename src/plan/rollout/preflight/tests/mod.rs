//! Preflights, planned as part of whole plans: their verdicts here, the checks that are run again in `again`,
//! and the pods that have not given one yet in `tries` and `kept`.

mod again;
mod content;
mod kept;
mod tries;

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::nodeop::NodeStatus,
    plan::{
        fixtures::{self, at},
        model::{
            id::OpRef,
            question::{Answer, Question},
            snapshot::{ContainerView, Owner, PodPhase, Sightings},
        },
        plan,
    },
};

/// One node, and NodeOps with a preflight about it, planned as a whole. What is asked is answered with what
/// is there.
struct World {
    snapshot: Snapshot,
    sightings: Sightings,
    /// What is answered to who asks for the newest Event of a pod.
    event: Answer,
}

impl World {
    /// NodeOp `op` has its preflight on n1 since second 0.
    fn new() -> Self {
        let mut world = Self {
            snapshot: Snapshot { leading_since: at(-100), ..Snapshot::default() },
            sightings: Sightings::default(),
            event: Answer::Found,
        };
        world.op("op", 0, json!({}), json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b1", "lastUpdated": at(0).to_string()}));
        world.node(|_| {});
        world
    }

    fn op(&mut self, name: &str, created: i64, spec: Value, entry: Value) {
        let mut whole = json!({"image": "os:latest", "cordon": null, "preflight": {"command": ["check"]}, "pullTimeoutSeconds": 60});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut op = fixtures::nodeop(name, &whole, &json!({"n1": entry}));
        op.metadata.creation_timestamp = Some(Time(at(created - 1000)));
        self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    fn node(&mut self, change: impl FnOnce(&mut NodeView)) {
        let known = self.snapshot.nodes.get("n1").map(|node| node.as_ref().clone());
        let mut node = known.unwrap_or_else(|| NodeView {
            boot_id: "b1".into(),
            arch: "amd64".into(),
            ..fixtures::node("n1")
        });
        change(&mut node);
        self.snapshot.nodes.insert("n1".into(), Arc::new(node));
    }

    fn status(&self, op: &str) -> &NodeStatus {
        &self.snapshot.ops[&("ns".to_owned(), op.to_owned())].status.as_ref().unwrap().node_statuses["n1"]
    }

    fn message(&self) -> String {
        self.status("op").message.clone().unwrap_or_default()
    }

    /// The pod of the present attempt, as `change` has it.
    fn pod(&mut self, change: impl FnOnce(&mut PodView)) {
        let attempt = self.status("op").attempt.unwrap_or(0);
        let name = Op::of(&self.snapshot.ops[&("ns".to_owned(), "op".to_owned())]).object_name(
            "n1",
            "preflight",
            attempt,
        );
        let mut pod = PodView {
            name: name.clone(),
            phase: PodPhase::Pending,
            // Both are by other clocks.
            created: at(-100_000_000),
            ..fixtures::pod(Role::Preflight, &format!("uid{attempt}"), Owner::nodeop("op", "op"), "n1")
        };
        change(&mut pod);
        self.snapshot.pods.insert(("ns".into(), name), Arc::new(pod));
    }

    fn container(&mut self, state: ContainerState) {
        self.pod(|pod| pod.containers = vec![ContainerView::new(container::PREFLIGHT, state)]);
    }

    /// The container has ended, and with it the pod.
    fn ends(&mut self, code: i32, reason: &str, message: &str) {
        self.container(ContainerState::Ended { code, reason: reason.into(), message: message.into() });
        let ended = if code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
        for pod in self.snapshot.pods.values().cloned().collect::<Vec<_>>() {
            let key = (pod.namespace.clone(), pod.name.clone());
            self.snapshot.pods.insert(key, Arc::new(PodView { phase: ended, ..(*pod).clone() }));
        }
    }

    fn refused(&mut self, reason: &str) {
        self.pod(|pod| (pod.phase, pod.reason) = (PodPhase::Failed, reason.into()));
    }

    /// Plans at that second until nothing is asked and nothing is written any more; what was asked, and which
    /// pods were to be made.
    fn plan(&mut self, second: i64) -> (BTreeSet<Question>, Vec<String>) {
        let mut asked = BTreeSet::new();
        self.snapshot.now = at(second);
        self.snapshot.answers.clear();
        for _ in 0..10 {
            self.sightings.note(&self.snapshot);
            self.snapshot.sightings = Arc::new(self.sightings.clone());
            let out = plan(&self.snapshot);
            assert_eq!(crate::plan::check::broken(&self.snapshot, &out), [""; 0]);
            let made: Vec<String> = out
                .actions
                .iter()
                .filter_map(|action| {
                    if let Action::CreatePreflightPod { name, .. } = action {
                        Some(name.clone())
                    } else {
                        None
                    }
                })
                .collect();
            let mut wrote = false;
            for action in out.actions {
                if let Action::PatchStatus { op, status, .. } = action {
                    let mut op = (*op).clone();
                    (op.status, wrote) = (Some(*status), true);
                    self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
                }
            }
            asked.extend(out.questions.iter().cloned());
            let open = out.questions.iter().any(|question| self.snapshot.answer(question).is_none());
            let answer = |question: &Question| match question {
                Question::Events { .. } => self.event.clone(),
                _ => Answer::Found,
            };
            self.snapshot.answers =
                out.questions.iter().map(|question| (question.clone(), answer(question))).collect();
            if !wrote && !open {
                return (asked, made);
            }
        }
        panic!("it does not come to rest: {}", self.message());
    }

    /// Phase and message of the node, after a plan at that second.
    fn comes_to(&mut self, second: i64) -> (Phase, String) {
        self.plan(second);
        (self.status("op").phase, self.message())
    }
}

#[test]
fn what_a_container_ends_with_is_the_verdict_and_its_words_are_told() {
    for (code, reason, message, phase, told) in [
        (0, "Completed", "nothing to do\n", Phase::Completed, "Skipped by preflight: nothing to do"),
        (
            4,
            "Error",
            "disk is too small\n",
            Phase::Failed,
            "Preflight failed: exit code 4: disk is too small (see docs: preflight-failed)",
        ),
        (3, "Error", "", Phase::Failed, "Preflight failed: exit code 3, Error (see docs: preflight-failed)"),
        (
            137,
            "OOMKilled",
            "",
            Phase::Failed,
            "Preflight failed: exit code 137, OOMKilled (see docs: preflight-failed)",
        ),
        (
            255,
            "Error",
            "exec /check: exec format error",
            Phase::Failed,
            "Preflight failed: exit code 255: exec /check: exec format error (see docs: preflight-failed)",
        ),
    ] {
        let mut world = World::new();
        world.ends(code, reason, message);
        assert_eq!(world.comes_to(5), (phase, told.into()));
    }
    let mut world = World::new();
    world.ends(0, "Completed", " \n");
    world.plan(5);
    // The slot is free, so the node is taken at once.
    assert_eq!((world.status("op").phase, world.status("op").boot.as_deref()), (Phase::Running, Some("b1")));
}

#[test]
fn a_verdict_is_recorded_after_the_node_was_read_live() {
    for (code, message) in [(0, "up to date"), (0, ""), (3, "no")] {
        let mut world = World::new();
        world.ends(code, "", message);
        assert!(world.plan(5).0.contains(&Question::Node("n1".into())), "{code} {message:?}");

        let mut world = World::new();
        world.ends(code, "", message);
        world.snapshot.now = at(5);
        let out = plan(&world.snapshot);
        let decided = |action: &Action| matches!(action, Action::PatchStatus { status, .. } if status.node_statuses["n1"].phase != Phase::Preflight);
        assert!(
            !out.actions.iter().any(decided),
            "{code} {message:?}: nothing is recorded on the word of a cache"
        );
        assert!(!out.questions.contains(&Question::AllNodeOps), "there are no others");
        // What the live read shows decides.
        world.snapshot.answers =
            out.questions.into_iter().map(|question| (question, Answer::Found)).collect();
        world.node(|node| {
            node.claimed_by =
                Some(OpRef { namespace: "ns".into(), name: "other".into(), uid: "other".into() })
        });
        let out = plan(&world.snapshot);
        let recorded = out.actions.iter().find_map(|action| match action {
            Action::PatchStatus { status, .. } => Some(status.node_statuses["n1"].clone()),
            _ => None,
        });
        let recorded = recorded.unwrap();
        assert_eq!((recorded.phase, recorded.boot), (Phase::Pending, None), "{code} {message:?}");
        assert_eq!(recorded.message.unwrap(), "waiting for NodeOp ns/other, which has claimed the node");
    }
}

#[test]
fn another_boot_or_a_node_that_is_away_is_asked_again_whatever_was_said() {
    for (code, reason) in [(0, "Completed"), (1, "Error"), (255, "Unknown")] {
        let mut world = World::new();
        world.ends(code, reason, "words");
        world.node(|node| node.boot_id = "b2".into());
        world.plan(5);
        let status = world.status("op");
        assert_eq!(
            (status.phase, status.attempt, status.new_boot.as_deref()),
            (Phase::Preflight, Some(1), Some("b2")),
            "{code}"
        );
    }
    let mut world = World::new();
    world.ends(1, "Error", "words");
    world.node(|node| node.ready = false);
    assert_eq!(world.comes_to(5), (Phase::Pending, "waiting: the node is not Ready".into()));
    assert_eq!(world.status("op").attempt, Some(0), "the next one is not taken for this one's pod");
}

/// A rollback while the upgrade runs, and objects that were restored together: whoever is served later asks
/// when the other is done.
#[test]
fn no_preflight_of_a_node_that_another_operation_has_or_has_still_to_take() {
    let holder = OpRef { namespace: "ns".into(), name: "other".into(), uid: "other".into() };
    let older = "waiting for NodeOp ns/other, which is older and not finished with the node";
    let has = "waiting for NodeOp ns/other, which has claimed the node";
    for (created, entry, claimed, waits) in [
        (-5, json!({"phase": "Running", "step": "Job", "nodeUid": "n1"}), true, Some(has)),
        (5, json!({"phase": "Running", "step": "Claim", "nodeUid": "n1"}), false, Some(has)),
        (5, json!({"phase": "Completed", "nodeUid": "n1"}), false, Some(has)),
        (-5, json!({"phase": "Pending"}), false, Some(older)),
        (-5, json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b1"}), false, Some(older)),
        (-5, json!({"phase": "Completed"}), false, None),
        (5, json!({"phase": "Pending"}), false, None),
        (5, json!({"phase": "Pending"}), true, Some(has)),
    ] {
        for begun in [false, true] {
            let mut world = World::new();
            world.op("other", created, json!({"preflight": null}), entry.clone());
            if !begun {
                world.op("op", 0, json!({}), json!({"phase": "Pending", "boot": "b1", "attempt": 2}));
            }
            world.node(|node| node.claimed_by = claimed.then(|| holder.clone()));
            world.snapshot.now = at(5);
            let out = plan(&world.snapshot);
            let key = ("ns".to_owned(), "op".to_owned());
            let written = out.actions.iter().find_map(|action| match action {
                Action::PatchStatus { op, status, .. } if op.metadata.name.as_deref() == Some("op") => {
                    Some(status.node_statuses["n1"].clone())
                }
                _ => None,
            });
            let made = out
                .actions
                .iter()
                .any(|action| matches!(action, Action::CreatePreflightPod { op, .. } if op.metadata.name.as_deref() == Some("op")));
            if let Some(why) = waits {
                assert_eq!(
                    out.why(&key, "n1").map(|why| why.message.as_str()),
                    Some(why),
                    "{created} {entry} {claimed} {begun}"
                );
                let entry = written.unwrap();
                assert_eq!(
                    (entry.phase, entry.boot, made),
                    (Phase::Pending, None, false),
                    "what was said before is forgotten"
                );
                assert!(entry.attempt.is_some(), "and is not read again");
            } else {
                let kept = out.why(&key, "n1").is_some_and(|why| why.message.contains("NodeOp ns/other"));
                let forgotten = written.is_some_and(|entry| entry.boot.is_none());
                assert!(
                    !kept && if begun { made } else { !forgotten },
                    "{created} {entry} {claimed} {begun}"
                );
            }
        }
    }
}

#[test]
fn one_that_is_being_deleted_takes_no_node_any_more() {
    let mut world = World::new();
    world.op("other", -5, json!({}), json!({"phase": "Pending"}));
    let key = ("ns".to_owned(), "other".to_owned());
    let mut other = (*world.snapshot.ops[&key]).clone();
    other.metadata.deletion_timestamp = Some(Time(at(0)));
    world.snapshot.ops.insert(key, Arc::new(other));
    world.ends(0, "Completed", "nothing to do");
    assert_eq!(world.comes_to(5).0, Phase::Completed);
}

#[test]
fn other_operations_are_read_live_where_they_may_meet() {
    let mut world = World::new();
    world.op("other", 5, json!({}), json!({"phase": "Pending"}));
    world.ends(0, "Completed", "up to date");
    assert!(world.plan(5).0.contains(&Question::AllNodeOps));
    assert_eq!(world.status("op").phase, Phase::Completed, "the newer one comes later");
}

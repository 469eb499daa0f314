//! Rollouts as the planner decides them: which nodes, who is next, why everybody else waits, and what is said
//! of it. Pure plans on worlds that are written down here.

mod canary;
mod drift;
mod held_back;
mod quorum;
mod slots;
mod targets;
mod words;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
use kairos_operator::{
    api::{
        child, names,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    plan::{
        check,
        model::{
            action::{Action, Notice},
            effects::{Plan, Reasons},
            id::{Key, OpRef},
            question::{Answer, Question},
            snapshot::{JobState, JobView, NodeView, Owner, Sightings, Snapshot, facts_of},
        },
        plan,
    },
};
use serde_json::{Value, json};

use crate::simulation::{hints, image_check};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn key(name: &str) -> Key {
    ("ns".to_owned(), name.to_owned())
}

/// A cluster in which everything that is asked for is done at once, but for pods and Jobs, of which there are
/// none. Only preflights that ask about nothing but the image are there, and pass.
struct Cluster {
    s: Snapshot,
    seen: Sightings,
    /// All Events, as object and reason.
    events: Vec<(String, &'static str)>,
    /// Why nodes wait, by the last plan.
    waiting: BTreeMap<Key, Reasons>,
    /// What is answered to a question other than by what is there.
    answers: BTreeMap<Question, Answer>,
}

impl Cluster {
    /// Ready nodes that run Linux, whose facts were read; the operator has led for long.
    fn new(nodes: &[&str]) -> Self {
        let s = Snapshot { now: at(0), leading_since: at(-1000), ..Snapshot::default() };
        let mut cluster = Self {
            s,
            seen: Sightings::default(),
            events: vec![],
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
        };
        nodes.iter().for_each(|name| cluster.join(name));
        cluster
    }

    fn join(&mut self, name: &str) {
        let labels = [(names::OS_LABEL, "linux"), ("kubernetes.io/hostname", name)];
        let node = NodeView {
            name: name.into(),
            uid: format!("{name}-uid"),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ready: true,
            boot_id: "b1".into(),
            ..NodeView::default()
        };
        self.s.nodes.insert(name.into(), Arc::new(node));
        self.read_facts(name);
    }

    fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeView)) {
        change(Arc::make_mut(self.s.nodes.get_mut(name).unwrap()));
    }

    fn label(&mut self, name: &str, label: &str, value: &str) {
        self.node(name, |node| drop(node.labels.insert(label.into(), value.into())));
    }

    fn control_plane(&mut self, name: &str) {
        self.label(name, names::CONTROL_PLANE_LABELS[0], "");
    }

    fn read_facts(&mut self, name: &str) {
        self.node(name, |node| {
            let of = facts_of(&node.boot_id, |label| node.labels.get(label));
            drop(node.annotations.insert(names::FACTS_OF.into(), of))
        });
    }

    fn forget_facts(&mut self, name: &str) {
        self.node(name, |node| drop(node.annotations.remove(names::FACTS_OF)));
    }

    fn op(&mut self, name: &str, spec: Value) {
        let mut fields = json!({"command": ["true"], "cordon": true, "concurrency": 1});
        fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "spec": fields,
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "finalizers": [names::FINALIZER]}});
        let mut op: NodeOp = serde_json::from_value(op).unwrap();
        op.metadata.creation_timestamp = Some(Time(at(i64::try_from(self.s.ops.len()).unwrap())));
        self.s.ops.insert(key(name), Arc::new(op));
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut NodeOp)) {
        change(Arc::make_mut(self.s.ops.get_mut(&key(name)).unwrap()));
    }

    fn upgrade(&mut self, spec: Value) {
        let upgrade = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "spec": spec,
            "metadata": {"name": "up", "namespace": "ns", "uid": "up-uid", "generation": 1}});
        self.s.upgrades.insert(key("up"), Arc::new(serde_json::from_value(upgrade).unwrap()));
    }

    /// Writes an entry as if the node had got so far; `job`: its Job had begun.
    fn entry(&mut self, op: &str, node: &str, mut entry: Value, job: bool) {
        if job {
            let name = kairos_operator::plan::model::object_name::object((op, op), node, "", 0);
            entry["jobName"] = name.into();
        }
        let entry: NodeStatus = serde_json::from_value(entry).unwrap();
        self.edit(op, |op| op.status.get_or_insert_default().node_statuses.insert(node, entry));
    }

    /// Plans until nothing more is asked, as the controller does.
    fn planned(&mut self) -> Plan {
        self.s.answers.clear();
        self.seen.note(&self.s);
        self.s.sightings = Arc::new(self.seen.clone());
        loop {
            let out = plan(&self.s);
            assert_eq!(check::broken(&self.s, &out), [""; 0]);
            let open: Vec<Question> =
                out.questions.iter().filter(|question| self.s.answer(question).is_none()).cloned().collect();
            if open.is_empty() {
                return out;
            }
            for question in open {
                let there = match &question {
                    Question::Node(name) => self.s.nodes.contains_key(name),
                    Question::Job(key) => self.s.jobs.contains_key(key),
                    Question::Pod(key) => self.s.pods.contains_key(key),
                    Question::Op(of) => self.s.op(of).is_some(),
                    Question::ControlPlanePods(_) => false,
                    _ => true,
                };
                let answer = self.answers.get(&question).cloned().unwrap_or(if there {
                    Answer::Found
                } else {
                    Answer::NotFound
                });
                self.s.answers.insert(question, answer);
            }
        }
    }

    /// One plan, of which the statuses, claims and cordons are carried out; and those that follow until the
    /// preflights that it began have passed.
    fn step(&mut self) -> Plan {
        let mut out = self.single_step();
        for _ in 0..2 {
            if out.actions.iter().any(
                |action| matches!(action, Action::CreatePreflightPod { op, .. } if image_check::is_one(op)),
            ) {
                out = self.single_step();
            }
        }
        out
    }

    fn single_step(&mut self) -> Plan {
        let out = self.planned();
        self.waiting.clone_from(&out.waiting);
        for action in &out.actions {
            match action {
                Action::PatchStatus { op, status, notices } => {
                    let name = OpRef::of(op).name;
                    self.say(&name, notices);
                    self.edit(&name, |op| op.status = Some((**status).clone()));
                }
                Action::PatchUpgradeStatus { status, notices, .. } => {
                    self.say("upgrade up", notices);
                    let upgrade = Arc::make_mut(self.s.upgrades.get_mut(&key("up")).unwrap());
                    upgrade.status = Some((**status).clone());
                }
                Action::CreateChild { upgrade, name } => {
                    let mut op = child::node_op(upgrade, name);
                    (op.metadata.uid, op.metadata.generation) = (Some(name.clone()), Some(1));
                    op.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
                    self.s.ops.insert(key(name), Arc::new(op));
                }
                Action::PatchNode { name, change, .. } => {
                    let change = change.clone();
                    self.node(name, |node| {
                        hints::apply(node, &change);
                        node.unschedulable = change.unschedulable.unwrap_or(node.unschedulable);
                        // Both stand in one annotation.
                        if change.kept_cordon.is_some() || change.cordoned_by.is_some() {
                            (node.cordoned_by, node.kept_cordon) =
                                (change.cordoned_by.flatten(), change.kept_cordon.as_deref().cloned());
                        }
                        node.claimed_by = change.claimed_by.unwrap_or_else(|| node.claimed_by.take());
                    });
                }
                Action::CreatePreflightPod { op, node, name } if image_check::is_one(op) => {
                    let pod = image_check::passed(op, node, name);
                    self.s.pods.insert(key(name), Arc::new(pod));
                }
                Action::DeletePod { pod, .. } => {
                    self.s.pods.retain(|(_, name), _| *name != pod.name);
                }
                _ => {}
            }
        }
        out
    }

    /// Goes on until nothing is written any more.
    fn until_stable(&mut self) -> Plan {
        for _ in 0..20 {
            let out = self.step();
            let writes = |action: &Action| {
                matches!(
                    action,
                    Action::PatchStatus { .. } | Action::PatchUpgradeStatus { .. } | Action::PatchNode { .. }
                )
            };
            if !out
                .actions
                .iter()
                .any(|action| writes(action) || matches!(action, Action::CreateChild { .. }))
            {
                return out;
            }
            self.wait(6);
        }
        panic!("it never rests: {:?}", self.step().actions);
    }

    fn wait(&mut self, seconds: i64) {
        self.s.now = self.later(seconds);
    }

    fn later(&self, seconds: i64) -> Timestamp {
        self.s.now.checked_add(SignedDuration::from_secs(seconds)).unwrap()
    }

    fn say(&mut self, about: &str, notices: &[Notice]) {
        self.events.extend(
            notices
                .iter()
                .filter(|notice| notice.node.is_none())
                .map(|notice| (about.to_owned(), notice.reason)),
        );
    }

    fn status(&self, op: &str) -> NodeOpStatus {
        self.s.ops[&key(op)].status.clone().unwrap_or_default()
    }

    fn upgrade_status(&self) -> NodeOpUpgradeStatus {
        self.s.upgrades[&key("up")].status.clone().unwrap_or_default()
    }

    fn message(&self, op: &str) -> String {
        self.status(op).message.unwrap_or_default()
    }

    fn says(&self, op: &str, node: &str) -> String {
        self.status(op).node_statuses[node].message.clone().unwrap_or_default()
    }

    /// Why the last plan leaves a node where it is.
    fn why(&self, op: &str, node: &str) -> String {
        self.waiting[&key(op)].of(node).map(ToString::to_string).unwrap_or_default()
    }

    /// Which nodes are worked on.
    fn running(&self, op: &str) -> Vec<String> {
        let nodes = self.status(op).node_statuses;
        nodes
            .iter()
            .filter(|(_, node)| node.phase == kairos_operator::api::nodeop::Phase::Running)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn targets(&self, op: &str) -> Vec<String> {
        self.status(op).node_statuses.keys().cloned().collect()
    }

    /// An operator that leads from now on and has seen nothing yet.
    fn another_leader(&mut self) {
        self.seen = Sightings::default();
        self.s.leading_since = self.s.now;
    }
}

/// The Job that the operation runs on a node, which is active, and has not run yet if it is suspended.
fn job(op: &str, node: &str, name: &str, suspended: bool) -> JobView {
    JobView {
        namespace: "ns".into(),
        name: name.into(),
        uid: "ju".into(),
        owner: Owner::nodeop(op, op),
        node: node.into(),
        suspended,
        resource_version: String::new(),
        deleting: false,
        state: JobState::Active,
        generation: Some(1),
        started_at: None,
        deadline_seconds: None,
        failed: 0,
        has_pod: false,
        has_ready_pod: false,
        settled_in: None,
    }
}

/// A condition as `status/reason`; empty if it is not there.
fn condition(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|found| format!("{}/{}", found.status, found.reason)).unwrap_or_default()
}

fn upgrade_of(s: &Snapshot) -> &NodeOpUpgrade {
    &s.upgrades[&key("up")]
}

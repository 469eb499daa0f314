//! An upgrade and its NodeOps, in a cluster that does what is planned for them.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use super::super::*;
use crate::{
    api::{child, names, nodeop::NodeStatus, upgrade::NodeOpUpgradeStatus},
    plan::{
        attempts,
        model::{
            action::Action,
            effects::Plan,
            id::OpRef,
            question::{Answer, Question},
            snapshot::{NodeView, facts_of},
        },
    },
};

pub struct World {
    pub snapshot: Snapshot,
    pub key: Key,
    made: usize,
}

impl World {
    pub fn new() -> Self {
        let key: Key = ("ns".into(), "up".into());
        let mut world = Self { snapshot: Snapshot::default(), key, made: 0 };
        world.snapshot.now = Timestamp::from_second(1_000_000).unwrap();
        for name in ["n1", "n2"] {
            world.joins(name);
        }
        let upgrade: NodeOpUpgrade = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
            "metadata": {"name": "up", "namespace": "ns", "uid": "u", "generation": 1},
            "spec": {"image": "kairos:v1", "concurrency": 1},
        }))
        .unwrap();
        world.snapshot.upgrades.insert(world.key.clone(), Arc::new(upgrade));
        world.until_stable();
        world
    }

    pub fn may_start(&self, op: &NodeOp) -> bool {
        may_start(maker(&self.snapshot, op).map(AsRef::as_ref), op)
    }

    /// The upgrade that asks for another run than this NodeOp is.
    pub fn superseded(&self, op: &NodeOp) -> Option<String> {
        superseded(maker(&self.snapshot, op)?, op)
    }

    /// A node joins, of which nobody knows yet what it runs.
    pub fn joins(&mut self, name: &str) {
        let node = NodeView {
            name: name.into(),
            uid: name.into(),
            ready: true,
            boot_id: "b".into(),
            ..NodeView::default()
        };
        self.snapshot.nodes.insert(name.into(), Arc::new(node));
    }

    pub fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeView)) {
        change(Arc::make_mut(self.snapshot.nodes.get_mut(name).unwrap()));
    }

    /// It is known what the node runs.
    pub fn runs(&mut self, name: &str, release: &str) {
        let says = [
            (names::FACTS_OF, facts_of("b", |label| (label == names::MANAGED).then_some("true"))),
            (names::RELEASE, release.to_owned()),
            (names::BOOT_STATE_OF, "active".to_owned()),
        ];
        self.node(name, |node| {
            node.annotations.extend(says.map(|(key, value)| (key.to_owned(), value)));
            node.labels.insert(names::MANAGED.into(), "true".into());
        });
    }

    /// The present NodeOp has claimed the node once.
    pub fn tried(&mut self, name: &str) {
        let op = self.current();
        let record = attempts::record(&op, &self.snapshot.nodes[name], None);
        self.node(name, |node| {
            node.annotations.extend(record.and_then(|(key, value)| Some((key, value?))));
        });
    }

    pub fn upgrade(&self) -> &NodeOpUpgrade {
        &self.snapshot.upgrades[&self.key]
    }

    pub fn status(&self) -> NodeOpUpgradeStatus {
        self.upgrade().status.clone().unwrap_or_default()
    }

    pub fn edit(&mut self, change: Value) {
        let mut upgrade = serde_json::to_value(self.upgrade()).unwrap();
        upgrade["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        upgrade["metadata"]["generation"] = (upgrade["metadata"]["generation"].as_i64().unwrap() + 1).into();
        self.snapshot.upgrades.insert(self.key.clone(), Arc::new(serde_json::from_value(upgrade).unwrap()));
    }

    /// What is seen now is noted.
    pub fn looks(&mut self) {
        let mut sightings = (*self.snapshot.sightings).clone();
        sightings.note(&self.snapshot);
        self.snapshot.sightings = Arc::new(sightings);
    }

    pub fn planned(&self) -> Plan {
        crate::plan::plan(&self.snapshot)
    }

    /// One plan of upgrades, and of NodeOps as far as their status goes.
    pub fn step(&mut self) -> Plan {
        let out = self.planned();
        // Of everything else nothing is known: n1 stays as it is.
        for question in &out.questions {
            let answer = match question {
                Question::Op(of) if self.snapshot.op(of).is_some() => Answer::Found,
                Question::Op(_) | Question::OwnedWorkload(_) => Answer::NotFound,
                _ => continue,
            };
            self.snapshot.answers.insert(question.clone(), answer);
        }
        for action in &out.actions {
            self.carry_out(action);
        }
        out
    }

    pub fn carry_out(&mut self, action: &Action) {
        match action {
            Action::CreateChild { upgrade, name } => {
                let mut op = child::node_op(upgrade, name);
                self.made += 1;
                op.metadata.uid = Some(format!("{name}-{}", self.made));
                op.metadata.generation = Some(1);
                op.metadata.creation_timestamp = Some(Time(self.snapshot.now));
                self.snapshot.ops.entry(("ns".into(), name.clone())).or_insert_with(|| Arc::new(op));
            }
            Action::PatchUpgradeStatus { upgrade, status, .. } => {
                let key = ("ns".to_owned(), upgrade.metadata.name.clone().unwrap());
                let mut upgrade = self.snapshot.upgrades[&key].as_ref().clone();
                upgrade.status = Some(status.as_ref().clone());
                self.snapshot.upgrades.insert(key, Arc::new(upgrade));
            }
            Action::PatchStatus { op, status, .. } => {
                let mut op = op.as_ref().clone();
                op.status = Some(status.as_ref().clone());
                self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
            }
            Action::DeleteOp { op } => drop(self.snapshot.ops.remove(&op.key())),
            Action::PatchNode { name, change, .. } => self.node(name, |node| {
                let said = change.annotations.clone().into_iter();
                node.annotations.extend(said.filter_map(|(key, value)| Some((key, value?))));
                node.claimed_by = change.claimed_by.clone().unwrap_or_else(|| node.claimed_by.clone());
            }),
            Action::PropagateSpec { child, steering, notice: _ } => {
                let mut op = child.as_ref().clone();
                op.spec.concurrency = steering.concurrency;
                (op.spec.paused, op.spec.stop_on_failure) =
                    (Some(steering.paused), Some(steering.stop_on_failure));
                op.spec.not_after = steering.not_after.map(Time);
                self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
            }
            _ => {}
        }
    }

    /// Nothing is there that the plan asks for of pods.
    pub fn answer_pods(&mut self) {
        let asked = self.planned().questions.into_iter();
        let pods = asked.filter(|question| matches!(question, Question::Pod(_)));
        self.snapshot.answers.extend(pods.map(|question| (question, Answer::NotFound)));
    }

    /// The NodeOp that is planned is made, and nothing else of the plan is carried out.
    pub fn makes_and_is_killed(&mut self) {
        let makes = |action: &&Action| matches!(action, Action::CreateChild { .. });
        self.planned().actions.iter().filter(makes).for_each(|action| self.carry_out(action));
    }

    /// Plans until nothing more is done about upgrades and NodeOps.
    pub fn until_stable(&mut self) {
        for _ in 0..30 {
            self.snapshot.now += SignedDuration::from_secs(10);
            let out = self.step();
            let is_answered =
                |question: &Question| matches!(question, Question::Op(_) | Question::OwnedWorkload(_));
            let open = out.questions.iter().any(is_answered);
            if out.actions.is_empty() && !open {
                return;
            }
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.snapshot.ops.keys().map(|key| key.1.clone()).collect()
    }

    pub fn current(&self) -> NodeOp {
        let name = self.status().node_op_name.unwrap();
        self.snapshot.ops[&("ns".into(), name)].as_ref().clone()
    }

    /// Somebody wrote this of the nodes of the present NodeOp.
    pub fn says(&mut self, nodes: Value) {
        let mut op = self.current();
        let status = json!({"phase": "Running", "observedGeneration": 1, "nodeStatuses": nodes});
        op.status = Some(serde_json::from_value(status).unwrap());
        self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    pub fn completes(&mut self) {
        let done = json!({"phase": "Completed", "jobName": "j"});
        let skipped = json!({"phase": "Completed", "message": "Skipped by preflight: is there"});
        self.says(json!({"n1": done, "n2": skipped}));
        self.until_stable();
    }

    /// n1 is in progress.
    pub fn works(&mut self) {
        let works =
            json!({"phase": "Running", "step": "Job", "jobName": "j", "jobUid": "ju", "nodeUid": "n1"});
        self.says(json!({"n1": works, "n2": {"phase": "Pending"}}));
        self.until_stable();
    }

    pub fn works_no_more(&mut self) {
        let mut op = self.current();
        let status = op.status.as_mut().unwrap();
        let done: NodeStatus = serde_json::from_value(
            json!({"phase": "Completed", "jobName": "j", "rebootStatus": "completed"}),
        )
        .unwrap();
        status.node_statuses.insert("n1", done);
        self.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    pub fn condition(&self, type_: &str) -> Option<(String, String, Option<i64>)> {
        let conditions = self.status().conditions;
        let found = conditions.iter().find(|one| one.type_ == type_)?;
        Some((found.status.clone(), found.reason.clone(), found.observed_generation))
    }
}

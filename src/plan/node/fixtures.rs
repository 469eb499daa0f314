//! What the unit tests of several steps start from: one node that is worked on, planned pass by pass.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::nodeop::{NodeOp, NodeStatus},
    plan::{
        check, fixtures,
        model::{
            action::Action,
            effects::{Plan, Planned},
            id::OpRef,
            object_name,
            question::{Answer, Question},
            snapshot::{NodeView, Owner, PodPhase, PodView, Role, Snapshot},
        },
        node::{
            context::{Decision, NodeContext, Op},
            state::{At, DrainRecord, Entry, ImageRecord, Machine, State, WaiterRecord, Working},
        },
        plan,
    },
};

pub use crate::plan::fixtures::at;

/// A node that is being drained since this moment.
pub fn draining(since: Timestamp) -> (Entry, Working) {
    let drain =
        DrainRecord { started: since.into(), deadline: None, blocked_since: None, detaching_since: None };
    let work = Working {
        at: At::Drain(drain),
        machine: Machine::default(),
        found: ImageRecord::default(),
        job: None,
        waiter: WaiterRecord::default(),
        reboot: None,
        given_up: None,
    };
    (Entry { state: State::Working(work.clone().into()), ..Entry::default() }, work)
}

/// One node that is worked on, as `entry` says, and what there is of its operation.
#[derive(Debug)]
pub struct World {
    pub snapshot: Snapshot,
    pub me: OpRef,
    /// What is answered to who asks for the newest Event of a pod.
    pub event: Answer,
}

impl World {
    /// A node whose entry in the status is this.
    pub fn new(entry: Value) -> Self {
        let spec = json!({"rebootOnSuccess": true, "pullTimeoutSeconds": 40});
        let mut op = fixtures::nodeop("op", &spec, &json!({"n1": entry}));
        op.metadata.uid = Some("u".into());
        let me = OpRef::of(&op);
        let node = NodeView {
            machine_id: Some("m1".into()),
            claimed_by: Some(me.clone()),
            cordoned_by: Some(me.clone()),
            unschedulable: true,
            boot_id: "b1".into(),
            ..fixtures::node("n1")
        };
        let snapshot = Snapshot {
            nodes: [("n1".into(), Arc::new(node))].into(),
            ops: [(me.key(), Arc::new(op))].into(),
            ..Snapshot::default()
        };
        Self { snapshot, me, event: Answer::Found }
    }

    /// What a step looks at, and what it decides, without a rollout around it.
    pub fn decide<T>(&self, step: impl FnOnce(&NodeContext<'_>) -> T) -> T {
        let op = Op::of(&self.snapshot.ops[&self.me.key()]);
        let entry = Entry::parse(&self.entry()).unwrap();
        let State::Working(work) = &entry.state else { panic!("nobody works on it: {entry:?}") };
        let node = &self.snapshot.nodes["n1"];
        step(&NodeContext { snapshot: &self.snapshot, op: &op, node, entry: &entry, work })
    }

    /// Changes the node.
    pub fn node(mut self, change: impl FnOnce(&mut NodeView)) -> Self {
        change(Arc::make_mut(self.snapshot.nodes.get_mut("n1").unwrap()));
        self
    }

    /// Changes the operation.
    pub fn op(mut self, change: impl FnOnce(&mut NodeOp)) -> Self {
        change(Arc::make_mut(self.snapshot.ops.get_mut(&self.me.key()).unwrap()));
        self
    }

    /// Another moment.
    pub fn now(mut self, second: i64) -> Self {
        self.snapshot.now = at(second);
        self
    }

    /// The API server has answered this.
    pub fn answer(mut self, question: Question, answer: Answer) -> Self {
        self.snapshot.answers.insert(question, answer);
        self
    }

    /// Adds a pod.
    pub fn pod(mut self, pod: impl FnOnce(&Self) -> PodView) -> Self {
        let pod = pod(&self);
        self.put(pod);
        self
    }

    /// Adds a pod, or another state of it.
    pub fn put(&mut self, pod: PodView) {
        self.snapshot.pods.insert((pod.namespace.clone(), pod.name.clone()), Arc::new(pod));
    }

    /// The reboot waiter of this attempt, which runs.
    pub fn waiter(&self, attempt: i32) -> PodView {
        let name = object_name::object(("op", "u"), "n1", "reboot", attempt);
        PodView {
            name: name.clone(),
            phase: PodPhase::Running,
            ..fixtures::pod(Role::Waiter, &name, Owner::nodeop("op", "u"), "n1")
        }
    }

    /// Plans until all questions are answered, as the API server would, and records what is to be recorded.
    pub fn pass(&mut self, second: i64) -> Plan {
        self.snapshot.now = at(second);
        self.snapshot.answers.clear();
        for _ in 0..4 {
            let mut sightings = (*self.snapshot.sightings).clone();
            sightings.note(&self.snapshot);
            self.snapshot.sightings = Arc::new(sightings);
            let out = plan(&self.snapshot);
            let open: Vec<_> = out
                .questions
                .iter()
                .filter(|question| self.snapshot.answer(question).is_none())
                .cloned()
                .collect();
            if open.is_empty() {
                assert_eq!(check::broken(&self.snapshot, &out), [""; 0]);
                self.record(&out);
                return out;
            }
            for question in open {
                let found = |seen: bool| if seen { Answer::Found } else { Answer::NotFound };
                let answer = match &question {
                    Question::Pod(key) => found(self.snapshot.pods.contains_key(key)),
                    Question::Job(key) => found(self.snapshot.jobs.contains_key(key)),
                    Question::Node(name) => found(self.snapshot.nodes.contains_key(name)),
                    Question::Op(of) => found(self.snapshot.op(of).is_some()),
                    Question::Events { .. } => self.event.clone(),
                    _ => Answer::Found,
                };
                self.snapshot.answers.insert(question, answer);
            }
        }
        panic!("asks for ever");
    }

    /// Records what the plan writes into the status.
    pub fn record(&mut self, out: &Plan) {
        for action in &out.actions {
            if let Action::PatchStatus { op, status, .. } = action {
                let op = NodeOp { status: Some((**status).clone()), ..(**op).clone() };
                self.snapshot.ops.insert(self.me.key(), Arc::new(op));
            }
        }
    }

    /// The entry as it was recorded last.
    pub fn entry(&self) -> NodeStatus {
        self.snapshot.ops.values().next().unwrap().status.clone().unwrap().node_statuses["n1"].clone()
    }
}

/// A decision in a line, for tables: what it is, and what goes with it.
pub fn line(planned: &Planned<Decision>) -> String {
    let decision = match &planned.value {
        Decision::Wait(why) => format!("waits: {why}"),
        Decision::GiveUp(given_up) => format!("gives up: {}", given_up.reason),
        Decision::Record(entry) => {
            let status = entry.clone().record();
            let step = status.step.map(|step| format!("/{step:?}")).unwrap_or_default();
            format!("records {:?}{step}: {}", status.phase, status.message.unwrap_or_default())
        }
    };
    let actions = planned.effects.actions.iter().map(|action| format!("; {action}"));
    let questions = planned.effects.questions.iter().map(|question| format!("; asks {question}"));
    [decision].into_iter().chain(actions).chain(questions).collect()
}

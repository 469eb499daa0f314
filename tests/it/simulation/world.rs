//! The cluster as it really is: the API server's objects, and the machines, processes and people behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kairos_operator::{
    api::{
        names,
        nodeop::{NodeOp, NodeOpSpec, NodeStatus},
    },
    contract::{Sentinel, Succeeded},
    plan::model::{
        id::{Key, OpRef},
        snapshot::{
            ContainerState, ContainerView, JobView, NodePod, NodeView, Owner, PodPhase, PodView, Role,
        },
    },
};

use super::{history::History, rng::Rng, store::Store};

/// Ticks after which the node controller gives a silent node up.
const SILENCE: i64 = 10;

/// The machine behind a node.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub uid: String,
    pub boot: u32,
    /// Away until then; `i64::MAX`: for good.
    pub down: Option<i64>,
    pub silent_since: i64,
    /// The kubelet has reported the present boot. It does so before it runs a pod.
    pub reported: bool,
    /// The state directory, which survives a reboot.
    pub sentinels: BTreeMap<String, Sentinel>,
    /// The node is unschedulable because a human wants it so.
    pub human: bool,
}

/// What a process of ours on a machine is about to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Run(i64),
    Sentinel,
    Begin,
    Watch,
    Checked,
    Told,
    Asked,
    Completed,
}

/// A pod's process.
#[derive(Clone, Debug)]
pub struct Proc {
    pub boot: u32,
    pub stage: Stage,
}

/// What the Job controller remembers, and what the world has in store for a Job's pods.
#[derive(Clone, Debug, Default)]
pub struct JobMind {
    pub known: BTreeSet<String>,
    pub failures: i32,
    pub pods: u32,
    /// When it was let run.
    pub let_go: Option<i64>,
    pub foreground: bool,
    pub records_success_in: Option<String>,
}

/// How a NodeOp fares on each node.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// How often the command fails before it succeeds.
    pub failures: BTreeMap<String, u32>,
    /// Nodes that cannot pull the image.
    pub unpullable: BTreeSet<String>,
    /// Nodes that preflight skips (`Some`) or refuses (`None`).
    pub preflight: BTreeMap<String, Option<String>>,
    pub inadmissible: bool,
}

/// A pod of the workload, and where it runs (nowhere: it waits for a node).
#[derive(Clone, Debug)]
pub struct Home {
    pub node: String,
    /// Since when it has been there.
    pub bound: i64,
    pub pod: NodePod,
}

#[derive(Debug)]
pub struct World {
    pub rng: Rng,
    pub now: i64,
    pub tick: i64,
    pub rv: u64,
    pub nodes: Store<NodeView>,
    pub ops: Store<NodeOp>,
    pub jobs: Store<JobView>,
    pub pods: Store<PodView>,
    pub homes: Store<Home>,
    pub machines: BTreeMap<String, Machine>,
    pub procs: BTreeMap<String, Proc>,
    pub minds: BTreeMap<String, JobMind>,
    /// The Job that each waiter waits for, and what some were told of it when they were made.
    pub waits_for: BTreeMap<String, String>,
    pub recorded: BTreeMap<String, Succeeded>,
    pub scripts: BTreeMap<String, Script>,
    /// Until when a budget allows no eviction, by group.
    pub blocked: BTreeMap<String, i64>,
    pub history: History,
    /// Two operators at once: what only leader election can promise is not asked for.
    pub rivals: bool,
    pub faults: bool,
    /// The last resourceVersion that was seen to change, and the tick.
    pub rest: (u64, i64),
    pub log: Vec<String>,
}

pub fn node_key(name: &str) -> Key {
    (String::new(), name.to_owned())
}

/// A controlling owner of a kind that is none of ours.
pub fn controller(kind: &str, name: &str) -> Owner {
    Owner { group: "apps".into(), kind: kind.into(), name: name.into(), uid: name.into() }
}

pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: 1_000_000,
            tick: 0,
            rv: 0,
            nodes: Store::new(),
            ops: Store::new(),
            jobs: Store::new(),
            pods: Store::new(),
            homes: Store::new(),
            machines: BTreeMap::new(),
            procs: BTreeMap::new(),
            minds: BTreeMap::new(),
            waits_for: BTreeMap::new(),
            recorded: BTreeMap::new(),
            scripts: BTreeMap::new(),
            blocked: BTreeMap::new(),
            history: History::default(),
            rivals: false,
            faults: false,
            rest: (0, 0),
            log: Vec::new(),
        }
    }

    pub fn time(&self) -> Timestamp {
        time(self.now)
    }

    pub fn note(&mut self, text: impl AsRef<str>) {
        self.log.push(format!("{:>4} {}", self.tick, text.as_ref()));
    }

    pub fn next_rv(&mut self) -> u64 {
        self.rv += 1;
        self.rv
    }

    pub fn uid(&mut self, kind: &str) -> String {
        let rv = self.next_rv();
        format!("{kind}{rv}")
    }

    pub fn add_node(&mut self, name: &str, control_plane: bool) {
        let uid = self.uid("node");
        // Hands off the labels: nobody reads facts in this world.
        let labels = [(names::OS_LABEL, "linux"), (names::MANAGED, "false")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut labels: BTreeMap<_, _> = labels.into_iter().chain(super::hints::label(name)).collect();
        labels.extend(control_plane.then(|| (names::CONTROL_PLANE_LABELS[0].into(), String::new())));
        let machine = Machine { uid: uid.clone(), boot: 1, reported: true, ..Machine::default() };
        let view = NodeView {
            name: name.into(),
            boot_id: boot_id(&uid, 1),
            uid,
            labels: labels.into(),
            annotations: super::hints::foreign(name),
            ready: true,
            ..NodeView::default()
        };
        self.machines.insert(name.into(), machine);
        self.put_node(view);
    }

    pub fn put_node(&mut self, mut node: NodeView) {
        let rv = self.next_rv();
        node.resource_version = rv.to_string();
        self.nodes.put(node_key(&node.name), node, rv);
    }

    /// Changes a node that is there.
    pub fn set_node(&mut self, name: &str, change: impl FnOnce(&mut NodeView)) {
        if let Some(node) = self.nodes.get(&node_key(name)) {
            let mut node = (*node).clone();
            change(&mut node);
            self.put_node(node);
        }
    }

    pub fn add_op(&mut self, name: &str, spec: NodeOpSpec, script: Script) {
        let uid = self.uid("op");
        let mut op = NodeOp::new(name, spec);
        op.metadata.namespace = Some("default".into());
        op.metadata.generation = Some(1);
        op.metadata.creation_timestamp = Some(Time(self.time()));
        op.metadata.uid = Some(uid.clone());
        self.scripts.insert(uid, script);
        self.put_op(op);
    }

    pub fn put_op(&mut self, mut op: NodeOp) -> Arc<NodeOp> {
        let rv = self.next_rv();
        op.metadata.resource_version = Some(rv.to_string());
        let key = op_key(&op);
        let over = op.metadata.deletion_timestamp.is_some()
            && op.metadata.finalizers.iter().flatten().next().is_none();
        if over {
            self.history.gone.insert(op.metadata.uid.clone().unwrap());
            self.ops.remove(&key, rv);
            return Arc::new(op);
        }
        self.history.ops.insert(op.metadata.uid.clone().unwrap(), op.clone());
        self.ops.put(key.clone(), op, rv);
        self.ops.live()[&key].clone()
    }

    pub fn put_job(&mut self, mut job: JobView) {
        let rv = self.next_rv();
        job.resource_version = rv.to_string();
        self.history.jobs.insert(job.uid.clone(), job.clone());
        self.jobs.put((job.namespace.clone(), job.name.clone()), job, rv);
    }

    /// Every change of a Job's spec is told by its generation.
    pub fn change_spec(&mut self, job: JobView) {
        self.put_job(JobView { generation: job.generation.map(|last| last + 1), ..job });
    }

    pub fn put_pod(&mut self, pod: PodView) {
        let rv = self.next_rv();
        self.pods.put((pod.namespace.clone(), pod.name.clone()), pod, rv);
    }

    pub fn set_pod(&mut self, pod: &PodView, change: impl FnOnce(&mut PodView)) {
        let mut pod = pod.clone();
        change(&mut pod);
        self.put_pod(pod);
    }

    pub fn remove_pod(&mut self, pod: &PodView) {
        let rv = self.next_rv();
        self.pods.remove(&(pod.namespace.clone(), pod.name.clone()), rv);
        self.procs.remove(&pod.uid);
    }

    /// A new pod of ours; `false` if one of that name is there.
    pub fn make_pod(&mut self, name: &str, owner: Owner, node: &str, role: Role, parts: &[&str]) -> bool {
        let key = ("default".to_owned(), name.to_owned());
        if self.pods.live().contains_key(&key) {
            return false;
        }
        let containers = parts.iter().map(|name| ContainerView::new(name, waiting("ContainerCreating")));
        let pod = PodView {
            namespace: key.0,
            name: key.1,
            uid: self.uid("pod"),
            owner,
            role,
            node: node.into(),
            phase: PodPhase::Pending,
            reason: String::new(),
            deleting: false,
            created: self.time(),
            attempt: 0,
            reboot_state: None,
            waits_in: None,
            containers: containers.collect(),
        };
        self.put_pod(pod);
        true
    }

    pub fn job_of(&self, uid: &str) -> Option<Arc<JobView>> {
        self.jobs.live().values().find(|job| job.uid == uid).cloned()
    }

    pub fn op_of(&self, uid: &str) -> Option<Arc<NodeOp>> {
        let found = self.ops.live().values().find(|op| op.metadata.uid.as_deref() == Some(uid));
        found.cloned()
    }

    /// The live entry of a node in the NodeOp of that UID.
    pub fn entry(&self, uid: &str, node: &str) -> Option<NodeStatus> {
        self.op_of(uid)?.status.as_ref()?.node_statuses.get(node).cloned()
    }

    /// The node goes down, whoever asked for it.
    pub fn take_down(&mut self, node: &str, back: i64, graceful: bool) {
        let Some(machine) = self.machines.get_mut(node) else { return };
        machine.down = Some(back);
        machine.silent_since = self.tick;
        if !graceful {
            return;
        }
        let pods: Vec<_> = self.pods.live().values().filter(|pod| pod.node == node).cloned().collect();
        for pod in pods.iter().filter(|pod| !pod.phase.is_final()) {
            if self.procs.contains_key(&pod.uid) && self.rng.chance(60) {
                self.set_pod(pod, |pod| end(pod, PodPhase::Failed, "Terminated", 143));
            }
        }
        self.set_node(node, |node| node.ready = false);
    }

    /// Machines that were away come back in a new boot; the node controller gives up those that stay away.
    pub fn node_controller(&mut self) {
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            let tick = self.tick;
            let machine = self.machines.get_mut(&name).unwrap();
            let Some(until) = machine.down else { continue };
            if tick >= until {
                machine.down = None;
                machine.boot += 1;
                machine.reported = false;
                let boot = machine.boot;
                self.note(format!("{name} boots ({boot})"));
            } else if tick >= machine.silent_since + SILENCE
                && self.nodes.get(&node_key(&name)).is_some_and(|node| node.ready)
            {
                self.set_node(&name, |node| node.ready = false);
            }
        }
    }

    /// Time passes; every cache's past gets a mark.
    pub fn end_tick(&mut self) {
        self.tick += 1;
        self.now += 1;
        self.nodes.end_tick();
        self.ops.end_tick();
        self.jobs.end_tick();
        self.pods.end_tick();
        self.homes.end_tick();
    }
}

pub fn op_key(op: &NodeOp) -> Key {
    OpRef::of(op).key()
}

pub fn boot_id(uid: &str, boot: u32) -> String {
    format!("{uid}-boot{boot}")
}

pub fn waiting(reason: &str) -> ContainerState {
    ContainerState::Waiting { reason: reason.into(), message: String::new() }
}

pub fn ended(code: i32, message: &str) -> ContainerState {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ContainerState::Ended { code, reason: reason.into(), message: message.into() }
}

/// A pod ends; containers that were running end with `code`.
pub fn end(pod: &mut PodView, phase: PodPhase, reason: &str, code: i32) {
    pod.phase = phase;
    pod.reason = reason.into();
    for container in &mut pod.containers {
        if matches!(container.state, ContainerState::Running { .. }) {
            container.state = ended(code, "");
        }
    }
}

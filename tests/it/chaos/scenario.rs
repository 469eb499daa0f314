//! A cluster, its workload and its operations, by a seed.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{
    world::{Fates, Init, World},
    worlds::{self, Kind},
};

/// Who operates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One operator; its next life begins when the last one has ended.
    Alone,
    /// Two, of which an election chooses.
    Elected,
    /// Two that both believe to lead.
    Rivals,
}

/// An operation that somebody asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub kind: &'static str,
    pub name: String,
    pub arrives: Duration,
    pub spec: Value,
    pub fates: Fates,
}

/// A run's course, as far as it stands from the beginning.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub mode: Mode,
    pub nodes: usize,
    pub control_planes: usize,
    pub wishes: Vec<Wish>,
    /// How long things go wrong; none: never.
    pub trouble: Duration,
    /// How many pods of each group the budgets want.
    pub groups: usize,
    /// Machines on which new images do not boot.
    pub fall_back: Vec<String>,
    /// How the world is odd.
    pub worlds: BTreeSet<Kind>,
    /// It is measured, and nothing is checked: there is no workload, all machines are alike, and few changes
    /// are remembered, of which each may hold the status of thousands of nodes.
    pub measured: bool,
}

fn seconds(rng: &mut fastrand::Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.u64(low * 1000..=high * 1000))
}

fn chance(rng: &mut fastrand::Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let control_planes = rng.usize(1..=3);
        let nodes = control_planes + rng.usize(1..=4);
        // Every eighth seed is a cluster in which nothing goes wrong.
        let trouble = if seed.is_multiple_of(8) { Duration::ZERO } else { seconds(rng, 60, 600) };
        let mode = match seed % 8 {
            3 | 6 => Mode::Elected,
            5 => Mode::Rivals,
            _ => Mode::Alone,
        };
        let names: Vec<String> = (1..=nodes).map(|number| format!("n{number}")).collect();
        let mut wishes: Vec<Wish> = (0..rng.usize(1..=3)).map(|number| wish(rng, number, &names)).collect();
        let groups = rng.usize(..=3);
        let mut some = || names.iter().filter(|_| chance(rng, 8)).cloned().collect();
        wishes.iter_mut().for_each(|wish| wish.fates.lies = some());
        let fall_back = some();
        let mut scenario = Self {
            mode,
            nodes,
            control_planes,
            wishes,
            trouble,
            groups,
            fall_back,
            worlds: worlds::of(seed),
            measured: false,
        };
        worlds::fit(&mut scenario, rng);
        scenario
    }

    /// A cluster of that many nodes, without workload, wishes or trouble.
    pub fn calm(nodes: usize) -> Self {
        let (wishes, fall_back, worlds) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self {
            mode: Mode::Alone,
            nodes,
            control_planes: 1,
            wishes,
            trouble: Duration::ZERO,
            groups: 0,
            fall_back,
            worlds,
            measured: false,
        }
    }

    /// Whether nothing goes wrong but what the worlds bring.
    pub fn is_calm(&self) -> bool {
        self.trouble.is_zero()
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.worlds.contains(&kind)
    }
}

fn wish(rng: &mut fastrand::Rng, number: usize, names: &[String]) -> Wish {
    let upgrade = chance(rng, 35);
    let name = format!("{}{number}", if upgrade { "up" } else { "op" });
    let mut fates = Fates::default();
    for node in names {
        if chance(rng, 20) {
            fates.failures.insert(node.clone(), rng.u32(1..5));
        }
        if chance(rng, 4) {
            fates.unpullable.push(node.clone());
        }
        if chance(rng, 15) {
            fates.preflight.insert(node.clone(), rng.bool());
        }
    }
    let arrives = if number == 0 { Duration::ZERO } else { seconds(rng, 0, 120) };
    let spec = if upgrade { upgrade_spec(rng, names) } else { op_spec(rng, names) };
    Wish { kind: if upgrade { "NodeOpUpgrade" } else { "NodeOp" }, name, arrives, spec, fates }
}

fn common(rng: &mut fastrand::Rng, names: &[String]) -> Value {
    let mut spec = json!({
        "concurrency": rng.u32(0..=3),
        "uncordonOnFailure": chance(rng, 40),
        "backoffLimit": rng.u32(0..=3),
        "pullTimeoutSeconds": 200,
        "rebootTimeoutSeconds": 900,
        "activeDeadlineSeconds": 1200,
    });
    // Left out as often as not: then the server says what it is.
    if chance(rng, 70) {
        spec["stopOnFailure"] = chance(rng, 60).into();
    }
    if chance(rng, 30) {
        spec["minReadySeconds"] = 10.into();
    }
    if chance(rng, 30) {
        spec["notReadyTimeoutSeconds"] = 200.into();
    }
    if chance(rng, 40) {
        let some: Vec<&String> = names.iter().filter(|_| rng.bool()).collect();
        spec["nodeSelector"] = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": some}]});
        if some.is_empty() {
            spec["nodeSelector"] = Value::Null;
        }
    }
    spec
}

fn op_spec(rng: &mut fastrand::Rng, names: &[String]) -> Value {
    let mut spec = common(rng, names);
    spec["command"] = json!(["true"]);
    spec["image"] = "busybox:1".into();
    spec["rebootOnSuccess"] = chance(rng, 70).into();
    let cordon = chance(rng, 65);
    spec["cordon"] = cordon.into();
    if cordon && chance(rng, 60) {
        spec["drainOptions"] = json!({"enabled": true, "force": chance(rng, 60), "strict": chance(rng, 15)});
        if chance(rng, 40) {
            spec["drainOptions"]["timeoutSeconds"] = 120.into();
        }
    }
    if chance(rng, 30) {
        spec["preflight"] = json!({"command": ["check"]});
    }
    spec
}

pub fn upgrade_spec(rng: &mut fastrand::Rng, names: &[String]) -> Value {
    let mut spec = common(rng, names);
    spec["image"] = format!("kairos:{}", ["v3.5.0", "v3.6.0"][rng.usize(..2)]).into();
    if chance(rng, 20) {
        spec["upgradeRecovery"] = true.into();
    }
    if chance(rng, 20) {
        spec["force"] = true.into();
    }
    spec
}

/// How machines are that are not as they should be.
pub fn machines(world: &World, scenario: &Scenario) {
    for node in world.nodes.keys() {
        let init = match world.rng(|rng| rng.u32(..20)) {
            0 => Init::Deaf,
            1 => Init::Hangs,
            _ => Init::Obeys,
        };
        let falls_back = scenario.fall_back.contains(node);
        world.machine(node, |machine| (machine.init, machine.falls_back) = (init, falls_back));
    }
}

/// The workload, as one text to apply: groups with a budget of one pod away, a DaemonSet, and pods of nobody.
pub fn workload(scenario: &Scenario) -> String {
    let mut objects = Vec::new();
    let template = |group: &str| {
        json!({"metadata": {"labels": {"group": group}}, "spec": {"containers": [{"name": "c", "image": "w:1"}],
            "terminationGracePeriodSeconds": 5, "tolerations": []}})
    };
    for number in 0..scenario.groups {
        let group = format!("g{number}");
        let selector = json!({"matchLabels": {"group": group}});
        let meta = json!({"name": group, "namespace": "default"});
        objects.push(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": 2 + number % 2, "selector": selector, "template": template(&group)}}));
        objects.push(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": selector}}));
    }
    // Its pods keep their names wherever they are.
    let meta = json!({"name": "gs", "namespace": "default"});
    let selector = json!({"matchLabels": {"group": "gs"}});
    objects.push(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta,
        "spec": {"replicas": 2, "serviceName": "gs", "selector": selector, "template": template("gs")}}));
    objects.push(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"group": "daemon"}}, "template": template("daemon")}}));
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

//! One rollout, up to where it is measured.

use std::{
    collections::BTreeMap,
    env,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod},
        policy::v1::PodDisruptionBudget,
    },
    serde::de::DeserializeOwned,
};
use kairos_operator::{
    api::names,
    controllers::{Clock, Controller, metrics::Metrics},
    plan::model::snapshot::facts_of,
};
use kairos_sim::{Cluster, meter};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    line::{Line, Traffic},
    passes::{Passes, Summary},
    turns::Turns,
};
use crate::chaos::{
    operator, run,
    scenario::{Mode, Scenario, Wish},
    world::{World, time_off_by},
};

/// The namespace of the pods that are drained.
const LOAD: &str = "load";
/// For how long a budget keeps one pod of each node where it is, from when the operation is asked for.
const BLOCKED: Duration = Duration::from_secs(60);
/// The label that says in which of two pools a node is.
const POOL: &str = "example.com/pool";

/// What is rolled out, and where: `NODES/CONCURRENCY/UNTIL`, and behind that what is special about it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub concurrency: usize,
    /// The number of nodes that are awaited.
    pub until: usize,
    /// The number of pods on each node that are drained.
    pub pods: usize,
    /// The nodes are two pools, and each has an upgrade of its own.
    pub beside: bool,
    /// What nodes run is not known yet when it begins.
    pub unread: bool,
}

impl Plan {
    /// Reads an argument of `scripts/bench`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('/');
        let number = |part: Option<&str>| part.and_then(|part| part.parse().ok());
        let (nodes, concurrency) = (number(parts.next()), number(parts.next()));
        let (Some(nodes), Some(concurrency)) = (nodes, concurrency) else {
            panic!("{text}: NODES/CONCURRENCY/UNTIL[/pods=N][/beside][/unread]")
        };
        let until = match parts.next() {
            Some("all") => nodes,
            part => number(part).unwrap_or_else(|| panic!("{text}: until how many nodes are done, or all")),
        };
        let mut plan = Self { nodes, concurrency, until, pods: 0, beside: false, unread: false };
        for part in parts {
            match part.split_once('=') {
                Some(("pods", pods)) => plan.pods = pods.parse().expect("a number of pods"),
                None if part == "beside" => plan.beside = true,
                None if part == "unread" => plan.unread = true,
                _ => panic!("{text}: what is {part}?"),
            }
        }
        plan
    }

    /// The upgrades, each with what selects its nodes.
    fn wishes(&self) -> Vec<Wish> {
        let pools: &[&str] = if self.beside { &["a", "b"] } else { &["a"] };
        let wish = |pool: &&str| {
            let mut spec = json!({"image": "quay.io/kairos/opensuse:v3.5.0", "concurrency": self.concurrency,
                "drain": {"enabled": self.pods > 0}});
            if self.beside {
                spec["nodeSelector"] = json!({"matchLabels": {POOL: pool}});
            }
            let (name, arrives) = (format!("up-{pool}"), Duration::ZERO);
            Wish { kind: "NodeOpUpgrade", name, arrives, spec, fates: <_>::default() }
        };
        pools.iter().map(wish).collect()
    }
}

/// What it came to.
pub struct Figures {
    pub done: usize,
    pub spent: meter::Spent,
    /// How many were done when the first was, and what it came to until then: what is once for all nodes is
    /// in that, and the nodes that are begun by then.
    pub begun: usize,
    pub first: meter::Spent,
    /// From then on.
    pub passes: Summary,
    /// By verb and resource.
    pub writes: BTreeMap<String, usize>,
    pub traffic: Arc<Traffic>,
    pub status: usize,
    pub took: Duration,
    /// The longest time for which a node was had, of those that are given back.
    pub slowest: Duration,
}

/// An operator that runs, with its metrics, as the manifests have it.
pub fn operate(cluster: &Cluster, world: &World, traffic: &Arc<Traffic>) -> JoinHandle<()> {
    let told_since = env::var_os("KAIROS_BENCH_LOG").map(|_| Instant::now());
    let line = Line { server: cluster.service(&world.operator_token), traffic: traffic.clone(), told_since };
    let client = Client::new(line, "default");
    let args = operator::args(Mode::Alone, &world.worlds);
    let clock = Clock::set_to(time_off_by(0));
    tokio::spawn(async move {
        let mut controller = Controller::new(&args, client, clock, "operator-0".into());
        controller.measure(&Metrics::new());
        let _running = controller.start();
        std::future::pending::<()>().await;
    })
}

/// Plays a rollout up to where it is measured.
pub async fn play(plan: Plan, passes: Passes) -> Figures {
    let scenario = Scenario { measured: true, ..Scenario::calm(plan.nodes) };
    let (cluster, world) = run::cluster(1, &scenario).await;
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    prepare(&plan, &world, &cluster, &names).await;
    let traffic = Arc::new(Traffic::default());
    let running = operate(&cluster, &world, &traffic);
    sleep(Duration::from_secs(10)).await;
    let (before, asked) = (meter::spent(), cluster.requests().len());
    traffic.sent.store(0, Ordering::Relaxed);
    traffic.read.store(0, Ordering::Relaxed);
    let began = Instant::now();
    meter::forget_longest();
    for wish in plan.wishes() {
        world.fates(&wish.name, |fates| *fates = wish.fates.clone());
        assert!(run::ask_for(&world, &wish).await, "it is there already");
    }
    let (mut done, mut first, mut turns) = (0, None, Turns::default());
    let mut is_blocked = plan.pods > 0;
    while done < plan.until {
        sleep(Duration::from_secs(1)).await;
        turns.note(&cluster);
        if is_blocked && began.elapsed() >= BLOCKED {
            is_blocked = false;
            let budgets = Api::<PodDisruptionBudget>::namespaced(world.client.clone(), LOAD);
            budgets.delete("held", &DeleteParams::default()).await.expect("it is there");
        }
        let before = done;
        done = cluster.list("nodeops.operator.kairos.io").iter().map(|op| ended(op)).sum();
        if done > before && first.is_none() {
            first = Some((done, meter::spent()));
            meter::forget_longest();
            passes.forget();
        }
    }
    let (after, took) = (meter::spent(), began.elapsed());
    let passes = passes.summary();
    // The last of them is given back a moment later than it is done.
    let whole = plan.until == plan.nodes;
    while whole && turns.slowest().1 < plan.nodes {
        sleep(Duration::from_secs(1)).await;
        turns.note(&cluster);
    }
    let (begun, first) = first.unwrap_or((0, before));
    let since = |then: meter::Spent| meter::Spent {
        operator: then.operator - before.operator,
        simulation: then.simulation - before.simulation,
        longest: then.longest,
    };
    let ops = cluster.list("nodeops.operator.kairos.io");
    let status = ops.iter().map(|op| op["status"].to_string().len()).max().unwrap_or_default();
    let figures = Figures {
        done,
        begun,
        first: since(first),
        spent: since(after),
        passes,
        writes: written(&cluster, asked),
        traffic,
        status,
        took,
        slowest: turns.slowest().0,
    };
    running.abort();
    figures
}

/// How many nodes a NodeOp is done with.
fn ended(op: &Value) -> usize {
    let counts = &op["status"]["counts"];
    let of = |name: &str| counts[name].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    of("completed") + of("failed")
}

/// What the operator has written since this number of requests, Events and evictions aside.
fn written(cluster: &Cluster, asked: usize) -> BTreeMap<String, usize> {
    let user =
        format!("system:serviceaccount:{}:{}", kairos_sim::install::NAMESPACE, kairos_sim::install::ACCOUNT);
    let mut writes = BTreeMap::new();
    cluster.requests()[asked..]
        .iter()
        .filter(|request| request.user == user && !["get", "list", "watch"].contains(&request.verb.as_str()))
        .filter(|request| !request.resource.starts_with("events") && request.resource != "pods/eviction")
        .map(|request| format!("{} {}", request.verb, request.resource))
        .for_each(|write| *writes.entry(write).or_default() += 1);
    writes
}

/// Makes the cluster what the rollout is measured on.
async fn prepare(plan: &Plan, world: &World, cluster: &Cluster, names: &[String]) {
    let nodes = Api::<Node>::all(world.client.clone());
    for (number, node) in cluster.list("nodes").iter().enumerate() {
        let boot = node["status"]["nodeInfo"]["bootID"].as_str().expect("a boot id");
        let pool = if number < plan.nodes / 2 { "a" } else { "b" };
        let mut said = json!({"metadata": {"labels": {POOL: pool}}});
        // To read it, of each, is a matter of its own.
        if !plan.unread {
            said["metadata"]["labels"][names::MANAGED] = "true".into();
            said["metadata"]["annotations"] = json!({
                names::FACTS_OF: facts_of(boot, |label| (label == names::MANAGED).then_some("true")),
                names::BOOT_STATE_OF: "active",
                names::RELEASE: "v3.4.0",
            });
        }
        let name = node["metadata"]["name"].as_str().expect("a name");
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(said)).await.expect("a patch");
    }
    if plan.pods > 0 {
        load(world, names, plan.pods).await;
    }
}

/// Pods that nobody makes again, so that what is measured is the drain alone; a budget keeps one of each node
/// where it is.
async fn load(world: &World, nodes: &[String], pods: usize) {
    make(&Api::<Namespace>::all(world.client.clone()), json!({"metadata": {"name": LOAD}})).await;
    let selector = json!({"matchLabels": {"held": "true"}});
    let budget = json!({"metadata": {"name": "held"}, "spec": {"maxUnavailable": 0, "selector": selector}});
    make(&Api::<PodDisruptionBudget>::namespaced(world.client.clone(), LOAD), budget).await;
    let api = Api::<Pod>::namespaced(world.client.clone(), LOAD);
    let owner = json!([{"apiVersion": "load.example.com/v1", "kind": "Load", "name": "load", "uid": "load", "controller": true}]);
    for node in nodes {
        for number in 0..pods {
            let labels = json!({"app": "load", "held": (number == 0).to_string()});
            let name = format!("{node}-{number}");
            make(&api, json!({"metadata": {"name": name, "labels": labels, "ownerReferences": owner},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "w:1"}]}}))
            .await;
        }
    }
    sleep(Duration::from_secs(30)).await;
}

async fn make<K>(api: &Api<K>, object: Value)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("it is new");
}

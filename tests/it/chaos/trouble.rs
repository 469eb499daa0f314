//! What machines, people and the network do to a rollout.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Node as NodeObject, Pod},
        policy::v1::PodDisruptionBudget,
    },
    jiff::SignedDuration,
};
use kairos_operator::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::{Cluster, Fate};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    history::text,
    operator::{Order, Replica},
    run::weather,
    scenario::{Mode, Scenario},
    wire::{Leaseless, Odds},
    world::{Event, World},
    worlds::{self, Kind},
};

/// Makes trouble for as long as the scenario wants it.
pub async fn make(cluster: &Cluster, world: &Arc<World>, scenario: &Scenario, replicas: &[Replica]) {
    let end = Instant::now() + scenario.trouble;
    if scenario.trouble.is_zero() {
        return;
    }
    let (odds, pace, latest) = world.rng(|rng| {
        let scale = [0, 1, 1, 3][rng.usize(..4)];
        // What is still on its way when another one leads shows whether the fence holds.
        let late = if scenario.mode == Mode::Elected { 80 } else { 15 };
        let mut odds = |most: u32| rng.u32(..=most) * scale;
        let odds = Odds {
            refused: odds(20),
            dropped: odds(20),
            unanswered: odds(15),
            late: odds(late),
            killed: odds(10),
            watch_cut: odds(20),
            watch_stalled: odds(15),
            watch_repeated: odds(30),
            meddled: odds(30),
        };
        (odds, rng.u64(1_000..20_000), rng.u64(100..4_000))
    });
    world.note(|| format!("{odds:?}, a fault every {pace} ms"));
    weather(world, |weather| {
        weather.odds = odds;
        weather.latest =
            Duration::from_millis(if scenario.mode == Mode::Rivals { latest * 4 } else { latest });
    });
    let mut restore = world
        .is(Kind::StoreBack)
        .then(|| Instant::now() + scenario.trouble.mul_f64(world.rng(|rng| rng.f64()) * 0.5 + 0.3));
    loop {
        let pause = world.time(pace / 10, pace * 2);
        if Instant::now() + pause >= end {
            return tokio::time::sleep_until(end).await;
        }
        sleep(pause).await;
        let trouble = Trouble { cluster, world, replicas };
        if restore.is_some_and(|at| Instant::now() > at) {
            restore = None;
            trouble.away();
            worlds::restore(cluster, world).await;
        }
        if scenario.mode == Mode::Elected && world.chance(15) {
            trouble.lose_lease();
        }
        trouble.once().await;
    }
}

struct Trouble<'a> {
    cluster: &'a Cluster,
    world: &'a Arc<World>,
    replicas: &'a [Replica],
}

impl Trouble<'_> {
    fn pick<T: Clone>(&self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.world.rng(|rng| rng.usize(..items.len()))].clone())
    }

    async fn once(&self) {
        let names: Vec<String> = self.world.nodes.keys().cloned().collect();
        let node = self.pick(&names).expect("a node");
        match self.world.rng(|rng| rng.u32(..23)) {
            0 | 1 => self.reboot(&node),
            2 if self.world.chance(50) => self.die(&node),
            3 if self.world.chance(40) => self.delete_node(&node).await,
            4 | 5 => human(self.world, &node).await,
            6 => self.delete_job().await,
            7..=9 => self.delete_pod().await,
            10 if self.world.chance(40) => self.delete_operation().await,
            11 => self.jump(),
            12 | 13 => self.compact(),
            14 => self.away(),
            15..=19 => self.kill(),
            20 => self.block().await,
            21 => self.hurry().await,
            22 => weather(self.world, |weather| weather.cut.send_modify(|count| *count += 1)),
            _ => {}
        }
    }

    /// One operator cannot renew, and could write on.
    fn lose_lease(&self) {
        let operator = self.world.rng(|rng| rng.usize(..self.replicas.len()));
        let (now, breaks, time) =
            (Instant::now(), self.world.time(0, 10_000), self.world.time(8_000, 45_000));
        let leaseless = Leaseless { operator, breaks_until: now + breaks, until: now + time };
        self.world.note(|| format!("fault: operator {operator} does not reach the Lease for {time:?}, connections break for {breaks:?}"));
        weather(self.world, |weather| weather.leaseless = Some(leaseless));
    }

    fn reboot(&self, node: &str) {
        if self.world.nodes[node].boot().up {
            self.world.note(|| format!("fault: {node} reboots by itself"));
            self.world.nodes[node].set_fate(Fate::Late(self.world.time(1_000, 60_000)));
            self.world.nodes[node].reboot();
        }
    }

    /// It comes back after minutes, or at the end of trouble.
    fn die(&self, node: &str) {
        if self.world.nodes[node].boot().up {
            self.world.note(|| format!("fault: {node} dies"));
            self.world.nodes[node].set_fate(Fate::Late(self.world.time(60_000, 1_200_000)));
            self.world.nodes[node].reboot();
        }
    }

    /// The Node goes; the machine joins again if it boots.
    async fn delete_node(&self, node: &str) {
        self.world.note(|| format!("fault: {node} is deleted"));
        let nodes: Api<NodeObject> = Api::all(self.world.client.clone());
        // It may be gone already.
        let _ = nodes.delete(node, &DeleteParams::default()).await;
        if self.world.chance(60) {
            let (world, node) = (self.world.clone(), node.to_owned());
            let wait = world.time(0, 60_000);
            tokio::spawn(async move {
                sleep(wait).await;
                world.note(|| format!("{node} joins again"));
                world.nodes[&node].reboot();
            });
        }
    }

    async fn delete_job(&self) {
        let Some(job) = self.pick(&self.cluster.list("jobs.batch")) else { return };
        let name = text(&job, "/metadata/name");
        self.world.note(|| format!("fault: Job {name} is deleted by hand"));
        let jobs: Api<Job> = Api::default_namespaced(self.world.client.clone());
        let params =
            if self.world.chance(80) { DeleteParams::background() } else { DeleteParams::foreground() };
        let _ = jobs.delete(name, &params).await;
    }

    async fn delete_pod(&self) {
        let pods = self.cluster.list("pods");
        let ours = |pod: &&kairos_sim::store::Object| pod["metadata"]["labels"]["group"].is_null();
        let mine: Vec<_> = pods.iter().filter(ours).cloned().collect();
        let Some(pod) = self.pick(if self.world.chance(80) { &mine } else { &pods }) else { return };
        let (namespace, name) = (text(&pod, "/metadata/namespace"), text(&pod, "/metadata/name"));
        let force = self.world.chance(30);
        self.world.note(|| format!("fault: pod {name} is deleted by hand, force: {force}"));
        let pods: Api<Pod> = Api::namespaced(self.world.client.clone(), namespace);
        let params = if force { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        let _ = pods.delete(name, &params).await;
    }

    async fn delete_operation(&self) {
        let mut all: Vec<(bool, String)> = Vec::new();
        for (upgrade, table) in [(false, super::history::OPS), (true, super::history::UPGRADES)] {
            all.extend(
                self.cluster.list(table).iter().map(|op| (upgrade, text(op, "/metadata/name").to_owned())),
            );
        }
        let Some((upgrade, name)) = self.pick(&all) else { return };
        self.world.note(|| format!("fault: {name} is deleted, as an upgrade: {upgrade}"));
        delete(self.world, upgrade, &name).await;
    }

    /// A clock is set right, or wrong.
    fn jump(&self) {
        let seconds = self.world.rng(|rng| rng.i64(-300..900));
        if self.world.chance(30) {
            self.world.note(|| format!("fault: the server's clock jumps by {seconds} s"));
            return kairos_sim::clock::jump(SignedDuration::from_secs(seconds));
        }
        let replica = self.pick(self.replicas).expect("a replica");
        self.world.note(|| format!("fault: an operator's clock is off by {seconds} s"));
        replica.off.store(replica.base + seconds, Ordering::Relaxed);
    }

    /// The versions that watches would resume from are forgotten.
    fn compact(&self) {
        self.world.note(|| "fault: history is compacted".into());
        self.cluster.compact();
        weather(self.world, |weather| weather.cut.send_modify(|count| *count += 1));
    }

    fn away(&self) {
        let time = if self.world.chance(70) {
            self.world.time(500, 20_000)
        } else {
            self.world.time(20_000, 240_000)
        };
        self.world.note(|| format!("fault: the API server is away for {time:?}"));
        weather(self.world, |weather| {
            weather.away_until = Some(Instant::now() + time);
            weather.cut.send_modify(|count| *count += 1);
        });
    }

    fn kill(&self) {
        let replica = self.pick(self.replicas).expect("a replica");
        let order = if self.world.chance(75) { Order::Kill } else { Order::End };
        // It may be dead already.
        let _ = replica.orders.send(order);
    }

    /// A budget allows nothing for a while.
    async fn block(&self) {
        let Some(budget) = self.pick(&self.cluster.list("poddisruptionbudgets.policy")) else { return };
        let name = text(&budget, "/metadata/name").to_owned();
        self.world.note(|| format!("fault: the budget {name} allows nothing"));
        allow(self.world, &name, 0).await;
        let (world, time) = (self.world.clone(), self.world.time(10_000, 120_000));
        tokio::spawn(async move {
            sleep(time).await;
            allow(&world, &name, 1).await;
        });
    }

    /// Somebody changes what may be changed.
    async fn hurry(&self) {
        let Some(op) = self.pick(&self.cluster.list(super::history::OPS)) else { return };
        if op["spec"]["upgrade"].is_object() {
            return;
        }
        let name = text(&op, "/metadata/name");
        let most = op["spec"]["concurrency"].as_u64().unwrap_or_default();
        // Only more: with less, what is in progress already would be too much.
        let patch = json!({"spec": {"concurrency": if most == 0 { 0 } else { most + 1 }}});
        self.world.note(|| format!("fault: the concurrency of {name} grows"));
        let ops: Api<NodeOp> = Api::default_namespaced(self.world.client.clone());
        let _ = ops.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    }
}

/// Deletes an operation. It may be gone already.
pub async fn delete(world: &World, upgrade: bool, name: &str) {
    let params = DeleteParams::background();
    if upgrade {
        let _ = Api::<NodeOpUpgrade>::default_namespaced(world.client.clone()).delete(name, &params).await;
    } else {
        let _ = Api::<NodeOp>::default_namespaced(world.client.clone()).delete(name, &params).await;
    }
}

/// A human cordons a node, or uncordons it.
pub async fn human(world: &World, node: &str) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let Ok(now) = nodes.get(node).await else { return };
    let cordoned = now.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    // With a mark of ours on the node nobody could tell a human's cordon from our own.
    if !cordoned && now.annotations().contains_key(names::CORDONED_BY) {
        return;
    }
    let wanted = if cordoned { Value::Null } else { Value::Bool(true) };
    let patch =
        json!({"metadata": {"resourceVersion": now.resource_version()}, "spec": {"unschedulable": wanted}});
    if nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
        world.happens(node, Event::Human { cordoned: !cordoned });
    }
}

/// Somebody uncordons the nodes that failed and hold their slot.
pub async fn look_after_failed_nodes(cluster: &Cluster, world: &World) {
    let ops = cluster.list(super::history::OPS);
    let is_open = |op: &&Arc<Value>| !matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed"));
    let open: Vec<_> = ops.iter().filter(is_open).collect();
    for node in cluster.list("nodes") {
        let name = text(&node, "/metadata/name");
        // Also what an operation that is over has left: the next upgrade waits for it.
        let is_kept = node["metadata"]["annotations"][names::CORDONED_BY]
            .as_str()
            .is_some_and(|by| by.contains("!failed") && !open.is_empty());
        let waited_for =
            is_kept || open.iter().any(|op| op["status"]["nodeStatuses"][name]["holdsSlot"] == true);
        if waited_for && node["spec"]["unschedulable"] == true {
            human(world, name).await;
        }
    }
}

async fn allow(world: &World, budget: &str, pods: u32) {
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(world.client.clone());
    let patch = json!({"spec": {"maxUnavailable": pods}});
    let _ = budgets.patch(budget, &PatchParams::default(), &Patch::Merge(patch)).await;
}

/// Nothing goes wrong any more: machines that are away come back or are taken out of the cluster, clocks are
/// right.
pub async fn mend(cluster: &Cluster, world: &World, replicas: &[Replica]) {
    weather(world, super::wire::Weather::clear);
    replicas.iter().for_each(|replica| replica.off.store(replica.base, Ordering::Relaxed));
    for budget in cluster.list("poddisruptionbudgets.policy") {
        allow(world, text(&budget, "/metadata/name"), 1).await;
    }
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    for (name, node) in &world.nodes {
        if !node.boot().up && world.chance(50) {
            world.note(|| format!("{name} is taken out of the cluster"));
            node.scrap();
            let _ = nodes.delete(name, &DeleteParams::default()).await;
        }
    }
    // Workload that finds no node would hold its budget for ever; somebody scales it down.
    for pod in cluster.list("pods").iter().filter(|pod| text(pod, "/spec/nodeName").is_empty()) {
        let name = pod["metadata"]["labels"]["group"].as_str().unwrap_or_default();
        let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(world.client.clone());
        let _ = budgets.delete(name, &DeleteParams::default()).await;
    }
}

/// Nothing guards the workload any more.
pub async fn lift_budgets(cluster: &Cluster, world: &World) {
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(world.client.clone());
    for budget in cluster.list("poddisruptionbudgets.policy") {
        world.note(|| format!("the budget {} is lifted", budget["metadata"]["name"]));
        let _ = budgets.delete(text(&budget, "/metadata/name"), &DeleteParams::default()).await;
    }
}

/// Somebody cleans up.
pub async fn delete_all(cluster: &Cluster) {
    let (params, list) = (DeleteParams::background(), ListParams::default());
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(cluster.client());
    for upgrade in upgrades.list(&list).await.expect("a list") {
        let _ = upgrades.delete(&upgrade.name_any(), &params).await;
    }
    let ops: Api<NodeOp> = Api::default_namespaced(cluster.client());
    for op in ops.list(&list).await.expect("a list") {
        let _ = ops.delete(&op.name_any(), &params).await;
    }
}

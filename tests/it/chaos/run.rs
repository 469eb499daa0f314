//! One run: a cluster and its operators, a time of trouble, and the way to rest.

use std::{
    sync::{Arc, LazyLock, PoisonError},
    time::Duration,
};

use kairos_operator::{contract, manifests::install::objects};
use kairos_sim::{Cluster, install};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    history, kubelet,
    operator::{BACK, Replica},
    scenario::{self, Mode, Scenario, Wish},
    trouble,
    wire::READ_TIMEOUT,
    world::{BEGINNING, World},
    worlds::{self, Kind},
};

/// Within this time everything must be over once nothing goes wrong any more.
const TIMEOUT: Duration = Duration::from_secs(3 * 3600);
/// Budgets that block a drain for this time, because too few nodes are left for the workload, are lifted by
/// somebody.
const STUBBORN: Duration = Duration::from_secs(900);
/// What goes on by itself has come to its end if nothing began for this time.
const SETTLES: Duration = Duration::from_secs(300);
/// Changes that are remembered where nothing is checked: some seconds of hundreds of nodes at once.
const REMEMBERED: usize = 5_000;
/// What happens at rest is watched for this time.
const REST: Duration = Duration::from_secs(20 * 60);

/// What came of a run.
pub struct Outcome {
    pub broken: Vec<String>,
    /// What was done, and what was changed on the server, in their order.
    pub log: Vec<String>,
    /// All that was ever stored, Events aside.
    pub digest: u64,
}

static MANIFESTS: LazyLock<String> =
    LazyLock::new(|| install::without_deployment(objects(contract::IMAGE).expect("the manifests")));

/// Plays a seed.
pub fn run(seed: u64) -> Outcome {
    runtime(seed).block_on(play(seed))
}

/// One thread, on which time passes when nothing else is to be done.
pub fn runtime(seed: u64) -> tokio::runtime::Runtime {
    // The back-off of watches draws from here.
    fastrand::seed(seed);
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

async fn play(seed: u64) -> Outcome {
    let scenario = Scenario::of(seed);
    let (cluster, world) = cluster(seed, &scenario).await;
    world.note(|| format!("{scenario:#?}"));
    let count = if scenario.mode == Mode::Alone { 1 } else { 2 };
    let replicas: Vec<Replica> =
        (0..count).map(|number| Replica::start(&world, number, scenario.mode)).collect();
    worlds::go_on(&cluster, &world, &scenario, &replicas);
    for wish in scenario.wishes.clone() {
        tokio::spawn(arrive(world.clone(), wish));
    }
    trouble::make(&cluster, &world, &scenario, &replicas).await;
    world.note(|| "nothing goes wrong from here on".into());
    trouble::mend(&cluster, &world, &replicas).await;
    // What hangs still, hangs until its client's patience ends.
    sleep(BACK.max(READ_TIMEOUT)).await;
    let mut broken = Vec::new();
    let calm_since = world.elapsed();
    // What is over stays so: an upgrade that goes on may begin again, and one that waits for another may be
    // at its turn in a moment.
    let pause = if world.is(Kind::Continuous) { SETTLES } else { Duration::from_secs(60) };
    let mut settled = calm_since + pause;
    loop {
        let over = history::is_over(&cluster, &world, &scenario);
        if over && world.elapsed() >= settled {
            break;
        }
        if !over {
            settled = world.elapsed() + pause;
        }
        if world.elapsed() > calm_since + STUBBORN {
            trouble::lift_budgets(&cluster, &world).await;
        }
        trouble::look_after_failed_nodes(&cluster, &world).await;
        if world.elapsed() > calm_since + TIMEOUT {
            broken.push(format!(
                "not over {} s after the end of trouble: {}",
                TIMEOUT.as_secs(),
                history::open(&cluster)
            ));
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    world.note(|| "at rest".into());
    let before = cluster.requests().len();
    let boots = || cluster.nodes().map(|node| node.boots().len()).sum::<usize>();
    let booted = boots();
    sleep(REST).await;
    history::check_idle(&cluster.requests()[before..], boots() - booted, (&scenario, &world), &mut broken);
    history::check_pace(&cluster.requests(), &scenario, &mut broken);
    history::check_pace_of_each(&cluster.requests(), &scenario, &mut broken);
    history::check_budget(&cluster, boots(), &scenario, &mut broken);
    history::check_rest(&cluster, &world, &scenario, &mut broken);
    history::check_runs(&cluster, &mut broken);
    trouble::delete_all(&cluster).await;
    sleep(Duration::from_secs(120)).await;
    history::check_gone(&cluster, &world, &mut broken);
    history::check(&cluster, &world, &scenario, &mut broken);
    for what in &broken {
        world.note(|| format!("BROKEN: {what}"));
    }
    let mut log = history::told(&cluster);
    log.extend(world.log());
    // A stable sort: a change comes before what was noted after it.
    log.sort_by_key(|(version, _)| *version);
    let log = log.into_iter().map(|(_, line)| line).collect();
    Outcome { broken, log, digest: history::digest(&cluster) }
}

/// A cluster with its machines and its workload, and nobody who operates it.
pub async fn cluster(seed: u64, scenario: &Scenario) -> (Cluster, Arc<World>) {
    kairos_sim::clock::set(BEGINNING);
    let builder = Cluster::builder()
        .in_process()
        .seed(seed)
        .nodes(scenario.nodes)
        .history(if scenario.measured { REMEMBERED } else { usize::MAX })
        .control_planes(scenario.control_planes);
    let cluster = builder
        .not_ready_after(Duration::from_secs(10))
        .boot(Duration::from_secs(8))
        .start()
        .await
        .expect("a cluster");
    cluster.apply(&MANIFESTS).await.expect("manifests");
    let token = cluster.account_token(install::NAMESPACE, install::ACCOUNT).expect("the operator's token");
    let world = World::new(seed, &cluster, token, scenario.worlds.clone(), scenario.measured);
    if !scenario.measured {
        scenario::machines(&world, scenario);
    }
    let scripted = world.clone();
    cluster.script(move |run| kubelet::script(&scripted, run));
    if !scenario.measured {
        cluster.apply(&scenario::workload(scenario)).await.expect("workload");
    }
    sleep(Duration::from_secs(2)).await;
    worlds::furnish(&cluster, &world).await;
    (cluster, world)
}

/// Somebody asks for an operation.
async fn arrive(world: Arc<World>, wish: Wish) {
    sleep(wish.arrives).await;
    world.fates(&wish.name, |fates| *fates = wish.fates.clone());
    assert!(ask_for(&world, &wish).await, "{} is not there yet", wish.name);
    world.fates(&wish.name, |fates| fates.arrived = true);
}

/// Makes an operation; false: one of its name is still there.
pub async fn ask_for(world: &World, wish: &Wish) -> bool {
    let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": wish.kind,
        "metadata": {"name": wish.name, "namespace": "default"}, "spec": wish.spec});
    match create(&world.client, wish.kind, object).await {
        Ok(()) => {
            world.note(|| format!("{} {} is asked for", wish.kind, wish.name));
            true
        }
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => panic!("{} is not admitted: {error}", wish.name),
    }
}

async fn create(client: &kube::Client, kind: &str, object: Value) -> kube::Result<()> {
    use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
    use kube::{Api, api::PostParams};
    let params = PostParams::default();
    if kind == "NodeOp" {
        let op: NodeOp = serde_json::from_value(object).expect("a NodeOp");
        Api::default_namespaced(client.clone()).create(&params, &op).await.map(drop)
    } else {
        let upgrade: NodeOpUpgrade = serde_json::from_value(object).expect("a NodeOpUpgrade");
        Api::default_namespaced(client.clone()).create(&params, &upgrade).await.map(drop)
    }
}

/// The weather of a run's trouble.
pub fn weather<T>(world: &World, change: impl FnOnce(&mut super::wire::Weather) -> T) -> T {
    change(&mut world.weather.lock().unwrap_or_else(PoisonError::into_inner))
}

//! Operations that are asked for too early, that nobody matches yet, that are paused, and that are slowed
//! down on their way.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kairos_operator::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::Fate;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{scenario::Scenario, world::World},
    Kind,
};

/// After a node has joined, whatever waits for it has this time to begin before a run may end.
const BEGINS: Duration = Duration::from_secs(120);

/// Fits what is asked for to the worlds in which it is asked.
pub fn wish(scenario: &mut Scenario, rng: &mut fastrand::Rng) {
    let worlds = scenario.worlds.clone();
    let last = latecomer(scenario.nodes);
    for wish in &mut scenario.wishes {
        if worlds.contains(&Kind::OwnLabels) && rng.u32(..100) < 80 {
            wish.spec["nodeSelector"] = json!({"matchLabels": {names::MANAGED: "true"}});
            wish.arrives = Duration::from_millis(rng.u64(..2_000));
        }
        if worlds.contains(&Kind::NobodyYet) && rng.u32(..100) < 60 {
            wish.spec["nodeSelector"] = json!({"matchLabels": {"kubernetes.io/hostname": last}});
            if rng.bool() {
                wish.spec["nodeSelector"]["matchLabels"][names::MANAGED] = "true".into();
            }
        }
        if worlds.contains(&Kind::Paused) && rng.u32(..100) < 40 {
            wish.spec["paused"] = true.into();
        }
        if worlds.contains(&Kind::LoadBalancers) && rng.u32(..100) < 80 {
            if wish.kind == "NodeOp" {
                wish.spec["cordon"] = true.into();
            }
            wish.spec["loadBalancer"] = json!({"exclude": true, "waitSeconds": rng.u32(..30)});
        }
        if worlds.contains(&Kind::Lowered) {
            wish.spec["nodeSelector"] = Value::Null;
            wish.spec["concurrency"] = [0, 2, 3, 4][rng.usize(..4)].into();
        }
    }
}

/// The name of the node that joins late.
fn latecomer(nodes: usize) -> String {
    format!("n{nodes}")
}

/// One machine is not there at the beginning, and joins later.
pub async fn keep_away(world: &Arc<World>) {
    let name = latecomer(world.nodes.len());
    let away = world.time(1_000, 240_000);
    world.note(|| format!("{name} joins after {away:?}"));
    world.nodes[&name].set_fate(Fate::Late(away));
    world.nodes[&name].reboot();
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    nodes.delete(&name, &DeleteParams::default()).await.expect("it was there");
    let busy = world.busy();
    tokio::spawn(async move {
        sleep(away + BEGINS).await;
        drop(busy);
    });
}

/// An operation, or an upgrade, that somebody may change: the NodeOp of an upgrade is not.
struct Changed {
    upgrade: bool,
    name: String,
    concurrency: i32,
    paused: bool,
}

async fn all(world: &World) -> Vec<Changed> {
    let (ops, list) = (Api::<NodeOp>::default_namespaced(world.client.clone()), ListParams::default());
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(world.client.clone());
    let (Ok(ops), Ok(upgrades)) = (ops.list(&list).await, upgrades.list(&list).await) else {
        return Vec::new();
    };
    let own = ops.into_iter().filter(|op| op.spec.upgrade.is_none());
    let own = own.map(|op| (false, op.name_any(), op.spec.concurrency, op.spec.paused));
    let of_upgrades =
        upgrades.into_iter().map(|up| (true, up.name_any(), up.spec.concurrency, up.spec.paused));
    let all = own.chain(of_upgrades);
    all.map(|(upgrade, name, concurrency, paused)| Changed {
        upgrade,
        name,
        concurrency,
        paused: paused == Some(true),
    })
    .collect()
}

/// Changes what may be changed; the operation may be gone by now.
async fn change(world: &World, it: &Changed, spec: Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": spec})));
    if it.upgrade {
        let _ = Api::<NodeOpUpgrade>::default_namespaced(world.client.clone())
            .patch(&it.name, &params, &patch)
            .await;
    } else {
        let _ =
            Api::<NodeOp>::default_namespaced(world.client.clone()).patch(&it.name, &params, &patch).await;
    }
}

/// Somebody pauses operations, and lets them go on; in the end none is paused.
pub fn pause(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(3..10)) {
            sleep(world.time(500, 45_000)).await;
            let all = all(&world).await;
            if all.is_empty() {
                continue;
            }
            let it = &all[world.rng(|rng| rng.usize(..all.len()))];
            world.note(|| format!("{} is paused: {}", it.name, !it.paused));
            change(&world, it, json!({"paused": !it.paused})).await;
        }
        drop(busy);
        loop {
            for it in all(&world).await.iter().filter(|it| it.paused) {
                world.note(|| format!("{} is not paused any more", it.name));
                change(&world, it, json!({"paused": false})).await;
            }
            sleep(Duration::from_secs(10)).await;
        }
    });
}

/// Somebody wants fewer nodes away at a time.
pub fn lower(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(2..8)) {
            sleep(world.time(500, 40_000)).await;
            let all = all(&world).await;
            if all.is_empty() {
                continue;
            }
            let it = &all[world.rng(|rng| rng.usize(..all.len()))];
            // 0 means all at once, to which nobody can lower it.
            let fewer = if it.concurrency == 0 { 3 } else { (it.concurrency - 1).max(1) };
            world.note(|| format!("the concurrency of {} goes from {} to {fewer}", it.name, it.concurrency));
            change(&world, it, json!({"concurrency": fewer})).await;
        }
        drop(busy);
    });
}

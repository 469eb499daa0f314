//! Upgrades that go on by themselves: nodes join what they select, somebody goes back to the old release by
//! hand, nodes are held and let go, and the upgrade is changed now and then.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node as NodeObject;
use kairos_operator::api::{names, upgrade::NodeOpUpgrade};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{
        scenario::{Scenario, Wish, upgrade_spec},
        world::{Event, Fates, OLD, World},
    },
    Kind,
};

/// The label by which an upgrade selects its nodes.
const POOL: &str = "pool";

/// There is an upgrade that goes on, and perhaps another one of the same nodes.
pub fn wish(scenario: &mut Scenario, rng: &mut fastrand::Rng) {
    if !scenario.worlds.contains(&Kind::Continuous) {
        return;
    }
    let names: Vec<String> = (1..=scenario.nodes).map(|number| format!("n{number}")).collect();
    let upgrade = |name: &str, rng: &mut fastrand::Rng| {
        let mut spec = upgrade_spec(rng, &names);
        spec["nodeSelector"] = if rng.bool() { json!({"matchLabels": {POOL: "a"}}) } else { Value::Null };
        spec["stopOnFailure"] = (rng.u32(..100) < 20).into();
        let arrives = scenario.wishes[0].arrives;
        Wish { kind: "NodeOpUpgrade", name: name.into(), arrives, spec, fates: Fates::default() }
    };
    let mut first = upgrade("up0", rng);
    first.spec["mode"] = "Continuous".into();
    let mut second = upgrade("up7", rng);
    if rng.bool() {
        second.spec["mode"] = "Continuous".into();
    }
    second.arrives += std::time::Duration::from_secs(rng.u64(..60));
    scenario.wishes[0] = first;
    match rng.u32(..4) {
        0 | 1 => scenario.wishes.truncate(1),
        2 => scenario.wishes = vec![scenario.wishes[0].clone(), second],
        _ => {}
    }
}

async fn label(world: &World, node: &str, key: &str, value: Value) {
    world.note(|| format!("{node}: {key}={value}"));
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    // It may be gone by now.
    let _ = nodes.patch(node, &PatchParams::default(), &patch).await;
}

/// Some nodes are in the pool from the beginning.
pub async fn furnish(world: &World) {
    for name in world.nodes.keys() {
        if world.chance(50) {
            label(world, name, POOL, "a".into()).await;
        }
    }
}

/// Somebody installs the old release by hand, on a node that nobody has just now.
async fn go_back(world: &World, name: &str) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let Ok(Some(node)) = nodes.get_opt(name).await else { return };
    let claimed = node.metadata.annotations.iter().flatten().any(|(key, _)| key == names::CLAIMED_BY);
    // A member of the control plane that goes away by hand may meet one that reboots because it is to.
    if claimed || world.nodes[name].is_control_plane() || !world.nodes[name].boot().up {
        return;
    }
    world.note(|| format!("{name} is taken back to {OLD} by hand"));
    world.machine(name, |machine| machine.active = OLD.into());
    world.happens(name, Event::Installed { release: OLD.into() });
    world.nodes[name].reboot();
}

async fn change(world: &World, spec: Value) {
    world.note(|| format!("up0 is changed: {spec}"));
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(world.client.clone());
    let _ = upgrades.patch("up0", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
}

/// What goes on while it goes on.
pub fn go_on(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        let names: Vec<String> = world.nodes.keys().cloned().collect();
        for _ in 0..world.rng(|rng| rng.u32(3..12)) {
            sleep(world.time(1_000, 120_000)).await;
            let node = &names[world.rng(|rng| rng.usize(..names.len()))];
            match world.rng(|rng| rng.u32(..12)) {
                0..=3 => label(&world, node, POOL, "a".into()).await,
                4 => label(&world, node, POOL, Value::Null).await,
                5..=8 => go_back(&world, node).await,
                9 => {
                    label(&world, node, names::HOLD, "true".into()).await;
                    sleep(world.time(1_000, 90_000)).await;
                    label(&world, node, names::HOLD, Value::Null).await;
                }
                10 => {
                    change(&world, json!({"paused": true})).await;
                    sleep(world.time(1_000, 60_000)).await;
                    change(&world, json!({"paused": null})).await;
                }
                _ => change(&world, json!({"debug": world.chance(50)})).await,
            }
        }
        drop(busy);
    });
}

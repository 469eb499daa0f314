//! Upgrades that stay, and whose spec people change: while nodes are in progress, before a run has begun, and
//! back again.

use std::sync::Arc;

use kairos_operator::api::upgrade::NodeOpUpgrade;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{
        scenario::{Scenario, Wish, upgrade_spec},
        world::{Fates, World},
    },
    Kind,
};

/// There is an upgrade to change.
pub fn wish(scenario: &mut Scenario, rng: &mut fastrand::Rng) {
    if !scenario.worlds.contains(&Kind::Edits) {
        return;
    }
    let names: Vec<String> = (1..=scenario.nodes).map(|number| format!("n{number}")).collect();
    let arrives = scenario.wishes[0].arrives;
    let spec = upgrade_spec(rng, &names);
    let upgrade = Wish { kind: "NodeOpUpgrade", name: "up0".into(), arrives, spec, fates: Fates::default() };
    scenario.wishes[0] = upgrade;
    if rng.bool() {
        scenario.wishes.truncate(1);
    }
}

/// What somebody writes.
fn change(world: &World, spec: &Value) -> Value {
    let image = |release: &str| json!({"image": format!("kairos:{release}"), "force": world.chance(60)});
    match world.rng(|rng| rng.u32(..10)) {
        0..=2 => image("v3.5.0"),
        3..=5 => image("v3.6.0"),
        6 => json!({"debug": spec["debug"] != true}),
        // This is no other run.
        7 => json!({"debug": spec["debug"] == true, "upgradeActive": true, "pullTimeoutSeconds": 200}),
        8 => json!({"historyLimit": world.rng(|rng| rng.u32(..3))}),
        _ => json!({"stopOnFailure": spec["stopOnFailure"] != true}),
    }
}

/// People change upgrades, and now and then take back at once what they wrote.
pub fn edit(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(world.client.clone());
        for _ in 0..world.rng(|rng| rng.u32(2..8)) {
            sleep(world.time(300, 90_000)).await;
            let Ok(found) = upgrades.list(&ListParams::default()).await else { continue };
            if found.items.is_empty() {
                continue;
            }
            let it = &found.items[world.rng(|rng| rng.usize(..found.items.len()))];
            let before = serde_json::to_value(&it.spec).expect("a spec");
            let spec = change(&world, &before);
            let back: Value = spec
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| (name.clone(), before[name].clone()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            write(&world, &upgrades, &it.name_any(), &spec).await;
            if world.chance(20) {
                sleep(world.time(10, 20_000)).await;
                write(&world, &upgrades, &it.name_any(), &back).await;
            }
        }
        drop(busy);
    });
}

/// It may be gone by now.
async fn write(world: &World, upgrades: &Api<NodeOpUpgrade>, name: &str, spec: &Value) {
    world.note(|| format!("{name} is changed: {spec}"));
    let _ = upgrades.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
}

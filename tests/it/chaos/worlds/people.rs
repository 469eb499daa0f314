//! What people, and tools in their name, do to operations; and what the API server does to all.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kairos_operator::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::{Cluster, Effect, Fault};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        operator::{Order, Replica},
        run::{self, weather},
        scenario::{Scenario, Wish, upgrade_spec},
        trouble,
        wire::Stall,
        world::{Fates, World},
    },
    Kind,
    machines::TAG,
};

/// Fits what is asked for to the worlds in which it is asked.
pub fn wish(scenario: &mut Scenario, rng: &mut fastrand::Rng) {
    let worlds = scenario.worlds.clone();
    let names: Vec<String> = (1..=scenario.nodes).map(|number| format!("n{number}")).collect();
    let upgrade = |rng: &mut fastrand::Rng, number: usize, arrives: Duration| Wish {
        kind: "NodeOpUpgrade",
        name: format!("up{number}"),
        arrives,
        spec: upgrade_spec(rng, &names),
        fates: Fates::default(),
    };
    let proves = [Kind::DeadNodes, Kind::Windows, Kind::MovingTags, Kind::Strangers];
    if proves.iter().any(|kind| worlds.contains(kind)) {
        let arrives = Duration::from_secs(rng.u64(5..30));
        scenario.wishes[0] = upgrade(rng, 0, arrives);
    }
    if worlds.contains(&Kind::Strangers) && rng.bool() {
        scenario.wishes[0].fates.lies = names.clone();
    }
    // There are tries left for those whose pods are deleted.
    if worlds.contains(&Kind::Lingering) {
        let commands = scenario.wishes.iter_mut().filter(|wish| wish.kind == "NodeOp");
        commands.for_each(|wish| wish.spec["backoffLimit"] = 6.into());
    }
    if worlds.contains(&Kind::Rollbacks) {
        let arrives = Duration::from_secs(rng.u64(5..90));
        scenario.wishes = vec![upgrade(rng, 0, Duration::ZERO), upgrade(rng, 1, arrives)];
        for (wish, release) in scenario.wishes.iter_mut().zip(["v3.5.0", "v3.4.2"]) {
            wish.spec["image"] = format!("kairos:{release}").into();
            wish.spec["force"] = false.into();
            wish.spec["nodeSelector"] = Value::Null;
        }
    }
    if worlds.contains(&Kind::MovingTags) {
        let upgrades = scenario.wishes.iter_mut().filter(|wish| wish.kind == "NodeOpUpgrade");
        upgrades.for_each(|wish| wish.spec["image"] = TAG.into());
    }
}

/// Nobody waits for nodes that will never be back, whatever else is asked for.
pub fn name_those_that_stay(scenario: &mut Scenario) {
    let worlds = scenario.worlds.clone();
    let names: Vec<String> = (1..=scenario.nodes).map(|number| format!("n{number}")).collect();
    if worlds.contains(&Kind::DeadNodes) || worlds.contains(&Kind::Windows) {
        let hosts = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": names}]});
        scenario
            .wishes
            .iter_mut()
            .filter(|wish| wish.spec["nodeSelector"].is_null())
            .for_each(|wish| wish.spec["nodeSelector"] = hosts.clone());
    }
}

/// A tool that keeps a cluster as its repository says: what was deleted it makes again, under the same name.
pub fn make_again(world: &Arc<World>, scenario: &Scenario) {
    let (world, wishes, busy) = (world.clone(), scenario.wishes.clone(), world.busy());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(1..4)) {
            sleep(world.time(5_000, 150_000)).await;
            let wish = wishes[world.rng(|rng| rng.usize(..wishes.len()))].clone();
            if !world.fates(&wish.name, |fates| fates.arrived) {
                continue;
            }
            world.note(|| format!("{} is deleted, and made again", wish.name));
            trouble::delete(&world, wish.kind == "NodeOpUpgrade", &wish.name).await;
            while !run::ask_for(&world, &wish).await {
                sleep(Duration::from_secs(2)).await;
            }
        }
        drop(busy);
    });
}

/// People delete the pods of Jobs, most of them by force.
pub fn force(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        let end = world.elapsed() + Duration::from_secs(300);
        let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
        while world.elapsed() < end {
            sleep(world.time(500, 6_000)).await;
            let of_jobs = ListParams::default().labels(names::JOB_NAME_LABEL);
            let Ok(found) = pods.list(&of_jobs).await else { continue };
            let over = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed"))
            };
            let names: Vec<String> =
                found.iter().filter(|pod| !over(pod)).map(ResourceExt::name_any).collect();
            if names.is_empty() {
                continue;
            }
            let (name, force) = (&names[world.rng(|rng| rng.usize(..names.len()))], world.chance(70));
            world.note(|| format!("somebody deletes pod {name}, force: {force}"));
            let params =
                if force { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
            // It may be gone already.
            let _ = pods.delete(name, &params).await;
        }
        drop(busy);
    });
}

/// People uncordon nodes that an operation has cordoned.
pub fn uncordon(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        let end = world.elapsed() + Duration::from_secs(600);
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.client.clone());
        while world.elapsed() < end {
            sleep(world.time(2_000, 20_000)).await;
            let Ok(found) = nodes.list(&ListParams::default()).await else { continue };
            let ours = |node: &&k8s_openapi::api::core::v1::Node| {
                let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
                cordoned && node.annotations().contains_key(names::CORDONED_BY)
            };
            let held: Vec<String> = found.iter().filter(ours).map(ResourceExt::name_any).collect();
            if held.is_empty() {
                continue;
            }
            let node = held[world.rng(|rng| rng.usize(..held.len()))].clone();
            world.note(|| format!("somebody uncordons {node}"));
            trouble::human(&world, &node).await;
        }
        drop(busy);
    });
}

/// The API server refuses one sort of request of the operator's, as when a webhook is down.
pub fn refuse(cluster: &Cluster, world: &Arc<World>) {
    let (world, busy, faults) = (world.clone(), world.busy(), cluster.faults().clone());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(2..8)) {
            sleep(world.time(1_000, 60_000)).await;
            let sorts = [
                ("create", "pods"),
                ("create", "jobs.batch"),
                ("patch", "jobs.batch"),
                ("patch", "nodes"),
                ("patch", "nodeops.operator.kairos.io/status"),
                ("patch", "serviceaccounts"),
                ("delete", "pods"),
                ("create", "pods/eviction"),
            ];
            let (verb, resource) = sorts[world.rng(|rng| rng.usize(..sorts.len()))];
            world.note(|| format!("a webhook is down: {verb} {resource}"));
            let words =
                "Internal error occurred: failed calling webhook \"policy.example\": no endpoints available";
            faults.arm(
                Fault::on(verb, resource, Effect::Refuse(500)).by("kairos-operator").saying(words).always(),
            );
            sleep(world.time(10_000, 90_000)).await;
            faults.clear();
            world.note(|| "the webhook is back".into());
            sleep(Duration::from_secs(60)).await;
        }
        drop(busy);
    });
}

/// Somebody strips a NodeOp of its finalizers, and deletes it.
pub fn strip(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(1..4)) {
            sleep(world.time(10_000, 120_000)).await;
            let ops: Api<NodeOp> = Api::default_namespaced(world.client.clone());
            let Ok(found) = ops.list(&ListParams::default()).await else { continue };
            let Some(op) = (!found.items.is_empty())
                .then(|| found.items[world.rng(|rng| rng.usize(..found.items.len()))].name_any())
            else {
                continue;
            };
            world.note(|| format!("{op} loses its finalizers, and is deleted"));
            let none = json!({"metadata": {"finalizers": null}});
            let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(world.client.clone());
            // Its upgrade would make it anew.
            let _ = upgrades.delete(&op, &DeleteParams::background()).await;
            // It may be gone by now.
            let _ = ops.patch(&op, &PatchParams::default(), &Patch::Merge(&none)).await;
            let _ = ops.delete(&op, &DeleteParams::background()).await;
            let _ = ops.patch(&op, &PatchParams::default(), &Patch::Merge(&none)).await;
        }
        drop(busy);
    });
}

/// One watch of one operator stands still, and the other operator is killed: whoever leads then sees the
/// world in part as it was.
pub fn stall_watches(world: &Arc<World>, replicas: &[Replica]) {
    let (world, busy, replicas) = (world.clone(), world.busy(), replicas.to_vec());
    tokio::spawn(async move {
        for _ in 0..world.rng(|rng| rng.u32(2..7)) {
            sleep(world.time(2_000, 60_000)).await;
            let operator = world.rng(|rng| rng.usize(..replicas.len()));
            stall(&world, operator).await;
            sleep(world.time(500, 25_000)).await;
            // It may be dead already.
            let _ =
                replicas[1 - operator].orders.send(if world.chance(60) { Order::End } else { Order::Kill });
        }
        drop(busy);
    });
}

/// Stalls one sort of watch of an operator.
async fn stall(world: &World, operator: usize) {
    let sorts = ["/api/v1/nodes?", "/nodeops?", "/jobs?", "/api/v1/pods?"];
    let path = sorts[world.rng(|rng| rng.usize(..sorts.len()))];
    let until = Instant::now() + world.time(20_000, 200_000);
    world.note(|| {
        format!("the watch of {path} of operator {operator} stands still for {:?}", until - Instant::now())
    });
    weather(world, |weather| weather.stall = Some(Stall { operator, path, until }));
}

/// The store goes back by some seconds, or some minutes.
pub async fn restore(cluster: &Cluster, world: &World) {
    let history = cluster.history();
    let back = world.time(3_000, 120_000);
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return };
    let then = last.at.saturating_sub(back).max(Duration::from_secs(3));
    let version = history
        .iter()
        .take_while(|change| change.at <= then)
        .last()
        .map_or(first.version, |change| change.version);
    world.note(|| format!("the store goes back from {} to {version}, by {back:?}", last.version));
    let from = world.service.version();
    cluster.restore(version);
    world.restored(from);
    for node in world.nodes.values() {
        node.start_kubelet().await;
    }
}

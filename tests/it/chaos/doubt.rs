//! A status write that was applied and never answered, while the watch of NodeOps stands still: the operator
//! must not plan from the version before its own write.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kairos_sim::Cluster;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    history::{OPS, text},
    operator::Replica,
    run,
    scenario::{Mode, Scenario, Wish},
    wire::Stall,
    world::{Fates, World},
};

/// One node, one operation that reboots it, and nothing that goes wrong by itself.
fn scenario() -> Scenario {
    let spec = json!({"command": ["true"], "image": "busybox:1", "rebootOnSuccess": true, "cordon": true});
    let wish =
        Wish { kind: "NodeOp", name: "op0".into(), arrives: Duration::ZERO, spec, fates: Fates::default() };
    Scenario { wishes: vec![wish], ..Scenario::calm(1) }
}

/// The names of all waiters that were ever made, in their order.
fn waiters(cluster: &Cluster) -> Vec<String> {
    let made = cluster
        .history()
        .into_iter()
        .filter(|change| change.before.is_none() && change.key.table.as_ref() == "pods");
    made.filter(|change| !change.object["metadata"]["labels"]["kairos.io/reboot"].is_null())
        .map(|change| change.key.name.clone())
        .collect()
}

fn attempt(cluster: &Cluster) -> Option<i64> {
    cluster.list(OPS).first()?.pointer("/status/nodeStatuses/n1/attempt")?.as_i64()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

async fn lose_a_waiter_and_the_answer(cluster: &Cluster, world: &Arc<World>) {
    until("a waiter", || !waiters(cluster).is_empty()).await;
    let name = waiters(cluster)[0].clone();
    // Its node's kubelet ends it before it has said a word. Whatever is written about that is applied, and
    // never answered.
    run::weather(world, |weather| {
        weather.stall =
            Some(Stall { operator: 0, path: "/nodeops?", until: Instant::now() + Duration::from_secs(60) });
        weather.mute = Some("/nodeops/op0/status");
    });
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    let ended = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ended)).await.expect("it is there");
    until("the lost waiter is recorded", || attempt(cluster) == Some(1)).await;
    run::weather(world, |weather| weather.mute = None);
    // And now somebody clears the pod away, by which alone an operator with the old view could tell the
    // attempts apart.
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.expect("it is there");
    sleep(Duration::from_secs(45)).await;
}

#[test]
fn what_a_lost_answer_left_in_doubt_is_read_before_anything_is_made() {
    let runtime = run::runtime(1);
    runtime.block_on(async {
        let scenario = scenario();
        let (cluster, world) = run::cluster(1, &scenario).await;
        world.machine("n1", |machine| machine.deaf_waiters = true);
        let _replica = Replica::start(&world, 0, Mode::Alone);
        assert!(run::ask_for(&world, &scenario.wishes[0]).await, "it is new");
        lose_a_waiter_and_the_answer(&cluster, &world).await;
        let made = waiters(&cluster);
        let (first, others) = made.split_first().expect("a waiter");
        assert!(!others.is_empty(), "a waiter of the next attempt: {made:?}");
        assert!(
            !others.contains(first),
            "the waiter of an attempt that was recorded as lost is made again: {made:?}"
        );
        assert_eq!(text(&cluster.list(OPS)[0], "/metadata/name"), "op0");
    });
}

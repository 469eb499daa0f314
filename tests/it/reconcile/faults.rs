//! An API that refuses, drops, forgets, repeats itself and goes away: the same result, and nothing twice.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kairos_sim::{Cluster, Effect, Fault};
use serde_json::{Value, json};

use super::rig::{Rig, and, reboot};

fn spec() -> Value {
    and(reboot(), json!({"drainOptions": {"enabled": true}, "preflight": {"command": ["check"]}}))
}

async fn all_is_well(rig: &Rig, what: &str) {
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed", "{what}: {status:#}");
    assert_eq!(["n1", "n2"].map(|n| (rig.commands(n), rig.reboots(n))), [(1, 1); 2], "{what}");
    assert_eq!((rig.claims().1, rig.left()), (1, Vec::new()), "{what}");
}

/// What is asked of the API during a whole operation, by the operator and its applets.
async fn everything_asked() -> BTreeSet<(String, String)> {
    let rig = Rig::new(2).await;
    rig.op("op", spec()).await;
    all_is_well(&rig, "without a fault").await;
    let ours =
        rig.cluster.requests().into_iter().filter(|request| !kairos_sim::faults::is_ours(&request.user));
    ours.map(|request| (request.verb, request.resource)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_may_fail_in_every_way() {
    let asked = everything_asked().await;
    for expected in [
        ("create", "jobs.batch"),
        ("patch", "nodes"),
        ("patch", "pods"),
        ("create", "pods"),
        ("list", "nodes"),
    ] {
        assert!(
            asked.contains(&(expected.0.to_owned(), expected.1.to_owned())),
            "{expected:?} is not in {asked:?}"
        );
    }
    let effects =
        [Effect::Refuse(409), Effect::Refuse(429), Effect::Refuse(500), Effect::Drop, Effect::ApplyAndDrop];
    let runs = effects.map(|effect| {
        let asked = asked.clone();
        async move {
            let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
            for (n, (verb, resource)) in asked.iter().enumerate() {
                // The first request of a kind, or the second or third.
                rig.cluster.faults().arm(Fault::on(verb, resource, effect).after(n % 3));
            }
            rig.start(&[]);
            rig.op("op", spec()).await;
            all_is_well(&rig, &format!("{effect:?}")).await;
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_break_repeat_or_come_late_change_nothing() {
    let rig = Rig::new(2).await;
    rig.cluster.faults().delay_events(Duration::from_millis(40));
    rig.op("op", spec()).await;
    let disturb = async {
        loop {
            tokio::time::sleep(Duration::from_millis(230)).await;
            rig.cluster.faults().duplicate_events(5);
            rig.cluster.faults().close_watches();
            tokio::time::sleep(Duration::from_millis(230)).await;
            rig.cluster.compact();
        }
    };
    tokio::select! {
        () = all_is_well(&rig, "watches") => {}
        () = disturb => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_for_seconds_is_waited_for() {
    let rig = Rig::new(2).await;
    rig.op("op", spec()).await;
    rig.in_step("op", "n1", "Job").await;
    rig.cluster.faults().away(Duration::from_secs(2));
    rig.in_step("op", "n2", "Reboot").await;
    rig.cluster.faults().away(Duration::from_secs(2));
    all_is_well(&rig, "away").await;
}

/// Events have an etcd of their own, which is down, or a webhook whose backend is gone: all else goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_never_answered_hold_nothing_up() {
    let nodes = 16;
    let mut rig = Rig::idle(Cluster::builder().nodes(nodes)).await;
    rig.cluster.faults().arm(Fault::on("create", "events.events.k8s.io", Effect::Hang).always());
    rig.start(&[]);
    let began = Instant::now();
    rig.op("op", json!({"command": ["true"], "cordon": true, "concurrency": 0})).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    // Each node that is taken is told in two Events, and the client waits five seconds for each. So a pass
    // that waited for them would last longer than this.
    let most = Duration::from_secs(nodes as u64 * 2 * 5 - 10);
    assert!(began.elapsed() < most, "it took {:?}", began.elapsed());
}

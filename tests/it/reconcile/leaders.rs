//! Operators that end, in any way and at any moment: another one goes on, and nothing is done twice.

use kairos_sim::{Cluster, Effect, Fault};
use serde_json::{Value, json};

use super::rig::{LONG, Rig, and, reboot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_still_boots_each_node_once() {
    futures::future::join_all((1..=2).map(killed_again_and_again)).await;
}

/// Lives of an operator in which a rollout over two nodes must come to its end; it takes about ten.
const LIVES: usize = 200;

async fn killed_again_and_again(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1).seed(seed)).await;
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true}}))).await;
    let mut lives = 0;
    while !rig.is_over("op") {
        assert!(lives < LIVES, "no progress: {:#}", rig.status("op"));
        rig.operators.clear();
        rig.start(&[]);
        lives += 1;
        rig.asks(random.usize(10..40), "op").await;
        rig.operators[0].kill();
    }
    assert!(lives > 1, "it was never killed on the way");
    rig.operators.clear();
    rig.start(&[]);
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    assert_eq!(["n1", "n2"].map(|n| (rig.commands(n), rig.reboots(n))), [(1, 1); 2], "seed {seed}");
    assert_eq!((rig.claims().1, rig.left()), (1, Vec::new()));
}

fn holder(rig: &Rig) -> String {
    let lease = rig.cluster.get("leases.coordination.k8s.io", "operator-system", "ce9721c3.kairos.io");
    lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned)).unwrap_or_default()
}

async fn held_by(rig: &Rig, name: &str) {
    let held = |lease: &Value| {
        lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with(name))
    };
    rig.cluster.until("leases.coordination.k8s.io", LONG, held).await.unwrap();
}

/// The candidates have no pods of their own here, whose image they would read.
const IMAGE: &str = "--operator-image=operator:v1";

/// Two candidates; the first of them leads.
async fn two(nodes: usize) -> Rig {
    let mut rig = Rig::idle(Cluster::builder().nodes(nodes).control_planes(1)).await;
    rig.start(&["--leader-elect", "--pod-name=first", IMAGE]);
    held_by(&rig, "first").await;
    rig.start(&["--leader-elect", "--pod-name=second", IMAGE]);
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_end_hands_over_at_once() {
    let mut rig = two(2).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 1"]}))).await;
    rig.command_runs("n1").await;
    rig.operators[0].terminate();
    held_by(&rig, "second").await;
    let leases = rig.cluster.history().into_iter().filter(|change| change.key.table.starts_with("leases"));
    let holders: Vec<Value> = leases.map(|change| change.object["spec"]["holderIdentity"].clone()).collect();
    assert!(holders.contains(&json!("")), "it was given up, and did not run out: {holders:?}");
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed");
    assert_eq!(["n1", "n2"].map(|n| (rig.commands(n), rig.reboots(n))), [(1, 1); 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_followed_when_its_lease_has_run_out() {
    let mut rig = two(2).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 1"]}))).await;
    rig.command_runs("n1").await;
    rig.operators[0].kill();
    assert!(holder(&rig).starts_with("first"));
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert!(holder(&rig).starts_with("second"));
    assert_eq!(["n1", "n2"].map(|n| (rig.commands(n), rig.reboots(n))), [(1, 1); 2]);
}

/// Whatever changed it: `kubectl set image` changes nothing else, and helpers of another version would not
/// know our arguments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helper_pods_run_the_image_of_the_operators_own_pod_unless_another_one_was_said() {
    for (flags, wanted, policy) in [
        (&["--pod-name=me", "--operator-image="][..], "registry.site/x:v1.1.0", "Always"),
        (&["--pod-name=me", "--operator-image=registry.site/y:v1"], "registry.site/y:v1", "IfNotPresent"),
    ] {
        let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
        let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "me", "namespace": "operator-system"},
            "spec": {"containers": [{"name": "proxy", "image": "mesh:1"}, {"name": "manager", "image": "registry.site/x:v1.1.0", "imagePullPolicy": "Always"}]}});
        rig.cluster.apply(&own.to_string()).await.unwrap();
        rig.start(flags);
        let reads = |pod: &Value| pod["metadata"]["labels"]["app"] == "kairos-node-labeler";
        let facts = rig.cluster.until("pods", LONG, reads).await.unwrap();
        let helper = &facts["spec"]["containers"][0];
        assert_eq!((&helper["image"], &helper["imagePullPolicy"]), (&json!(wanted), &json!(policy)));
    }
}

/// An API server that does not answer yet is waited for: nothing else says which image the pods are to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_own_pod_is_read_again_until_there_is_an_answer() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "me", "namespace": "operator-system"},
        "spec": {"containers": [{"name": "manager", "image": "registry.site/x:v1.1.0"}]}});
    rig.cluster.apply(&own.to_string()).await.unwrap();
    rig.cluster.faults().arm(Fault::on("get", "pods", Effect::Refuse(503)));
    rig.start(&["--pod-name=me"]);
    let reads = |pod: &Value| pod["metadata"]["labels"]["app"] == "kairos-node-labeler";
    let facts = rig.cluster.until("pods", LONG, reads).await.unwrap();
    assert_eq!(facts["spec"]["containers"][0]["image"], "registry.site/x:v1.1.0");
}

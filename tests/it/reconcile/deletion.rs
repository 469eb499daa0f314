//! A NodeOp that is deleted, at every step: nothing is left of it, and nothing reboots that was not asked to
//! any more.

use std::time::Duration;

use kairos_sim::{Effect, Fault};
use serde_json::json;

use super::{
    drains::{BLOCKED, blocker},
    rig::{LONG, OPS, Rig, and, reboot},
};

async fn gone(rig: &Rig) {
    rig.cluster
        .until_none(OPS, LONG, |_| true)
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {:#}", rig.status("op")));
    for table in
        ["roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "serviceaccounts"]
    {
        let ours = |o: &serde_json::Value| !o["metadata"]["labels"]["kairos.io/nodeop"].is_null();
        rig.cluster.until_none(table, LONG, ours).await.unwrap();
    }
    let ours = |pod: &serde_json::Value| !pod["metadata"]["labels"]["kairos.io/nodeop"].is_null();
    rig.cluster.until_none("pods", LONG, ours).await.unwrap();
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_claimed() {
    let rig = Rig::new(2).await;
    rig.cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(500)).named("n1").times(3));
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Claim").await;
    rig.delete("op").await;
    gone(&rig).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_drained() {
    let rig = Rig::new(1).await;
    rig.cluster.apply(&blocker("n1")).await.unwrap();
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))).await;
    rig.says("op", "n1", BLOCKED).await;
    rig.delete("op").await;
    gone(&rig).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_command_runs() {
    let rig = Rig::new(2).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"]}))).await;
    rig.command_runs("n1").await;
    rig.delete("op").await;
    gone(&rig).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1"), rig.reboots("n2")), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_reboot_is_due() {
    let rig = Rig::new(1).await;
    rig.hold_reboots();
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Reboot").await;
    rig.delete("op").await;
    gone(&rig).await;
    rig.cluster.faults().clear();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (1, 0), "its reboot was cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_is_there_to_see_it() {
    let mut rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"]}))).await;
    rig.command_runs("n1").await;
    rig.operators[0].kill();
    rig.delete("op").await;
    rig.start(&[]);
    gone(&rig).await;
    assert_eq!(rig.reboots("n1"), 0);
}

fn mark(rig: &Rig, node: &str) -> String {
    let node = rig.cluster.get("nodes", "", node).unwrap();
    node["metadata"]["annotations"]["operator.kairos.io/cordoned-by"].as_str().unwrap_or_default().to_owned()
}

/// Waits until each of these nodes was told to stay cordoned though its NodeOp is gone.
async fn told(rig: &Rig, nodes: &[&str]) {
    for node in nodes {
        let lifts = format!("kubectl uncordon {node}");
        let says = |event: &serde_json::Value| {
            let words = event["note"].as_str().or_else(|| event["message"].as_str()).unwrap_or_default();
            (event["regarding"]["name"] == **node || event["involvedObject"]["name"] == **node)
                && words.contains(&lifts)
        };
        rig.cluster.until("events", LONG, says).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_nodes_failed_they_stay_cordoned_until_an_operation_succeeds_on_them() {
    let rig = Rig::new(3).await;
    rig.op(
        "op",
        and(reboot(), json!({"command": ["sh", "-c", "exit 3"], "backoffLimit": 0, "concurrency": 3})),
    )
    .await;
    assert_eq!(rig.over("op").await["counts"]["failed"], 3);
    let nodes = ["n1", "n2", "n3"];
    assert!(nodes.iter().all(|node| rig.is_cordoned(node)));
    rig.delete("op").await;
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
    told(&rig, &nodes).await;
    assert!(nodes.iter().all(|node| rig.is_cordoned(node)), "deleting what failed mends nothing");

    // A human looks at one of them, and lifts its cordon; an operation repairs the others.
    rig.patch_node("n3", json!({"spec": {"unschedulable": null}})).await;
    let stale = |node: &serde_json::Value| {
        node["metadata"]["name"] == "n3"
            && !node["metadata"]["annotations"]["operator.kairos.io/cordoned-by"].is_null()
    };
    rig.cluster.until_none("nodes", LONG, stale).await.unwrap();
    rig.op("repair", reboot()).await;
    assert_eq!(rig.over("repair").await["phase"], "Completed");
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_node_has_failed_and_another_runs_only_the_one_that_runs_is_given_back() {
    let rig = Rig::new(2).await;
    rig.cluster.script(|run| {
        (run.container.name == "nodeop" && run.node == "n1").then(|| kairos_sim::Outcome::code(1))
    });
    rig.op(
        "op",
        and(reboot(), json!({"command": ["sleep", "infinity"], "backoffLimit": 0, "concurrency": 2})),
    )
    .await;
    rig.command_runs("n2").await;
    rig.cluster
        .until("nodes", LONG, |n| n["metadata"]["name"] == "n1" && n["spec"]["unschedulable"] == true)
        .await
        .unwrap();
    let failed = |op: &serde_json::Value| op["status"]["nodeStatuses"]["n1"]["phase"] == "Failed";
    rig.cluster.until(OPS, LONG, failed).await.unwrap();
    rig.delete("op").await;
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
    told(&rig, &["n1"]).await;
    assert!(rig.is_cordoned("n1") && mark(&rig, "n1").ends_with("!failed!deleted"), "{}", mark(&rig, "n1"));
    assert_eq!(rig.left().iter().filter(|left| left.starts_with("n2")).count(), 0, "{:?}", rig.left());
}

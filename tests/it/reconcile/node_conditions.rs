//! What nodes say of operations in conditions of their own, with `--node-conditions=auto`: from the claim
//! to the node's release, over the death of the operator, and never in the place of somebody else.

use std::time::Duration;

use k8s_openapi::api::{core::v1::Node, policy::v1::PodDisruptionBudget};
use kairos_sim::Cluster;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    drains::{BLOCKED, blocker},
    rig::{LONG, OPERATOR, OPS, Rig, and, reboot},
};

const WANTED: &str = "--node-conditions=auto";

async fn rig(nodes: usize, arguments: &[&str]) -> Rig {
    let mut rig = Rig::idle(Cluster::builder().nodes(nodes).control_planes(1)).await;
    rig.start(arguments);
    rig
}

fn drains() -> Value {
    and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))
}

/// What a node says of an operation, as `type: message`.
fn says(node: &Value) -> Vec<String> {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let types = ["MaintenanceInProgress", "DrainInProgress", "Drained"];
    conditions
        .filter(|one| types.contains(&one["type"].as_str().unwrap()))
        .map(|one| format!("{}: {}", one["type"].as_str().unwrap(), one["message"].as_str().unwrap()))
        .collect()
}

async fn until_said(rig: &Rig, node: &str, wanted: &str) {
    let there = |it: &Value| {
        it["metadata"]["name"] == node
            && says(it)
                .iter()
                .map(|said| said.split(':').next().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
                == wanted
    };
    rig.cluster.until("nodes", LONG, there).await.unwrap();
}

/// How often the operator has changed what nodes say so.
fn writes(rig: &Rig) -> usize {
    let ours = |it: &&kairos_sim::Request| it.user == OPERATOR && it.resource == "nodes/status";
    rig.cluster.requests().iter().filter(ours).filter(|it| it.code < 300).count()
}

async fn block(rig: &Rig, node: &str) {
    rig.cluster.apply(&blocker(node)).await.unwrap();
    let runs = |pod: &Value| pod["metadata"]["name"] == "db" && pod["status"]["phase"] == "Running";
    rig.cluster.until("pods", LONG, runs).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_that_it_is_in_maintenance_and_how_far_its_drain_is_in_three_writes_and_nothing_after_its_release()
 {
    let mut rig = rig(1, &[WANTED]).await;
    block(&rig, "n1").await;
    rig.op("op", drains()).await;
    rig.says("op", "n1", BLOCKED).await;
    until_said(&rig, "n1", "MaintenanceInProgress DrainInProgress").await;
    // Whoever leads next finds it said.
    rig.operators[0].kill();
    rig.start(&[WANTED]);
    rig.hold_reboots();
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(rig.cluster.client());
    budgets.delete("db-budget", &DeleteParams::default()).await.unwrap();
    rig.in_step("op", "n1", "Reboot").await;
    until_said(&rig, "n1", "MaintenanceInProgress Drained").await;
    let op = rig.cluster.get(OPS, "default", "op").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let said = says(&rig.cluster.get("nodes", "", "n1").unwrap());
    assert_eq!(
        said,
        [
            format!("MaintenanceInProgress: default/op@{op}: an operation has the node"),
            format!("Drained: default/op@{op}: the node is drained")
        ]
    );
    rig.cluster.faults().clear();
    assert_eq!(rig.over("op").await["phase"], "Completed");
    until_said(&rig, "n1", "").await;
    assert_eq!((writes(&rig), rig.left()), (3, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodeop_that_is_deleted_or_an_operator_that_is_told_not_to_leaves_nothing() {
    let mut rig = rig(1, &[WANTED]).await;
    block(&rig, "n1").await;
    rig.op("op", drains()).await;
    until_said(&rig, "n1", "MaintenanceInProgress DrainInProgress").await;
    rig.delete("op").await;
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
    until_said(&rig, "n1", "").await;
    rig.op("again", drains()).await;
    until_said(&rig, "n1", "MaintenanceInProgress DrainInProgress").await;
    rig.operators[0].kill();
    rig.start(&["--node-conditions=off"]);
    until_said(&rig, "n1", "").await;
    rig.says("again", "n1", BLOCKED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_says_stays_and_a_server_that_refuses_holds_up_nothing() {
    let rig = rig(1, &[WANTED]).await;
    let theirs = json!({"status": {"conditions": [{"type": "Drained", "status": "False", "reason": "Kubectl", "message": "kubectl drain"}]}});
    let nodes: Api<Node> = Api::all(rig.cluster.client());
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(theirs)).await.unwrap();
    rig.op("op", drains()).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    until_said(&rig, "n1", "Drained").await;
    assert_eq!(says(&rig.cluster.get("nodes", "", "n1").unwrap()), ["Drained: kubectl drain"]);
    let refuses = kairos_sim::Fault::on("patch", "nodes/status", kairos_sim::Effect::Refuse(403));
    rig.cluster.faults().arm(refuses.by("kairos-operator").always());
    rig.op("refused", drains()).await;
    let status = rig.over("refused").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.cluster.faults().clear();
}

/// It is not asked for: the writes would be for nobody, and not every tool takes a new condition for good news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_unless_it_is_asked_for() {
    let rig = Rig::new(1).await;
    rig.op("op", drains()).await;
    assert_eq!((&rig.over("op").await["phase"], writes(&rig)), (&json!("Completed"), 0));
}

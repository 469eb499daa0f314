//! An upgrade that was changed: its present run is the one that is looked at, and earlier ones are history.

use std::{process::Stdio, time::Duration};

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::{Effect, Fault};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::stage::{Stage, ago, command, entry, hours};

const LONG: Duration = Duration::from_secs(600);

fn status(phase: &str, message: &str, seconds_ago: i64) -> Value {
    let type_ = if phase == "Failed" { "Failed" } else { "Complete" };
    json!({"phase": phase, "message": message, "nodeStatuses": {"n1": entry(phase, None, message, seconds_ago)},
        "conditions": [{"type": type_, "status": "True", "reason": "r", "message": "", "lastTransitionTime": ago(seconds_ago)}],
        "counts": {"total": 1, "pending": 0, "running": 0, "completed": 1, "failed": 0, "done": "1/1"}})
}

/// A NodeOp of a run of the upgrade `up`.
pub async fn run_of(stage: &Stage, name: &str, uid: &str, status: Value) {
    stage.op(name, json!({"image": "i", "upgrade": {"active": true}}), status).await;
    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "up", "uid": uid, "controller": true}]);
    let meta = json!({"metadata": {"ownerReferences": owner, "labels": {"app.kubernetes.io/managed-by": "nodeopupgrade-controller"}}});
    let ops = Api::<NodeOp>::default_namespaced(stage.cluster.client());
    ops.patch(name, &PatchParams::default(), &Patch::Merge(&meta)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_runs_are_history_and_a_change_that_nobody_has_looked_at_is_not_over() {
    let stage = Stage::new().await;
    let mut present = status("Completed", "Upgrade operation completed successfully", hours(1));
    (present["nodeOpName"], present["observedGeneration"]) = ("up-12345678".into(), 1.into());
    present["round"] = json!({"generation": 1, "number": 3, "nodeNames": ["n1"]});
    stage.upgrade("up", json!({"image": "kairos:v2", "concurrency": 1}), present).await;
    let upgrades = Api::<NodeOpUpgrade>::default_namespaced(stage.cluster.client());
    let uid = upgrades.get("up").await.unwrap().uid().unwrap();
    run_of(&stage, "up", &uid, status("Failed", "superseded", hours(9))).await;
    run_of(&stage, "up-12345678", &uid, status("Completed", "1 node completed", hours(1))).await;

    let history = stage.run(&["history", "--no-headers"]).await.out;
    let names: Vec<&str> = history.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["nou/up", "nop/up"], "{history}");
    let wide = stage.run(&["history", "--no-headers", "-o", "wide"]).await.out;
    assert!(wide.contains("kairos:v2 (round 3)"), "{wide}");
    let of_node = stage.run(&["history", "n1", "--no-headers"]).await.out;
    assert!(of_node.lines().count() == 2 && of_node.contains("superseded"), "{of_node}");
    let shown = stage.run(&["status", "up"]).await.out;
    assert!(shown.contains("nou/up") && shown.contains("Completed"), "{shown}");

    // Its logs are those of the present run.
    let container = json!({"name": "nodeop", "image": "i", "command": ["sh", "-c", "echo upgraded > /dev/termination-log; exit 0"]});
    for (pod, run) in [("old", "up"), ("new", "up-12345678")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "namespace": "default", "labels": {"kairos.io/nodeop": run}, "annotations": {"operator.kairos.io/node-name": "n1"}},
            "spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [container.clone()]}});
        stage.cluster.apply(&pod.to_string()).await.unwrap();
    }
    let ended = |pod: &Value| pod["metadata"]["name"] == "new" && pod["status"]["phase"] == "Succeeded";
    stage.cluster.until("pods", LONG, ended).await.unwrap();
    let logs = stage.run(&["logs", "up"]).await.out;
    assert!(logs.contains("==> new on n1") && !logs.contains("==> old on n1"), "{logs}");

    let refused = stage.run(&["pause", "nop/up-12345678"]).await;
    assert!(refused.code != 0 && !refused.err.is_empty(), "{refused:?}");

    // Somebody changes it, and no operator has looked at that.
    let change = Patch::Merge(json!({"spec": {"image": "kairos:v3"}}));
    upgrades.patch("up", &PatchParams::default(), &change).await.unwrap();
    let history = stage.run(&["history", "--no-headers"]).await.out;
    assert!(!history.contains("nou/up"), "{history}");
    let shown = stage.run(&["status", "up"]).await.out;
    assert!(shown.contains("no operator has looked at that yet"), "{shown}");
}

/// A pod of one of the upgrade's runs that prints this line, and ends.
async fn prints(stage: &Stage, pod: &'static str, run: &str, line: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod, "namespace": "default", "labels": {"kairos.io/nodeop": run}, "annotations": {"operator.kairos.io/node-name": "n1"}},
        "spec": {"nodeName": "n1", "restartPolicy": "Never",
            "containers": [{"name": "nodeop", "image": "i", "command": ["sh", "-c", format!("echo {line} > /dev/termination-log; exit 0")]}]}});
    stage.cluster.apply(&object.to_string()).await.unwrap();
    let ended =
        |object: &Value| object["metadata"]["name"] == pod && object["status"]["phase"] == "Succeeded";
    stage.cluster.until("pods", LONG, ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_followed_go_on_with_the_run_that_follows() {
    let stage = Stage::new().await;
    let nodes = json!({"n1": entry("Running", Some("Job"), "m", 60)});
    let status = json!({"phase": "Running", "message": "m", "nodeOpName": "up", "nodeStatuses": nodes});
    stage.upgrade("up", json!({"image": "kairos:v2", "concurrency": 1}), status).await;
    prints(&stage, "old", "up", "first").await;
    stage.cluster.clear_requests();
    let mut follows = command(&stage.cluster.kubeconfig(), None, &["logs", "up", "-f"]);
    let follows = follows.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reads = |request: &kairos_sim::Request| request.resource == "pods/log" && request.name == "old";
    let begun = std::time::Instant::now();
    while !stage.cluster.requests().iter().any(reads) {
        assert!(begun.elapsed() < LONG, "it reads no log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A server that begins anew, or is another one behind the same address, is no reason to end.
    stage.cluster.clear_requests();
    stage.cluster.faults().arm(Fault::on("get", "nodeopupgrades.operator.kairos.io", Effect::Refuse(503)));
    stage.cluster.faults().arm(Fault::on("list", "pods", Effect::Refuse(500)).times(2));
    let refused = |request: &kairos_sim::Request| request.code >= 500;
    while stage.cluster.requests().iter().filter(|request| refused(request)).count() < 3 {
        assert!(begun.elapsed() < LONG, "it asks no more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.upgrade_says("up", json!({"nodeOpName": "up-12345678"})).await;
    prints(&stage, "new", "up-12345678", "second").await;
    stage.upgrade_says("up", json!({"phase": "Completed"})).await;
    let ended = follows.wait_with_output().await.unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!((ended.status.code(), lines), (Some(0), vec!["n1 nodeop | first", "n1 nodeop | second"]));
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(err.lines().count() == 1 && err.contains("; it is tried again"), "it is said once: {err}");

    // What is not there, or is gone, does not come back.
    let gone = stage.run(&["logs", "other", "-f"]).await;
    assert!(gone.code == 1 && gone.err.contains("there is no NodeOpUpgrade"), "{gone:?}");
}

//! What people keep from running: a node that they hold by a label, and an operation whose time is over.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, and, reboot};

fn hold(is: Value) -> Value {
    json!({"metadata": {"labels": {"kairos.io/hold": is}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_held_is_left_out_until_it_is_let_go() {
    let rig = Rig::new(3).await;
    rig.patch_node("n1", hold(json!("maintenance"))).await;
    rig.patch_node("n2", hold(json!("false"))).await;
    rig.op("op", and(reboot(), json!({"preflight": {"command": ["true"]}}))).await;
    let others = |op: &Value| op["status"]["counts"]["completed"] == 2;
    rig.cluster.until(OPS, LONG, others).await.unwrap();
    rig.says("op", "n1", "held by the label kairos.io/hold on the node").await;
    let waits = |op: &Value| {
        let conditions = op["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        op["status"]["message"].as_str().unwrap_or_default().contains("n1 held by the label")
            && conditions.any(|one| one["type"] == "Progressing" && one["reason"] == "OnHold")
    };
    rig.cluster.until(OPS, LONG, waits).await.unwrap();
    assert_eq!((rig.reboots("n1"), rig.commands("n1"), rig.is_cordoned("n1")), (0, 0, false));
    let looked = rig.cluster.history().iter().any(|change| {
        let pod = &change.object;
        pod["spec"]["nodeName"] == "n1" && pod["metadata"]["labels"]["kairos.io/nodeop"] == "op"
    });
    assert!(!looked, "nothing of the operation is made for it");
    rig.patch_node("n1", hold(Value::Null)).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert_eq!(["n1", "n2", "n3"].map(|node| rig.reboots(node)), [1; 3]);
    assert_eq!(rig.claims().0.last().map(String::as_str), Some("n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_its_time_is_completed_and_does_nothing() {
    let rig = Rig::new(2).await;
    let in_hours = |hours| (Timestamp::now() + SignedDuration::from_hours(hours)).to_string();
    rig.op("late", and(reboot(), json!({"notAfter": in_hours(-1)}))).await;
    let late = rig.over("late").await;
    let complete =
        late["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Complete").unwrap();
    assert_eq!(
        (&late["phase"], &complete["status"], &complete["reason"], &late["counts"]["total"]),
        (&json!("Completed"), &json!("True"), &json!("Expired"), &json!(0))
    );
    rig.op("early", and(reboot(), json!({"notAfter": in_hours(1)}))).await;
    assert_eq!(rig.over("early").await["counts"]["done"], "2/2");
    assert_eq!(["n1", "n2"].map(|node| rig.reboots(node)), [1, 1]);
}

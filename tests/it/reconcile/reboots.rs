//! Reboots that come twice, late, never, or by somebody else's hand.

use std::collections::BTreeSet;

use kairos_sim::Fate;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use super::rig::{LONG, Rig, and, reboot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_rebooted_by_hand_while_its_command_runs_is_rebooted_once_more() {
    let rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 1"], "backoffLimit": 3}))).await;
    rig.command_runs("n1").await;
    rig.cluster.node("n1").reboot();
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (2, 2), "by hand, and after the success");
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_deleted_after_the_sentinel_is_replaced_and_reboots_once() {
    let rig = Rig::new(1).await;
    rig.hold_reboots();
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Reboot").await;
    rig.cluster.until("pods", LONG, |p| is_waiter(p) && p["status"]["phase"] == "Running").await.unwrap();
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(rig.cluster.client());
    let waiter = rig.cluster.list("pods").into_iter().find(|p| is_waiter(p)).unwrap();
    assert_eq!(rig.reboots("n1"), 0);
    pods.delete(waiter["metadata"]["name"].as_str().unwrap(), &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    rig.cluster.faults().clear();
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
    let waiters: BTreeSet<String> = rig
        .cluster
        .history()
        .iter()
        .filter(|c| is_waiter(&c.object))
        .map(|c| c.object["metadata"]["uid"].to_string())
        .collect();
    assert_eq!(waiters.len(), 2, "{waiters:?}");
}

fn is_waiter(object: &Value) -> bool {
    object["metadata"]["labels"]["kairos.io/reboot"] == "true"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_comes_back_fails_at_the_deadline_and_is_kept_from_others() {
    let rig = Rig::new(2).await;
    rig.cluster.node("n1").set_fate(Fate::Gone);
    rig.op("op", and(reboot(), json!({"rebootTimeoutSeconds": 15, "stopOnFailure": true}))).await;
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], &status["nodeStatuses"]["n1"]["phase"]),
        (&json!("Failed"), &json!("Failed")),
        "{status:#}"
    );
    assert!(
        status["nodeStatuses"]["n1"]["message"].as_str().unwrap().starts_with("RebootTimeout"),
        "{status:#}"
    );
    assert!(status["nodeStatuses"]["n1"]["message"].as_str().unwrap().contains("went away"), "{status:#}");
    assert_eq!((rig.commands("n2"), rig.reboots("n2"), rig.is_cordoned("n1")), (0, 0, true));
    rig.cluster.node("n1").power_on();
    rig.labelled().await;
    assert_eq!(rig.status("op"), status, "whatever happens later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_go_down_fails_at_the_deadline() {
    let rig = Rig::new(1).await;
    rig.cluster.node("n1").ignore_reboots(true);
    rig.op("op", and(reboot(), json!({"rebootTimeoutSeconds": 15}))).await;
    let status = rig.over("op").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.starts_with("RebootTimeout") && message.contains("still in the boot"), "{message}");
    assert_eq!(rig.reboots("n1"), 0);
}

//! Pods of others that carry our labels, or name owners that are ours: they hold no node, and nobody waits
//! for them.

use serde_json::{Value, json};

use super::rig::{LONG, Rig, reboot};

fn spec() -> Value {
    json!({"containers": [{"name": "c", "image": "i", "command": ["sh", "-c", "sleep infinity"]}]})
}

/// A DaemonSet whose pods carry our label on every node.
fn daemons(namespace: &str) -> String {
    let labels = json!({"app": "web", "kairos.io/nodeop": "op", "kairos.io/node": "n1"});
    let template = json!({"metadata": {"labels": labels}, "spec": spec()});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}})
    .to_string()
}

/// A pod that names an owner of a kind which nobody can look up: the garbage collector leaves it.
fn forged(namespace: &str) -> String {
    let owner = json!({"apiVersion": "no.such.group/v1", "kind": "Job", "name": "op-n1", "uid": "j", "controller": true});
    let labels = json!({"kairos.io/nodeop": "op", "kairos.io/node": "n1"});
    let mut spec = spec();
    spec["nodeName"] = "n1".into();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "forged", "namespace": namespace, "labels": labels, "ownerReferences": [owner]}, "spec": spec})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_past_pods_that_carry_our_label() {
    let rig = Rig::new(2).await;
    rig.cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}).to_string())
        .await
        .unwrap();
    for namespace in ["default", "team-a"] {
        rig.cluster.apply(&daemons(namespace)).await.unwrap();
        rig.cluster.apply(&forged(namespace)).await.unwrap();
        for node in ["n1", "n2"] {
            let runs = |pod: &Value| {
                pod["metadata"]["namespace"] == namespace
                    && pod["spec"]["nodeName"] == node
                    && pod["status"]["phase"] == "Running"
            };
            rig.cluster.until("pods", LONG, runs).await.unwrap();
        }
    }
    rig.op("op", reboot()).await;
    let status = rig.over("op").await;
    assert_eq!((&status["phase"], rig.left()), (&json!("Completed"), vec![]), "{status:#}");
    assert_eq!(["n1", "n2"].map(|node| (rig.commands(node), rig.reboots(node))), [(1, 1); 2]);
}

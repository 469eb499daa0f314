//! What nodes say of themselves: labels, once a boot, and never again for nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kairos_operator::{api::names::LABELER, plan::model::object_name};
use kairos_sim::{Cluster, kairos};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, Rig, UPGRADES};

fn reads(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app"] == "kairos-node-labeler"
}

/// A machine that nobody pretends: its kubelet has reported once, and is never heard of again.
async fn registers(rig: &Rig, name: &str) {
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""});
    let info = json!({"machineID": name, "systemUUID": name, "bootID": format!("boot-{name}"), "kernelVersion": "", "osImage": "",
        "containerRuntimeVersion": "", "kubeletVersion": "v1.33.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": {"conditions": [ready], "nodeInfo": info}});
    let nodes: Api<Node> = Api::all(rig.cluster.client());
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
}

async fn dies(rig: &Rig, name: &str) {
    let ready = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": ""});
    let nodes: Api<Node> = Api::all(rig.cluster.client());
    let patch = json!({"status": {"conditions": [ready]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_died_while_they_were_read_keep_no_upgrade_from_its_proof() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let dead: Vec<String> = (0..12).map(|i| format!("dead-{i:02}")).collect();
    for name in &dead {
        registers(&rig, name).await;
    }
    rig.start(&[]);
    // Ten of them are being read, and will be for ever.
    for name in &dead[..10] {
        rig.cluster.until("pods", LONG, |pod| reads(pod) && pod["spec"]["nodeName"] == **name).await.unwrap();
    }
    for name in &dead {
        dies(&rig, name).await;
    }
    let unread = |node: &Value| {
        node["metadata"]["name"] == "n1"
            && node["metadata"]["annotations"]["operator.kairos.io/facts-of"].is_null()
    };
    rig.cluster.until_none("nodes", LONG, unread).await.unwrap();
    // It names its node: whoever means all that Kairos manages waits minutes for those of which that is not known.
    let up = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "metadata": {"name": "up", "namespace": "default"},
        "spec": {"image": "kairos:v3.5.0", "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n1"}}}});
    rig.cluster.apply(&up.to_string()).await.unwrap();
    let over = |op: &Value| matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed"));
    let status = rig.cluster.until(UPGRADES, LONG, over).await.unwrap()["status"].clone();
    assert_eq!(
        (&status["phase"], &status["nodeStatuses"]["n1"]["verified"]),
        (&json!("Completed"), &json!(true)),
        "{status:#}"
    );
    let held = |pod: &Value| reads(pod) && pod["metadata"]["deletionTimestamp"].is_null();
    rig.cluster.until_none("pods", LONG, held).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_somebody_else_under_our_name_is_passed_by_and_left_alone() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let node = rig.cluster.get("nodes", "", "n1").unwrap();
    let of = |path: &str| node.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seed = format!("{} {}", of("/metadata/uid"), of("/status/nodeInfo/bootID"));
    let name = object_name::object((LABELER, &seed), "n1", "", 0);
    let theirs = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "operator-system"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "command": ["sh", "-c", "sleep infinity"]}]}});
    rig.cluster.apply(&theirs.to_string()).await.unwrap();
    rig.start(&[]);
    rig.labelled().await;
    let theirs = rig.cluster.get("pods", "operator-system", &name).unwrap();
    assert!(theirs["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kairos_nodes_are_labelled_others_are_not_and_a_restart_asks_nothing_again() {
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1)).await;
    kairos::remove(&rig.cluster.node("n3").disk()).unwrap();
    rig.start(&[]);
    rig.labelled().await;
    let label = |node: &str, name: &str| {
        rig.cluster.get("nodes", "", node).unwrap()["metadata"]["labels"][name].clone()
    };
    assert_eq!(label("n1", "kairos.io/managed"), "true");
    assert_eq!(
        (label("n2", "kairos.io/boot-state"), label("n2", "kairos.io/flavor")),
        ("active".into(), "opensuse".into())
    );
    let n3 = rig.cluster.get("nodes", "", "n3").unwrap();
    let kept: Vec<&String> = n3["metadata"]["labels"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| key.starts_with("kairos.io/"))
        .collect();
    assert!(kept.is_empty(), "{kept:?}");

    let facts = |pod: &Value| pod["metadata"]["labels"]["app"] == "kairos-node-labeler";
    rig.cluster.until_none("pods", LONG, facts).await.unwrap();
    rig.operators[0].kill();
    // What it had sent is answered before its end is forgotten.
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.cluster.clear_requests();
    rig.start(&[]);
    let began = std::time::Instant::now();
    while !["nodes", "nodeops.operator.kairos.io", "pods"]
        .iter()
        .all(|kind| rig.requests().iter().any(|r| r.resource == *kind))
    {
        assert!(began.elapsed() < LONG, "it does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let writes: Vec<_> = rig.requests().into_iter().filter(kairos_sim::Request::is_write).collect();
    assert_eq!(writes, []);

    rig.cluster.node("n2").reboot();
    let boot = |n: &Value| n["status"]["nodeInfo"]["bootID"].as_str().unwrap_or("none").to_owned();
    let told = |n: &Value| {
        n["metadata"]["annotations"]["operator.kairos.io/facts-of"].as_str().unwrap_or_default().to_owned()
    };
    let before = boot(&rig.cluster.get("nodes", "", "n2").unwrap());
    rig.cluster
        .until("nodes", LONG, |n| {
            n["metadata"]["name"] == "n2" && boot(n) != before && told(n).starts_with(&boot(n))
        })
        .await
        .unwrap();
}

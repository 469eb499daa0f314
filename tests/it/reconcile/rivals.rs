//! Others who want something of the same nodes: a human with kubectl, another controller that cordons or
//! reboots, an autoscaler that removes nodes. What each does to an operation; other NodeOps are in `rollout`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kairos_operator::api::names;
use kairos_sim::Cluster;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, Rig, and, reboot};

/// A command that takes its time.
fn slow() -> Value {
    and(reboot(), json!({"command": ["sh", "-c", "sleep 1"], "backoffLimit": 3}))
}

async fn delete_node(rig: &Rig, name: &str) {
    Api::<Node>::all(rig.cluster.client()).delete(name, &DeleteParams::default()).await.unwrap();
}

/// What `kubectl drain --force --ignore-daemonsets` and Kured do: every pod of the node goes.
async fn drain(rig: &Rig, node: &str) {
    for pod in rig.cluster.list("pods").iter().filter(|pod| pod["spec"]["nodeName"] == node) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let pods: Api<Pod> =
            Api::namespaced(rig.cluster.client(), pod["metadata"]["namespace"].as_str().unwrap());
        // One that has gone meanwhile is no error.
        let _ = pods.delete(name, &DeleteParams::default().grace_period(0)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_drains_a_node_in_progress_and_the_command_is_tried_again() {
    let rig = Rig::new(1).await;
    rig.op("op", slow()).await;
    rig.command_runs("n1").await;
    drain(&rig, "n1").await;
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 2, 1),
        "{status:#}"
    );
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_uncordons_before_the_reboot_in_vain_and_cordons_what_was_not_for_good() {
    let rig = Rig::new(1).await;
    rig.hold_reboots();
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Reboot").await;
    rig.patch_node("n1", json!({"spec": {"unschedulable": null}})).await;
    rig.cluster.until("nodes", LONG, |n| n["spec"]["unschedulable"] == true).await.unwrap();
    rig.cluster.faults().clear();
    assert_eq!((&rig.over("op").await["phase"], rig.left()), (&json!("Completed"), Vec::new()));

    rig.op("gentle", and(slow(), json!({"cordon": false, "rebootOnSuccess": false}))).await;
    rig.in_step("gentle", "n1", "Job").await;
    rig.patch_node("n1", json!({"spec": {"unschedulable": true}})).await;
    assert_eq!((&rig.over("gentle").await["phase"], rig.is_cordoned("n1")), (&json!("Completed"), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_uncordons_for_ever_is_named_and_not_fought_at_full_speed() {
    let rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep infinity"]}))).await;
    rig.command_runs("n1").await;
    let fight = async {
        loop {
            rig.cluster.until("nodes", LONG, |n| n["spec"]["unschedulable"] == true).await.unwrap();
            rig.patch_node("n1", json!({"spec": {"unschedulable": null}})).await;
        }
    };
    let told = async {
        rig.says("op", "n1", "is undone again and again").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    };
    tokio::select! {
        () = told => {}
        () = fight => {}
    }
    let patches = rig.requests().iter().filter(|r| r.verb == "patch" && r.resource == "nodes").count();
    assert!(patches < 90, "{patches} patches");
    rig.delete("op").await;
    rig.cluster.until_none(super::rig::OPS, LONG, |_| true).await.unwrap();
    assert_eq!(rig.left(), [""; 0]);
}

/// Kured found the node first: cordoned it, drained it, reboots it, and uncordons it, all while the node is
/// ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kured_reboots_a_node_in_progress_and_it_is_rebooted_once_more_and_left_schedulable() {
    let rig = Rig::new(2).await;
    rig.patch_node("n1", json!({"spec": {"unschedulable": true}})).await;
    rig.op("op", slow()).await;
    rig.command_runs("n1").await;
    drain(&rig, "n1").await;
    let boots = rig.cluster.node("n1").boots().len();
    rig.cluster.node("n1").reboot();
    let shown = |n: &Value| {
        n["metadata"]["name"] == "n1"
            && n["status"]["nodeInfo"]["bootID"] == rig.cluster.node("n1").boots().last().unwrap().as_str()
    };
    rig.cluster
        .until("nodes", LONG, |n| rig.cluster.node("n1").boots().len() > boots && shown(n))
        .await
        .unwrap();
    rig.patch_node("n1", json!({"spec": {"unschedulable": null}})).await;
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    assert_eq!((rig.reboots("n1"), rig.reboots("n2")), (2, 1), "Kured's, and the one after the success");
    assert_eq!((rig.claims().1, rig.left()), (1, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_removes_nodes_pending_and_in_progress_and_the_others_go_on() {
    let rig = Rig::with(Cluster::builder().nodes(4).control_planes(1)).await;
    // A machine that nothing would tell from another one is not waited for.
    let nobody = Patch::Merge(json!({"status": {"nodeInfo": {"machineID": ""}}}));
    let nodes: Api<Node> = Api::all(rig.cluster.client());
    nodes.patch_status("n2", &PatchParams::default(), &nobody).await.unwrap();
    rig.op("op", and(slow(), json!({"command": ["sh", "-c", "sleep 2"]}))).await;
    rig.command_runs("n1").await;
    delete_node(&rig, "n3").await;
    rig.command_runs("n2").await;
    for pod in rig
        .cluster
        .list("pods")
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == "n2" && pod["metadata"]["namespace"] == "default")
    {
        let annotations = &pod["metadata"]["annotations"];
        let keeps = [
            &annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"],
            &annotations["karpenter.sh/do-not-disrupt"],
        ];
        assert_eq!(keeps, ["false", "true"], "it was asked not to: {pod:#}");
    }
    let told = |node: &str| {
        let node = rig.cluster.get("nodes", "", node).unwrap();
        names::KEEPS_FROM_SCALE_DOWN.map(|(hint, _)| node["metadata"]["annotations"][hint].clone())
    };
    assert_eq!((told("n2"), told("n4")), ([json!("true"), json!("true")], [Value::Null, Value::Null]));
    rig.cluster.node("n2").die();
    delete_node(&rig, "n2").await;
    let status = rig.over("op").await;
    let says = |node: &str| {
        let entry = &status["nodeStatuses"][node];
        (
            entry["phase"].as_str().unwrap_or_default().to_owned(),
            entry["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(says("n3"), ("Completed".into(), "Skipped: the node was deleted before its turn".into()));
    let lost = "the node was deleted while the operation worked on it (see docs: node-deleted-or-replaced)";
    assert_eq!(says("n2"), ("Failed".into(), lost.into()));
    assert_eq!((says("n1").0, says("n4").0), ("Completed".into(), "Completed".into()), "{status:#}");
    assert_eq!((rig.reboots("n1"), rig.reboots("n4"), rig.left()), (1, 1, Vec::new()));
}

/// Karpenter's finalizer holds a node for as long as it is drained: such a node is not taken, and holds up
/// nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_being_removed_is_not_taken_and_holds_up_nobody() {
    let rig = Rig::new(3).await;
    rig.patch_node("n2", json!({"metadata": {"finalizers": ["karpenter.sh/termination"]}})).await;
    delete_node(&rig, "n2").await;
    rig.op("op", reboot()).await;
    rig.says("op", "n2", "the node is being deleted").await;
    let n3_done = |op: &Value| op["status"]["nodeStatuses"]["n3"]["phase"] == "Completed";
    rig.cluster.until(super::rig::OPS, LONG, n3_done).await.unwrap();
    rig.patch_node("n2", json!({"metadata": {"finalizers": null}})).await;
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], &status["nodeStatuses"]["n2"]["phase"]),
        (&json!("Completed"), &json!("Completed")),
        "{status:#}"
    );
    assert_eq!((rig.claims().0.join(" "), rig.commands("n2")), ("n1 n3".into(), 0));
}

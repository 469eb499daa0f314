//! An operator that replaces the Go one in the middle of a rollout.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kairos_operator::api::nodeop::NodeOp;
use kairos_sim::Cluster;
use kube::{
    Api, CustomResourceExt, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, and, reboot};

fn binding(namespace: &str, name: &str) -> Value {
    let account = format!("{name}-reboot");
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": format!("nodeop-reboot-{name}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nodeop-reboot"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]})
}

/// The Job and the reboot pod that the Go operator made for n1, which it had cordoned; n2 was not begun.
async fn leave_in_progress(rig: &Rig) {
    let meta = json!({"name": "op", "namespace": "default", "finalizers": ["nodeop-reboot.kairos.io/clusterrolebinding"]});
    let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": meta,
        "spec": and(reboot(), json!({"command": ["sh", "-c", "sleep 3"]}))});
    rig.cluster.apply(&op.to_string()).await.unwrap();
    let ops: Api<NodeOp> = Api::default_namespaced(rig.cluster.client());
    let uid = ops.get("op").await.unwrap().uid().unwrap();
    let entry = json!({"phase": "Running", "jobName": "op-n1-x7k2q", "message": "Job is running", "rebootStatus": "pending"});
    let status = json!({"status": {"phase": "Running", "nodeStatuses": {"n1": entry}}});
    ops.patch_status("op", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "op", "uid": uid, "controller": true}]);
    let labels = json!({"kairos.io/nodeop": "op", "kairos.io/node": "n1"});
    let container =
        |name: &str, command: Value| json!({"name": name, "image": "busybox:latest", "command": command});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "op-n1-x7k2q", "namespace": "default", "labels": labels, "ownerReferences": owner},
        "spec": {"backoffLimit": 6, "template": {"spec": {"nodeName": "n1", "restartPolicy": "Never",
            "initContainers": [container("nodeop", json!(["sh", "-c", "sleep 3"]))],
            "containers": [container("sentinel-creator", json!(["sh", "-c", "true"]))]}}}});
    let waiter = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "op-reboot-p9w4z", "namespace": "default", "ownerReferences": owner,
            "labels": {"kairos.io/nodeop": "op", "kairos.io/node": "n1", "kairos.io/reboot": "true"}},
        "spec": {"nodeName": "n1", "restartPolicy": "OnFailure", "containers": [container("reboot", json!(["sh", "-c", "sleep infinity"]))]}});
    for object in [waiter, job, binding("default", "op"), binding("elsewhere", "other")] {
        rig.cluster.apply(&object.to_string()).await.unwrap();
    }
    let owned = format!("default/op@{uid}");
    rig.patch_node("n1", json!({"spec": {"unschedulable": true}, "metadata": {"annotations": {"operator.kairos.io/cordoned-by": owned}}}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_of_the_go_operator_is_taken_over_and_brought_to_its_end() {
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
    leave_in_progress(&rig).await;
    rig.command_runs("n1").await;
    rig.start(&[]);
    rig.in_step("op", "n1", "Reboot").await;
    assert!(rig.is_cordoned("n1"));
    let reboot_pods = |node: &str| {
        let pods = rig
            .cluster
            .history()
            .into_iter()
            .filter(|c| c.key.table.as_ref() == "pods")
            .map(|c| c.object.clone());
        let ours = pods.filter(|p| {
            p["metadata"]["labels"]["kairos.io/reboot"] == "true" && p["spec"]["nodeName"] == node
        });
        ours.map(|p| p["metadata"]["name"].to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(reboot_pods("n1").len(), 1, "{:?}", reboot_pods("n1"));

    // What its reboot pod does: it says so, and reboots.
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(rig.cluster.client());
    let said = json!({"metadata": {"annotations": {"kairos.io/reboot-state": "completed"}}});
    pods.patch("op-reboot-p9w4z", &PatchParams::default(), &Patch::Merge(said)).await.unwrap();
    rig.cluster.node("n1").reboot();

    both_are_done(&rig).await;
    assert_eq!((reboot_pods("n1").len(), rig.left()), (1, Vec::new()));
}

/// Its labeler's DaemonSet makes a deleted pod again at once: deleting it would never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_labelers_pods_are_left_alone_and_its_finished_operations_too() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let labeler = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kairos-node-labeler-abcde", "namespace": "operator-system",
            "labels": {"app": "kairos-node-labeler", "mode": "daemon"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "labeler", "image": "labeler", "command": ["sh", "-c", "sleep infinity"]}]}});
    rig.cluster.apply(&labeler.to_string()).await.unwrap();
    rig.op("op", reboot()).await;
    let ops: Api<NodeOp> = Api::default_namespaced(rig.cluster.client());
    let status = json!({"status": {"phase": "Completed", "nodeStatuses": {"n1": {"phase": "Completed", "jobName": "op-n1-x7k2q"}}}});
    let old = ops.patch_status("op", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    rig.start(&[]);
    rig.labelled().await;
    let made = |pod: &Value| {
        pod["metadata"]["labels"]["app"] == "kairos-node-labeler"
            && pod["metadata"]["labels"]["mode"].is_null()
    };
    rig.cluster.until_none("pods", LONG, made).await.unwrap();
    assert!(rig.cluster.get("pods", "operator-system", "kairos-node-labeler-abcde").is_some());
    let now = rig.cluster.get(OPS, "default", "op").unwrap();
    assert_eq!(
        (now["metadata"]["resourceVersion"].as_str(), rig.reboots("n1")),
        (old.resource_version().as_deref(), 0)
    );
}

/// Of two nodes each has run the command and rebooted, once.
async fn both_are_done(rig: &Rig) {
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], &status["counts"]["done"]),
        (&json!("Completed"), &json!("2/2")),
        "{status:#}"
    );
    assert_eq!(["n1", "n2"].map(|node| (rig.commands(node), rig.reboots(node))), [(1, 1); 2]);
}

/// Another app that still syncs the Go operator's chart, or a downgrade whose CRDs come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crds_of_the_go_operator_over_ours_hold_an_operation_up_and_end_nothing() {
    let rig = Rig::new(2).await;
    let ours = serde_json::to_value(NodeOp::crd()).unwrap();
    let mut old = ours.clone();
    let known = ["phase", "message", "jobName", "rebootStatus", "nodeStatuses", "conditions", "lastUpdated"];
    let keep = |fields: &mut Value| {
        fields.as_object_mut().unwrap().retain(|field, _| known.contains(&field.as_str()));
    };
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    keep(old.pointer_mut(status).unwrap());
    let entry = "/nodeStatuses/additionalProperties/properties";
    keep(old.pointer_mut(&format!("{status}{entry}")).unwrap());
    let crds: Api<CustomResourceDefinition> = Api::all(rig.cluster.client());
    let install = async |crd: &Value| {
        let versions = json!({"spec": {"versions": crd["spec"]["versions"]}});
        let name = crd["metadata"]["name"].as_str().unwrap();
        crds.patch(name, &PatchParams::default(), &Patch::Merge(versions)).await.unwrap();
    };

    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 2"]}))).await;
    rig.command_runs("n1").await;
    rig.in_step("op", "n1", "Job").await;
    install(&old).await;
    let told = |event: &Value| {
        event["reason"] == "Blocked" && event.to_string().contains("CRDs in this cluster are older")
    };
    rig.cluster.until("events", LONG, told).await.unwrap();
    let held = rig.status("op");
    assert_eq!(held["nodeStatuses"]["n1"]["step"], "Job", "{held:#}");
    install(&ours).await;
    both_are_done(&rig).await;
}

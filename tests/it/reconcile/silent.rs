//! What a kubelet says in Events alone, and what strangers say with our labels.

use std::time::Instant;

use kairos_sim::{Cluster, Effect, Fault};
use serde_json::{Value, json};

use super::rig::{LONG, OPERATOR, Rig};

/// A node without an address to give: its pods of this NodeOp get no container, and nothing but an Event says
/// why.
pub async fn no_sandbox(rig: &Rig, op: &str, node: &str) {
    let words = "failed to allocate for range 0: no IP addresses available in range set";
    let silent = Fault::on("patch", "pods/status", Effect::Refuse(500)).by("^system:node:");
    rig.cluster.faults().arm(silent.named(&format!("^{op}-{node}-")).always());
    let on = json!({"matchLabels": {"kubernetes.io/hostname": node}});
    rig.op(op, json!({"command": ["true"], "nodeSelector": on})).await;
    let ours =
        |pod: &Value| pod["metadata"]["labels"]["kairos.io/nodeop"] == op && pod["spec"]["nodeName"] == node;
    let pod = rig.cluster.until("pods", LONG, ours).await.unwrap();
    for (name, type_, reason, message) in [
        ("a", "Warning", "FailedMount", "MountVolume.SetUp failed"),
        ("c", "Normal", "Pulling", "pulling"),
        ("b", "Warning", "FailedCreatePodSandBox", words),
    ] {
        let about = json!({"kind": "Pod", "namespace": "default", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{op}-{name}"), "namespace": "default"},
            "involvedObject": about, "type": type_, "reason": reason, "message": message,
            // A clock that is off by years: which Event is the newest the server says.
            "firstTimestamp": null, "lastTimestamp": if name == "a" { "2035-01-01T00:00:00Z" } else { "2020-01-01T00:00:00Z" }});
        rig.cluster.apply(&event.to_string()).await.unwrap();
    }
    rig.says(op, node, &format!("FailedCreatePodSandBox: {words}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_events_know_is_told_and_asked_for_at_a_measured_pace() {
    let rig = Rig::new(2).await;
    rig.labelled().await;
    let began = Instant::now();
    no_sandbox(&rig, "silent", "n2").await;
    let lists = rig
        .requests()
        .iter()
        .filter(|request| request.resource.starts_with("events") && request.verb == "list")
        .count();
    let most = began.elapsed().as_secs() / 10;
    assert!((1..=most).contains(&(lists as u64)), "{lists} looks, and at most {most} were due");
    rig.cluster.faults().clear();
    assert_eq!(rig.over("silent").await["phase"], "Completed");
}

/// What a dry run of ours is not told: a policy that asks who makes the pod, or whether it would be stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_jobs_controller_is_told_alone_is_told_until_it_can_make_a_pod() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    let words = "image busybox:1 is not signed";
    rig.cluster.admission().refuse(move |creation| {
        let owner = &creation.object["metadata"]["ownerReferences"][0]["kind"];
        (creation.table == "pods" && !creation.dry_run && owner == "Job").then(|| words.into())
    });
    let spec = json!({"image": "busybox:1", "command": ["true"], "cordon": true});
    rig.op("op", spec).await;
    rig.says("op", "n1", "the Job controller can make no pod: FailedCreate: Error creating: ").await;
    rig.says("op", "n1", words).await;
    rig.cluster.admission().clear();
    assert_eq!(rig.over("op").await["phase"], "Completed");
}

/// Pods that carry our label, in namespaces without a NodeOp and beside one: they are not listed there, and
/// stop nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_with_our_label_are_neither_read_nor_waited_for() {
    let rig = Rig::with(Cluster::builder().nodes(2).control_planes(1)).await;
    rig.labelled().await;
    rig.cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}).to_string())
        .await
        .unwrap();
    for namespace in ["team-a", "default"] {
        let web = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": namespace, "labels": {"kairos.io/nodeop": "op", "kairos.io/reboot": "true"}},
            "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "busybox"}]}});
        rig.cluster.apply(&web.to_string()).await.unwrap();
    }
    let on = json!({"matchLabels": {"kubernetes.io/hostname": "n2"}});
    rig.op("op", json!({"command": ["true"], "cordon": true, "nodeSelector": on})).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert!(!rig.is_cordoned("n2"), "the node was given back");
    let used = rig
        .cluster
        .rights()
        .into_iter()
        .filter(|right| right.user == OPERATOR && right.resource == "pods" && right.verb == "list");
    let namespaces: Vec<String> = used.map(|right| right.namespace).collect();
    assert!(
        !namespaces.is_empty()
            && namespaces.iter().all(|namespace| namespace != "team-a" && !namespace.is_empty()),
        "{namespaces:?}"
    );
}

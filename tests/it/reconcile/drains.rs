//! Drains that are blocked say by what, and go on when it is out of the way.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kairos_operator::plan::model::object_name;
use kairos_sim::{Effect, Fault, Outcome};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use super::rig::{LONG, OPERATOR, OPS, Rig, and, reboot};

/// What a blocked drain says.
pub const BLOCKED: &str = "default/db";

/// A pod on a node that no budget allows to go.
pub fn blocker(node: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "default", "labels": {"app": "db"}},
        "spec": {"nodeName": node, "containers": [{"name": "db", "image": "postgres"}]}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "db-budget", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}});
    format!("{budget}\n---\n{pod}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_blocks_is_named_and_when_it_gives_way_the_drain_goes_on() {
    let rig = Rig::new(1).await;
    rig.cluster.apply(&blocker("n1")).await.unwrap();
    rig.cluster
        .until("pods", LONG, |p| p["metadata"]["name"] == "db" && p["status"]["phase"] == "Running")
        .await
        .unwrap();
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))).await;
    rig.says("op", "n1", "db-budget").await;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(rig.cluster.client());
    budgets.delete("db-budget", &DeleteParams::default()).await.unwrap();
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
    assert!(rig.cluster.get("pods", "default", "db").is_none(), "it was evicted");
}

/// What an operator of a database has a webhook for: its pod is moved first. Any code may come with the
/// webhook's no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_that_a_webhook_refuses_is_told_in_its_words_and_tried_again() {
    let denied = "admission webhook \"moves.example.com\" denied the request: the primary is being moved";
    let refused = |code: u16| async move {
        let rig = Rig::new(1).await;
        rig.cluster.apply(blocker("n1").split("\n---\n").last().unwrap()).await.unwrap();
        rig.cluster
            .until("pods", LONG, |p| p["metadata"]["name"] == "db" && p["status"]["phase"] == "Running")
            .await
            .unwrap();
        rig.cluster
            .faults()
            .arm(Fault::on("create", "pods/eviction", Effect::Refuse(code)).saying(denied).times(1));
        rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))).await;
        rig.says("op", "n1", denied).await;
        // A no that is no fault of the server's is asked for again after a minute: see `act::drain`.
        if code == 500 {
            assert_eq!(rig.over("op").await["phase"], "Completed");
        }
    };
    futures::future::join_all([400, 422, 500].map(refused)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_fails_the_node_untouched_and_uncordoned() {
    let rig = Rig::new(2).await;
    rig.cluster.apply(&blocker("n1")).await.unwrap();
    let drain =
        json!({"drainOptions": {"enabled": true, "force": true, "timeoutSeconds": 1}, "stopOnFailure": true});
    rig.op("op", and(reboot(), drain)).await;
    let status = rig.over("op").await;
    let n1 = &status["nodeStatuses"]["n1"];
    assert_eq!((&status["phase"], &n1["phase"]), (&json!("Failed"), &json!("Failed")));
    assert!(n1["message"].as_str().unwrap().contains("drain timed out"), "{n1}");
    assert_eq!((rig.commands("n1"), rig.commands("n2")), (0, 0));
    assert_eq!(rig.left(), [""; 0]);
    let pods: Vec<Value> =
        rig.cluster.list("pods").iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert!(pods.contains(&json!("db")), "{pods:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_the_options_leave_are_named_in_one_event() {
    let rig = Rig::new(1).await;
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}});
    rig.cluster.apply(&bare.to_string()).await.unwrap();
    rig.cluster
        .until("pods", LONG, |p| p["metadata"]["name"] == "bare" && p["status"]["phase"] == "Running")
        .await
        .unwrap();
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true}}))).await;
    assert_eq!(rig.over("op").await["phase"], json!("Completed"));
    assert!(rig.cluster.get("pods", "default", "bare").is_some(), "it was left");
    let events = rig.cluster.list("events");
    let about_op = |event: &Value| {
        [&event["regarding"]["kind"], &event["involvedObject"]["kind"]].contains(&&json!("NodeOp"))
    };
    let words = |event: &Value| {
        event["note"].as_str().or_else(|| event["message"].as_str()).unwrap_or_default().to_owned()
    };
    let said: Vec<String> = events
        .iter()
        .filter(|event| event["reason"] == "PodsLeft" && about_op(event))
        .map(|event| words(event))
        .collect();
    assert_eq!(said.len(), 1, "{events:#?}");
    assert!(said[0].contains("default/bare: no controller would make it again (force is false)"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_another_nodeops_job_is_not_evicted_though_no_watch_has_told_of_that_job() {
    let rig = Rig::new(2).await;
    rig.op("other", json!({"image": "busybox:1", "command": ["true"], "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n2"}}}))
        .await;
    assert_eq!(rig.over("other").await["phase"], json!("Completed"));
    let uid = rig.cluster.get(OPS, "default", "other").unwrap()["metadata"]["uid"].clone();
    // By another name it would be a stranger's, of which that NodeOp knows nothing.
    let name = object_name::object(("other", uid.as_str().unwrap()), "n1", "", 0);
    // From here on the operator's view of Jobs stands still.
    rig.cluster.faults().arm(Fault::on("watch", "jobs.batch", Effect::Hang).by(OPERATOR).always());
    rig.cluster.faults().close_watches();
    let template = json!({"metadata": {"labels": {"kairos.io/nodeop": "other"}},
        "spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "forever"}]}});
    let owner = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "other", "uid": uid, "controller": true});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template},
        "metadata": {"name": name, "namespace": "default", "labels": {"kairos.io/nodeop": "other"}, "ownerReferences": [owner]}});
    rig.cluster.script(|run| {
        (run.container.image.as_deref() == Some("forever"))
            .then(|| Outcome::Exit(LONG * 10, 0, String::new()))
    });
    rig.cluster.apply(&job.to_string()).await.unwrap();
    let of_the_job = |pod: &Value| {
        pod["spec"]["nodeName"] == "n1" && pod["metadata"]["labels"]["kairos.io/nodeop"] == "other"
    };
    rig.cluster
        .until("pods", LONG, |pod| of_the_job(pod) && pod["status"]["phase"] == "Running")
        .await
        .unwrap();
    let n1 = json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n1"}}, "drainOptions": {"enabled": true, "force": true}});
    rig.op("op", and(reboot(), n1)).await;
    rig.says("op", "n1", &format!("it carries out NodeOp other (Job {name})")).await;
    let evictions = rig.requests().into_iter().filter(|request| request.resource == "pods/eviction").count();
    assert_eq!(evictions, 0);
}

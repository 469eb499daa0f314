//! Jobs: suspended and resumed, retried, failed, ended; their pods counted and collected.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use serde_json::{Value, json};

use crate::{LONG, has, small};

fn job(name: &str, command: &[&str], spec: Value) -> String {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox:1", "command": command}]}}},
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job.to_string()
}

#[tokio::test]
async fn a_suspended_job_makes_no_pod_until_it_is_resumed_and_then_completes() {
    let cluster = small().start().await.unwrap();
    cluster.apply(&job("a", &["sh", "-c", "exit 0"], json!({"suspend": true}))).await.unwrap();
    cluster.until("jobs.batch", LONG, |j| has(j, "Suspended")).await.unwrap();
    assert!(cluster.list("pods").is_empty());
    cluster.apply(r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"suspend": false}}"#).await.unwrap();
    let done = cluster.until("jobs.batch", LONG, |j| has(j, "Complete")).await.unwrap();
    assert!(has(&done, "SuccessCriteriaMet"));
    assert_eq!(done["status"]["succeeded"], 1);
    let pods = cluster.list("pods");
    assert_eq!(pods[0]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"], done["metadata"]["uid"]);
    assert_eq!(pods[0]["metadata"]["labels"]["job-name"], "a");
    assert_eq!(pods[0]["metadata"].get("finalizers"), None, "a counted pod is let go");
}

#[tokio::test]
async fn the_pod_of_a_job_that_is_suspended_ends_and_counts_as_no_failure() {
    let cluster = small().start().await.unwrap();
    let policy = json!({"backoffLimit": 0, "podReplacementPolicy": "Failed"});
    cluster.apply(&job("a", &["sleep", "infinity"], policy)).await.unwrap();
    cluster.until("pods", LONG, |p| p["status"]["phase"] == "Running").await.unwrap();
    cluster.apply(r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"suspend": true}}"#).await.unwrap();
    cluster.until_none("pods", LONG, |_| true).await.unwrap();
    let left = cluster
        .until("jobs.batch", LONG, |j| has(j, "Suspended") && j["status"]["terminating"] == 0)
        .await
        .unwrap();
    assert!(!has(&left, "Failed") && !has(&left, "FailureTarget"), "{}", left["status"]);
    assert!(left["status"]["failed"].is_null(), "{}", left["status"]);
}

#[tokio::test]
async fn a_failing_job_is_retried_as_often_as_asked() {
    let cluster = small().start().await.unwrap();
    cluster.apply(&job("a", &["false"], json!({"backoffLimit": 2}))).await.unwrap();
    let failed = cluster.until("jobs.batch", LONG, |j| has(j, "Failed")).await.unwrap();
    assert_eq!(failed["status"]["failed"], 3);
    let reason =
        failed["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Failed").unwrap();
    assert_eq!(reason["reason"], "BackoffLimitExceeded");
}

#[tokio::test]
async fn an_exit_code_of_the_policy_fails_the_job_at_once() {
    let cluster = small().start().await.unwrap();
    let policy = json!({"backoffLimit": 5, "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}});
    cluster.apply(&job("a", &["sh", "-c", "exit 42"], policy)).await.unwrap();
    let failed = cluster.until("jobs.batch", LONG, |j| has(j, "Failed")).await.unwrap();
    assert_eq!(
        (&failed["status"]["failed"], failed["spec"]["podReplacementPolicy"].as_str()),
        (&json!(1), Some("Failed"))
    );
}

#[tokio::test]
async fn a_deadline_ends_the_pods_before_the_job_is_failed() {
    let cluster = small().start().await.unwrap();
    cluster.apply(&job("a", &["sleep", "infinity"], json!({"activeDeadlineSeconds": 1}))).await.unwrap();
    cluster.until("jobs.batch", LONG, |j| has(j, "Failed")).await.unwrap();
    let over = cluster
        .history()
        .into_iter()
        .filter(|c| c.key.table.as_ref() == "pods" && c.object["status"]["phase"] == "Failed")
        .map(|c| c.version)
        .min();
    let failed = cluster
        .history()
        .into_iter()
        .find(|c| c.key.table.as_ref() == "jobs.batch" && has(&c.object, "Failed"))
        .unwrap();
    assert!(over.unwrap() < failed.version);
}

#[tokio::test]
async fn a_deleted_job_takes_its_pods_along_in_the_background_and_orphans_them_by_default() {
    use k8s_openapi::api::batch::v1::Job;
    use kube::{Api, api::DeleteParams};
    let cluster = small().start().await.unwrap();
    for name in ["a", "b"] {
        cluster.apply(&job(name, &["sleep", "infinity"], json!({}))).await.unwrap();
        cluster
            .until("pods", LONG, |p| {
                p["metadata"]["labels"]["job-name"] == name && p["status"]["phase"] == "Running"
            })
            .await
            .unwrap();
    }
    let jobs: Api<Job> = Api::default_namespaced(cluster.client());
    jobs.delete("a", &DeleteParams::background()).await.unwrap();
    jobs.delete("b", &DeleteParams::default()).await.unwrap();
    cluster.until_none("pods", LONG, |p| p["metadata"]["labels"]["job-name"] == "a").await.unwrap();
    cluster.until_none("jobs.batch", LONG, |_| true).await.unwrap();
    let left = cluster.list("pods");
    assert_eq!((left.len(), left[0]["status"]["phase"].as_str()), (1, Some("Running")));
    assert_eq!(left[0]["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_pod_elsewhere_that_names_a_job_as_its_owner_is_none_of_its_pods() {
    let cluster = small().start().await.unwrap();
    cluster
        .apply(r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}"#)
        .await
        .unwrap();
    cluster.apply(&job("a", &["sleep", "1"], json!({"suspend": true}))).await.unwrap();
    let suspended = cluster.until("jobs.batch", LONG, |j| has(j, "Suspended")).await.unwrap();
    let owner = json!({"apiVersion": "no.such.group/v1", "kind": "Job", "name": "a", "uid": suspended["metadata"]["uid"], "controller": true});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "forged", "namespace": "team-a", "ownerReferences": [owner]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox:1", "command": ["sleep", "infinity"]}]}});
    cluster.apply(&pod.to_string()).await.unwrap();
    cluster.until("pods", LONG, |p| p["status"]["phase"] == "Running").await.unwrap();
    cluster.apply(r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"suspend": false}}"#).await.unwrap();
    // Its own pod runs and ends, and the Job does not wait for the other one.
    cluster.until("jobs.batch", LONG, |j| has(j, "Complete")).await.unwrap();
    let left = cluster.until("pods", LONG, |p| p["metadata"]["name"] == "forged").await.unwrap();
    assert_eq!(left["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_log_is_what_a_container_has_printed() {
    let cluster = small().start().await.unwrap();
    cluster
        .apply(&job(
            "a",
            &["sh", "-c", "echo no space left > /dev/termination-log; exit 1"],
            json!({"backoffLimit": 0}),
        ))
        .await
        .unwrap();
    cluster.until("jobs.batch", LONG, |j| has(j, "Failed")).await.unwrap();
    let name = cluster.list("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let of = |container: Option<&str>, previous: bool| LogParams {
        container: container.map(str::to_owned),
        previous,
        ..LogParams::default()
    };
    assert_eq!(pods.logs(&name, &of(None, false)).await.unwrap(), "no space left\n");
    for (params, why) in [
        (of(Some("none"), false), format!("container none is not valid for pod {name}")),
        (of(Some("c"), true), format!("container \"c\" in pod \"{name}\" is waiting to start: ")),
    ] {
        let kube::Error::Api(status) = pods.logs(&name, &params).await.unwrap_err() else {
            panic!("no answer")
        };
        assert_eq!((status.code, status.message), (400, why));
    }
}

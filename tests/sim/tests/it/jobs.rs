//! Jobs whose pods run on hollow nodes.

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

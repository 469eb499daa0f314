//! Nodes that are odd when a test says so: full, refusing, without sandboxes, with a runtime that starts
//! nothing, a stopped kubelet or a wrong clock; and a store that goes back. In paused time, in one process.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use kairos_sim::{Cluster, Outcome, Tells};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{LONG, has, is};

async fn cluster() -> Cluster {
    kairos_sim::clock::set(k8s_openapi::jiff::Timestamp::from_second(1_780_000_000).unwrap());
    let builder = Cluster::builder().in_process().nodes(2).control_planes(1).boot(Duration::from_secs(2));
    builder.not_ready_after(Duration::from_secs(3)).script(|_| Some(Outcome::Forever)).start().await.unwrap()
}

fn pod(name: &str, class: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "n2", "priorityClassName": class, "restartPolicy": "Never", "containers": [{"name": "c", "image": "w:1"}]}})
    .to_string()
}

fn reason(pod: &Value) -> &str {
    pod["status"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_full_node_refuses_a_pod_and_ends_another_for_a_critical_one() {
    let cluster = cluster().await;
    cluster.apply(&pod("first", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "first", "Running")).await.unwrap();
    cluster.node("n2").set_room(1).await;
    assert_eq!(cluster.get("nodes", "", "n2").unwrap()["status"]["allocatable"]["pods"], "1");
    cluster.apply(&pod("second", "")).await.unwrap();
    let second = cluster.until("pods", LONG, |p| is(p, "second", "Failed")).await.unwrap();
    assert_eq!(reason(&second), "OutOfpods");
    assert!(second["status"]["containerStatuses"].as_array().is_none_or(Vec::is_empty), "{second}");
    cluster.apply(&pod("critical", "system-node-critical")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "critical", "Running")).await.unwrap();
    let first = cluster.until("pods", LONG, |p| is(p, "first", "Failed")).await.unwrap();
    assert_eq!(reason(&first), "Preempting");
}

#[tokio::test(start_paused = true)]
async fn without_a_sandbox_only_events_speak() {
    let cluster = cluster().await;
    cluster.node("n2").fail_sandboxes(Some("no free address"));
    cluster.apply(&pod("a", "")).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    let a = cluster.get("pods", "default", "a").unwrap();
    assert_eq!(a["status"]["phase"], "Pending");
    assert_eq!(a["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let said = cluster.list("events").into_iter().find(|e| e["reason"] == "FailedCreatePodSandBox").unwrap();
    assert_eq!((&said["type"], &said["involvedObject"]["uid"]), (&json!("Warning"), &a["metadata"]["uid"]));
    assert!(
        said["count"].as_i64().unwrap() > 1 && said["message"].as_str().unwrap().contains("no free address"),
        "{said}"
    );
    cluster.node("n2").fail_sandboxes(None);
    cluster.until("pods", LONG, |p| is(p, "a", "Running")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_container_that_the_runtime_cannot_start_has_ended() {
    let cluster = cluster().await;
    cluster.node("n2").fail_starts(Some("failed to create containerd task"));
    cluster.apply(&pod("a", "")).await.unwrap();
    let a = cluster.until("pods", LONG, |p| is(p, "a", "Failed")).await.unwrap();
    let ended = &a["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)), "{a}");
    assert_eq!(ended["message"], "failed to create containerd task");
    cluster.node("n2").fail_starts(None);
    cluster.apply(&pod("b", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "b", "Running")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn containers_outlive_their_kubelet() {
    let cluster = cluster().await;
    cluster.apply(&pod("a", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "a", "Running")).await.unwrap();
    cluster.node("n2").stop_kubelet();
    cluster.until("nodes", LONG, |n| n["metadata"]["name"] == "n2" && !has(n, "Ready")).await.unwrap();
    cluster.apply(&pod("b", "")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.get("pods", "default", "a").unwrap()["status"]["phase"], "Running");
    assert_eq!(cluster.get("pods", "default", "b").unwrap()["status"]["phase"], "Pending");
    cluster.node("n2").start_kubelet().await;
    cluster.until("pods", LONG, |p| is(p, "b", "Running")).await.unwrap();
    cluster.until("nodes", LONG, |n| n["metadata"]["name"] == "n2" && has(n, "Ready")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_nodes_clock_is_its_own() {
    let cluster = cluster().await;
    cluster.node("n2").set_clock(SignedDuration::from_hours(-1));
    cluster.apply(&pod("a", "")).await.unwrap();
    let a = cluster.until("pods", LONG, |p| is(p, "a", "Running")).await.unwrap();
    let time = |pointer: &str| {
        a.pointer(pointer).unwrap().as_str().unwrap().parse::<k8s_openapi::jiff::Timestamp>().unwrap()
    };
    let (made, began) =
        (time("/metadata/creationTimestamp"), time("/status/containerStatuses/0/state/running/startedAt"));
    assert!(made.duration_since(began) > SignedDuration::from_mins(59), "{a}");
}

#[tokio::test(start_paused = true)]
async fn a_member_of_etcd_votes_only_some_time_after_its_boot() {
    let cluster = cluster().await;
    let node = cluster.node("n1");
    node.set_etcd(Tells::Condition, Duration::from_secs(30)).await;
    let votes = |n: &Value| n["metadata"]["name"] == "n1" && has(n, "EtcdIsVoter");
    cluster.until("nodes", LONG, votes).await.unwrap();
    node.reboot();
    cluster
        .until("nodes", LONG, |n| n["metadata"]["name"] == "n1" && has(n, "Ready") && !has(n, "EtcdIsVoter"))
        .await
        .unwrap();
    assert!(!node.in_quorum());
    cluster.until("nodes", Duration::from_secs(60), votes).await.unwrap();
    assert!(node.in_quorum());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_has_what_it_had() {
    let cluster = cluster().await;
    cluster.apply(&pod("a", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "a", "Running")).await.unwrap();
    let then = cluster.history().last().unwrap().version;
    cluster.apply(&pod("b", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "b", "Running")).await.unwrap();
    cluster.restore(then);
    assert!(cluster.get("pods", "default", "b").is_none() && cluster.get("pods", "default", "a").is_some());
    cluster.apply(&pod("c", "")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "c", "Running")).await.unwrap();
}

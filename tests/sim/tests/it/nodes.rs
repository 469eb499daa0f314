//! Hollow nodes: processes, reboots, restarts, deletion with grace.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use kairos_sim::{Fate, Outcome};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use crate::{LONG, is, pod, small};

/// A stand-in for the operator's binary: a script that does what it is told.
fn stand_in(dir: &std::path::Path, body: &str) -> PathBuf {
    let path = dir.join("kairos-operator");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn applet(name: &str, policy: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"x": "y"}},
        "spec": {"nodeName": "n1", "hostPID": true, "restartPolicy": policy,
                 "volumes": [{"name": "state", "hostPath": {"path": "/usr/local", "type": "DirectoryOrCreate"}}],
                 "containers": [{"name": "c", "image": "operator", "command": ["/kairos-operator", "do"], "args": ["$(WHO)"],
                                 "env": [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                                 "volumeMounts": [{"name": "state", "mountPath": "/state"}]}]},
    })
    .to_string()
}

#[tokio::test]
async fn an_applet_runs_as_a_process_on_the_nodes_disk() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"echo "$1 $2" > "$KAIROS_ROOT/state/out"; cat "$KUBECONFIG" > "$KAIROS_ROOT/state/config"; cat "$KAIROS_ROOT/proc/sys/kernel/random/boot_id" > "$KAIROS_ROOT/dev/termination-log"; exit 3"#;
    let cluster = small().operator(stand_in(dir.path(), body)).start().await.unwrap();
    cluster.apply(&applet("a", "Never")).await.unwrap();
    let done = cluster.until("pods", LONG, |p| is(p, "a", "Failed")).await.unwrap();
    let ended = &done["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 3);
    assert_eq!(ended["message"].as_str().unwrap().trim(), cluster.node("n1").boot().id);
    let disk = cluster.node("n1").disk();
    assert_eq!(std::fs::read_to_string(disk.join("usr/local/out")).unwrap(), "do a\n");
    assert!(std::fs::read_to_string(disk.join("usr/local/config")).unwrap().contains(cluster.server()));
}

#[tokio::test]
async fn asking_init_reboots_the_node_and_restarts_what_may_restart() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"[ -e "$KAIROS_ROOT/state/asked" ] && exit 0; touch "$KAIROS_ROOT/state/asked"; kill -39 "$KAIROS_INIT_PID"; exec sleep 60"#;
    let cluster = small().operator(stand_in(dir.path(), body)).start().await.unwrap();
    cluster.apply(&pod("once", "n1", json!({}), &["sleep", "infinity"], "Never")).await.unwrap();
    cluster.apply(&pod("workload", "n1", json!({}), &["serve"], "Always")).await.unwrap();
    for name in ["once", "workload"] {
        cluster.until("pods", LONG, |p| is(p, name, "Running")).await.unwrap();
    }
    let before = cluster.node("n1").boot().id;
    cluster.apply(&applet("waiter", "OnFailure")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "waiter", "Succeeded")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "once", "Failed")).await.unwrap();
    cluster
        .until("pods", LONG, |p| {
            is(p, "workload", "Running") && p["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await
        .unwrap();
    let node = cluster.get("nodes", "", "n1").unwrap();
    assert_ne!(node["status"]["nodeInfo"]["bootID"], before.as_str());
    assert_eq!(cluster.node("n1").boots().len(), 2);
}

#[tokio::test]
async fn a_node_that_is_away_long_shows_as_not_ready() {
    let cluster = small().not_ready_after(Duration::from_millis(100)).start().await.unwrap();
    let ready = |n: &serde_json::Value, status: &str| {
        n["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == status)
    };
    cluster.node("n2").set_fate(Fate::Gone);
    cluster.node("n2").reboot();
    cluster.until("nodes", LONG, |n| n["metadata"]["name"] == "n2" && ready(n, "Unknown")).await.unwrap();
    cluster.node("n2").power_on();
    cluster.until("nodes", LONG, |n| n["metadata"]["name"] == "n2" && ready(n, "True")).await.unwrap();
    assert_eq!(cluster.node("n2").boots().len(), 2);
}

#[tokio::test]
async fn a_machine_that_is_scrapped_while_it_is_down_never_boots_again() {
    let cluster = small().start().await.unwrap();
    let node = cluster.node("n2");
    node.set_fate(Fate::Late(Duration::from_millis(100)));
    node.reboot();
    node.scrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!node.boot().up);
    assert_eq!(node.boots().len(), 1);
}

#[tokio::test]
async fn deletion_waits_for_the_containers_and_no_longer_than_the_grace() {
    let cluster = small()
        .script(|run| {
            (run.container.name == "c" && run.pod.metadata.name.as_deref() == Some("stubborn"))
                .then_some(Outcome::Stubborn)
        })
        .start()
        .await
        .unwrap();
    cluster.apply(&pod("meek", "n1", json!({}), &["serve"], "Always")).await.unwrap();
    cluster.apply(&pod("stubborn", "n1", json!({}), &["serve"], "Always")).await.unwrap();
    for name in ["meek", "stubborn"] {
        cluster.until("pods", LONG, |p| is(p, name, "Running")).await.unwrap();
    }
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(cluster.client());
    let parameters = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
    pods.delete_collection(&parameters, &ListParams::default()).await.unwrap();
    cluster.until_none("pods", LONG, |_| true).await.unwrap();
    let at = |name: &str, wanted: fn(&kairos_sim::Change) -> bool| {
        let history = cluster.history();
        let found = history
            .iter()
            .find(|c| c.key.table.as_ref() == "pods" && c.key.name == name && wanted(c))
            .unwrap();
        (found.version, found.at)
    };
    let ends = |name| at(name, |c| c.kind == kairos_sim::ChangeKind::Deleted);
    let asked = at("stubborn", |c| !c.object["metadata"]["deletionTimestamp"].is_null());
    assert!(ends("meek").0 < ends("stubborn").0, "one waits for its containers, the other for its grace");
    assert!(ends("stubborn").1 >= asked.1 + Duration::from_secs(1));
}

#[tokio::test]
async fn a_cluster_takes_its_processes_and_files_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"echo $$ > "$KAIROS_ROOT/state/pid"; exec sleep 600"#;
    let cluster = small().operator(stand_in(dir.path(), body)).start().await.unwrap();
    let files = cluster.dir().to_owned();
    let pid_file = cluster.node("n1").disk().join("usr/local/pid");
    cluster.apply(&applet("a", "Never")).await.unwrap();
    let pid = loop {
        match std::fs::read_to_string(&pid_file) {
            Ok(pid) if !pid.trim().is_empty() => break pid.trim().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    cluster.stop();
    let process = PathBuf::from(format!("/proc/{pid}"));
    let gone = async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    assert!(!files.exists());
}

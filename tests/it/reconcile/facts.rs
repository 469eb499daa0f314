//! What nodes say of themselves: labels, once a boot, and never again for nothing.

use std::time::Duration;

use kairos_sim::{Cluster, kairos};

use super::rig::{LONG, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kairos_nodes_are_labelled_others_are_not_and_a_restart_asks_nothing_again() {
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1)).await;
    kairos::remove(&rig.cluster.node("n3").disk()).unwrap();
    rig.start(&[]);
    rig.labelled().await;
    let label = |node: &str, name: &str| rig.cluster.get("nodes", "", node).unwrap()["metadata"]["labels"][name].clone();
    assert_eq!(label("n1", "kairos.io/managed"), "true");
    assert_eq!((label("n2", "kairos.io/boot-state"), label("n2", "kairos.io/flavor")), ("active".into(), "opensuse".into()));
    let n3 = rig.cluster.get("nodes", "", "n3").unwrap();
    let kept: Vec<&String> = n3["metadata"]["labels"].as_object().unwrap().keys().filter(|key| key.starts_with("kairos.io/")).collect();
    assert!(kept.is_empty(), "{kept:?}");

    let facts = |pod: &serde_json::Value| pod["metadata"]["labels"]["app"] == "kairos-node-labeler";
    rig.cluster.until_none("pods", LONG, facts).await.unwrap();
    rig.operators[0].kill();
    // What it had sent is answered before its end is forgotten.
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.cluster.clear_requests();
    rig.start(&[]);
    let began = std::time::Instant::now();
    while !["nodes", "nodeops.operator.kairos.io", "pods"].iter().all(|kind| rig.requests().iter().any(|r| r.resource == *kind)) {
        assert!(began.elapsed() < LONG, "it does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let writes: Vec<_> = rig.requests().into_iter().filter(kairos_sim::Request::is_write).collect();
    assert_eq!(writes, []);

    rig.cluster.node("n2").reboot();
    let boot = |n: &serde_json::Value| n["status"]["nodeInfo"]["bootID"].as_str().unwrap_or("none").to_owned();
    let told = |n: &serde_json::Value| n["metadata"]["annotations"]["operator.kairos.io/facts-of"].as_str().unwrap_or_default().to_owned();
    let before = boot(&rig.cluster.get("nodes", "", "n2").unwrap());
    rig.cluster
        .until("nodes", LONG, |n| n["metadata"]["name"] == "n2" && boot(n) != before && told(n).starts_with(&boot(n)))
        .await
        .unwrap();
}

//! Upgrades with the stand-in agent: a canary, the same again, an agent that lies or fails, a node that falls
//! back.

use kairos_sim::kairos;
use serde_json::{Value, json};

use super::rig::{LONG, Rig, UPGRADES};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

async fn upgraded(rig: &Rig, name: &str) -> Value {
    let over = |op: &Value| {
        op["metadata"]["name"] == name
            && matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed"))
    };
    if let Err(error) = rig.cluster.until(UPGRADES, LONG, over).await {
        panic!("{error:#}: {:#}", rig.status(name));
    }
    // Its NodeOp releases the last node after that.
    rig.over(name).await;
    rig.cluster.get(UPGRADES, "default", name).unwrap()["status"].clone()
}

fn switch(rig: &Rig, node: &str, name: &str) {
    std::fs::write(kairos::state(&rig.cluster.node(node).disk()).join(name), "").unwrap();
}

fn calls(rig: &Rig, node: &str) -> usize {
    kairos::agent_calls(&rig.cluster.node(node).disk()).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_completes_with_one_agent_and_one_boot_a_node_and_again_it_skips_all() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    for version in ["v3.5.0", "v3.6.0"] {
        rig.upgrade("up", version).await;
        let status = upgraded(&rig, "up").await;
        assert_eq!(status["phase"], "Completed", "{status:#}");
        for node in NODES {
            let entry = &status["nodeStatuses"][node];
            assert_eq!(
                (&entry["phase"], &entry["rebootStatus"], &entry["verified"]),
                (&json!("Completed"), &json!("completed"), &json!(true)),
                "{entry:#}"
            );
            assert!(entry["message"].as_str().unwrap().contains(version), "{entry}");
        }
        rig.delete_upgrade("up").await;
    }
    assert_eq!(NODES.map(|node| (calls(&rig, node), rig.reboots(node))), [(2, 2); 3]);
    assert_eq!(rig.left(), [""; 0]);
    assert_eq!(rig.claims().0, NODES);

    rig.upgrade("again", "v3.6.0").await;
    let status = upgraded(&rig, "again").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    for node in NODES {
        let message = status["nodeStatuses"][node]["message"].as_str().unwrap();
        assert!(message.starts_with("Skipped by preflight: node is already at v3.6.0"), "{message}");
    }
    assert_eq!(NODES.map(|node| (calls(&rig, node), rig.reboots(node))), [(2, 2); 3]);

    rig.upgrade("back", "v3.5.0").await;
    let status = upgraded(&rig, "back").await;
    assert_eq!(status["phase"], "Failed", "{status:#}");
    let messages =
        NODES.map(|node| status["nodeStatuses"][node]["message"].as_str().unwrap_or_default().to_owned());
    let words = "older than what the node runs (v3.6.0-k3sv1.30.11+k3s1); set force: true to go back";
    assert!(messages.iter().any(|message| message.contains(words)), "{messages:?}");
    assert_eq!(
        NODES.map(|node| (calls(&rig, node), rig.reboots(node), rig.is_cordoned(node))),
        [(2, 2, false); 3]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_lies_is_found_out_and_the_canary_stops() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    switch(&rig, "n2", "noop");
    rig.upgrade("up", "v3.5.0").await;
    let status = upgraded(&rig, "up").await;
    let n2 = &status["nodeStatuses"]["n2"];
    assert_eq!((&status["phase"], &n2["phase"]), (&json!("Failed"), &json!("Failed")), "{status:#}");
    let message = n2["message"].as_str().unwrap();
    assert!(message.contains("v3.4.2") && message.contains("v3.5.0"), "{message}");
    assert_eq!(NODES.map(|node| (calls(&rig, node), rig.reboots(node))), [(1, 1), (1, 1), (0, 0)]);
    assert_eq!(NODES.map(|node| rig.is_cordoned(node)), [false, true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_fails_fails_the_node_with_its_words_and_without_a_reboot() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    switch(&rig, "n1", "fail");
    rig.upgrade("up", "v3.5.0").await;
    let status = upgraded(&rig, "up").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.contains("no space left on the state partition"), "{message}");
    assert_eq!(NODES.map(|node| rig.reboots(node)), [0; 3]);
    assert_eq!((calls(&rig, "n2"), calls(&rig, "n3")), (0, 0));
    let state = std::fs::read_to_string(rig.cluster.node("n1").disk().join("etc/kairos-release")).unwrap();
    assert!(state.contains("v3.4.2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_fails_after_it_has_replaced_the_image_is_run_by_nobody_again() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    switch(&rig, "n1", "fail-late");
    // Of two that are created in one second the last by name is the newer one.
    for (name, words) in [("first", "failed after it had replaced the image"), ("second", "but a reboot")] {
        rig.upgrade(name, "v3.5.0").await;
        let status = upgraded(&rig, name).await;
        let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert_eq!((calls(&rig, "n1"), rig.reboots("n1"), rig.is_cordoned("n1")), (1, 0, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_back_is_failed_and_stays_cordoned() {
    let rig = Rig::new(2).await;
    rig.labelled().await;
    switch(&rig, "n1", "will-not-boot");
    rig.upgrade("up", "v3.5.0").await;
    let status = upgraded(&rig, "up").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(["passive", "v3.4.2", "v3.5.0"].iter().all(|word| message.contains(word)), "{message}");
    assert_eq!((rig.reboots("n1"), calls(&rig, "n2"), rig.is_cordoned("n1")), (1, 0, true));
}

/// An upgrade whose reboot does not come has written an image that nobody has booted. Another one in the same
/// boot would make that one the fallback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_that_did_not_come_no_other_upgrade_writes_before_the_node_has_booted() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    rig.hold_reboots();
    rig.upgrade("up", "v3.5.0").await;
    rig.in_step("up", "n1", "Reboot").await;
    rig.delete_upgrade("up").await;
    rig.cluster.faults().clear();
    for (name, version, words) in
        [("up2", "v3.5.0", "but a reboot"), ("up3", "v3.6.0", "Reboot the node first")]
    {
        rig.upgrade(name, version).await;
        let status = upgraded(&rig, name).await;
        let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("Preflight failed") && message.contains("has written v3.5.0"),
            "{message}"
        );
        assert!(message.contains(words), "{message}");
        assert_eq!((calls(&rig, "n1"), rig.reboots("n1"), rig.is_cordoned("n1")), (1, 0, false));
    }
    rig.op("reboot", json!({"command": ["true"], "rebootOnSuccess": true})).await;
    assert_eq!(rig.over("reboot").await["phase"], "Completed");
    rig.upgrade("again", "v3.6.0").await;
    assert_eq!(upgraded(&rig, "again").await["phase"], "Completed");
    assert_eq!((calls(&rig, "n1"), rig.reboots("n1")), (2, 2));
}

/// The server gives the NodeOp defaults that the upgrade has not: what one says and the other does not is no
/// difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_names_only_its_image_writes_its_nodeop_once() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    let upgrade = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": "up", "namespace": "default"}, "spec": {"image": "kairos:v3.5.0"}});
    rig.cluster.apply(&upgrade.to_string()).await.unwrap();
    assert_eq!(upgraded(&rig, "up").await["phase"], "Completed");
    let patches = rig
        .requests()
        .into_iter()
        .filter(|request| request.verb == "patch" && request.resource == "nodeops.operator.kairos.io");
    let count = patches.count();
    assert!((2..5).contains(&count), "the finalizer and its removal, perhaps tried again: {count}");
}

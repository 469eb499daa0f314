//! A NodeOpUpgrade that stays and goes on by itself: nodes that join and that drift, one attempt for each, and
//! of two upgrades of a node the newer one.

use kairos_operator::api::upgrade::NodeOpUpgrade;
use kairos_sim::kairos;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, UPGRADES};

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|one| one["type"] == type_).unwrap_or(&Value::Null)
}

async fn edit(rig: &Rig, spec: Value) {
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(rig.cluster.client());
    upgrades.patch("up", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
}

async fn ask(rig: &Rig, name: &str, spec: Value) {
    let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec});
    rig.cluster.apply(&object.to_string()).await.unwrap();
}

/// The upgrade, once it is so.
async fn until(rig: &Rig, name: &str, what: impl Fn(&Value) -> bool) -> Value {
    let is = |object: &Value| object["metadata"]["name"] == name && what(object);
    match rig.cluster.until(UPGRADES, LONG, is).await {
        Ok(object) => (*object).clone(),
        Err(error) => panic!("{error:#}: {:#?}", rig.cluster.list(UPGRADES)),
    }
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
        && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn message(object: &Value) -> &str {
    object["status"]["message"].as_str().unwrap_or_default()
}

fn round(object: &Value) -> i64 {
    object["status"]["round"]["number"].as_i64().unwrap_or_default()
}

fn switch(rig: &Rig, node: &str, name: &str) {
    std::fs::write(kairos::state(&rig.cluster.node(node).disk()).join(name), "").unwrap();
}

fn calls(rig: &Rig, node: &str) -> usize {
    kairos::agent_calls(&rig.cluster.node(node).disk()).len()
}

fn runs(rig: &Rig, node: &str) -> String {
    std::fs::read_to_string(rig.cluster.node(node).disk().join("etc/kairos-release")).unwrap()
}

async fn joins(rig: &Rig, node: &str) {
    rig.patch_node(node, json!({"metadata": {"labels": {"pool": "a"}}})).await;
}

/// How many NodeOps claimed the node.
fn claims(rig: &Rig, node: &str) -> usize {
    let mut claims: Vec<String> = Vec::new();
    for change in rig.cluster.history().iter().filter(|change| change.key.table.as_ref() == "nodes") {
        let by = change.object["metadata"]["annotations"]["operator.kairos.io/claimed-by"].as_str();
        if let Some(by) = by.filter(|_| change.key.name == node) {
            claims.push(by.to_owned());
        }
    }
    claims.sort();
    claims.dedup();
    claims.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_is_upgraded_once_and_one_that_falls_back_is_tried_again_after_an_edit_only() {
    let rig = Rig::new(4).await;
    rig.labelled().await;
    for node in ["n1", "n2"] {
        joins(&rig, node).await;
    }
    let spec = json!({"image": "kairos:v3.5.0", "concurrency": 2, "mode": "Continuous", "uncordonOnFailure": true,
        "nodeSelector": {"matchLabels": {"pool": "a"}}});
    ask(&rig, "up", spec).await;
    until(&rig, "up", is_ready).await;

    // One joins.
    joins(&rig, "n3").await;
    let first = until(&rig, "up", |object| round(object) == 1 && is_ready(object)).await;
    assert_eq!(first["status"]["counts"]["done"], "1/1", "{first:#}");
    let name = first["status"]["nodeOpName"].as_str().unwrap();
    let made = rig.cluster.get(OPS, "default", name).unwrap();
    assert_eq!(made["spec"]["nodeNames"], json!(["n3"]));
    assert!(runs(&rig, "n3").contains("v3.5.0"));
    let history = &first["status"]["history"];
    assert_eq!((&history[0]["nodeOp"], &history[0]["result"]), (&json!("up"), &json!("Completed")));

    // Another one joins, and falls back.
    switch(&rig, "n4", "will-not-boot");
    joins(&rig, "n4").await;
    let failed =
        until(&rig, "up", |object| round(object) == 2 && object["status"]["phase"] == "Failed").await;
    assert_eq!(condition(&failed, "Stalled")["status"], "True");
    assert!(message(&failed).contains("n4"), "{}", message(&failed));

    // Somebody goes back to the old release by hand: the node was tried, and is told of.
    kairos::install(&rig.cluster.node("n3").disk(), "v3.4.2").unwrap();
    rig.cluster.node("n3").reboot();
    let told = until(&rig, "up", |object| message(object).contains("n3")).await;
    assert!(message(&told).contains("had the one attempt of this run"), "{}", message(&told));
    assert_eq!(["n1", "n2", "n3", "n4"].map(|node| (calls(&rig, node), claims(&rig, node))), [(1, 1); 4]);

    // An edit is another run, which tries all.
    std::fs::remove_file(kairos::state(&rig.cluster.node("n4").disk()).join("will-not-boot")).unwrap();
    edit(&rig, json!({"image": "kairos:v3.6.0"})).await;
    let done = until(&rig, "up", is_ready).await;
    assert_eq!((&done["status"]["counts"]["done"], round(&done)), (&json!("4/4"), 0), "{done:#}");
    assert_eq!(["n1", "n2", "n3", "n4"].map(|node| (calls(&rig, node), claims(&rig, node))), [(2, 2); 4]);
    assert!(["n1", "n2", "n3", "n4"].iter().all(|node| runs(&rig, node).contains("v3.6.0")));
    rig.over(done["status"]["nodeOpName"].as_str().unwrap()).await;
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_needed_nothing_is_taken_when_it_drifts_and_while_it_must_wait_that_is_said() {
    let rig = Rig::new(2).await;
    rig.labelled().await;
    let spec = json!({"image": "kairos:v3.5.0", "concurrency": 1, "mode": "Continuous"});
    for node in ["n1", "n2"] {
        kairos::install(&rig.cluster.node(node).disk(), "v3.5.0").unwrap();
        rig.cluster.node(node).reboot();
    }
    let runs_it = |node: &Value| {
        let release = node["metadata"]["annotations"]["operator.kairos.io/release"].as_str();
        release.is_some_and(|release| release.starts_with("v3.5.0"))
    };
    rig.cluster.until_none("nodes", LONG, |node| !runs_it(node)).await.unwrap();
    ask(&rig, "up", spec).await;
    let skipped = until(&rig, "up", is_ready).await;
    assert_eq!(skipped["status"]["counts"]["skipped"], 2, "{skipped:#}");
    assert_eq!(skipped["status"]["release"], "v3.5.0-k3sv1.30.11+k3s1", "also where all were skipped");

    edit(&rig, json!({"paused": true})).await;
    kairos::install(&rig.cluster.node("n2").disk(), "v3.4.2").unwrap();
    rig.cluster.node("n2").reboot();
    let waits = until(&rig, "up", |object| message(object).contains("n2 waits: paused")).await;
    assert!(is_ready(&waits), "{waits:#}");
    rig.patch_node("n2", json!({"metadata": {"labels": {"kairos.io/hold": "true"}}})).await;
    edit(&rig, json!({"paused": null})).await;
    let held = until(&rig, "up", |object| message(object).contains("n2 waits: held by the label")).await;
    assert_eq!((round(&held), rig.cluster.list(OPS).len()), (0, 1));
    rig.patch_node("n2", json!({"metadata": {"labels": {"kairos.io/hold": null}}})).await;
    until(&rig, "up", |object| round(object) == 1 && is_ready(object)).await;
    assert!(runs(&rig, "n2").contains("v3.5.0"));
    assert_eq!((claims(&rig, "n1"), claims(&rig, "n2")), (0, 1));
    // The first status of a round says that there is something to do.
    let mut seen = 0;
    for change in rig.cluster.history().iter().filter(|change| change.key.table.as_ref() == UPGRADES) {
        let (object, number) = (&change.object, round(&change.object));
        if number > seen {
            let says = |type_| condition(object, type_)["status"].clone();
            assert_eq!((says("Ready"), says("Reconciling")), (json!("False"), json!("True")), "{object:#}");
        }
        seen = number;
    }
}

/// As after a restore: both objects are there at once, and know nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_upgrades_the_newer_one_decides_and_the_older_one_says_so() {
    let mut rig = Rig::idle(kairos_sim::Cluster::builder().nodes(2).control_planes(1)).await;
    for (name, version) in [("up-1", "v3.6.0"), ("up-2", "v3.5.0")] {
        ask(&rig, name, json!({"image": format!("kairos:{version}"), "concurrency": 1, "force": true})).await;
    }
    rig.start(&[]);
    let over = |object: &Value| matches!(object["status"]["phase"].as_str(), Some("Completed" | "Failed"));
    let newer = until(&rig, "up-2", over).await;
    let older = until(&rig, "up-1", over).await;
    for node in ["n1", "n2"] {
        assert!(runs(&rig, node).contains("v3.5.0"), "{}", runs(&rig, node));
        assert_eq!((calls(&rig, node), rig.reboots(node)), (1, 1));
        let said = older["status"]["nodeStatuses"][node]["message"].as_str().unwrap();
        assert_eq!(said, "Skipped: NodeOpUpgrade default/up-2, which is newer, decides what this node runs");
    }
    assert_eq!(
        (&newer["status"]["phase"], &newer["status"]["counts"]["skipped"]),
        (&json!("Completed"), &Value::Null)
    );
    assert_eq!(
        (&older["status"]["phase"], &older["status"]["counts"]["skipped"]),
        (&json!("Completed"), &json!(2))
    );
}

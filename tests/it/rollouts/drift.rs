//! What an upgrade says at its end of nodes that run something else by then.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kairos_operator::api::names;
use serde_json::{Value, json};

use super::{Cluster, at, condition, key};

/// An upgrade to v2 whose two nodes were both proved to run it.
fn proved() -> (Cluster, String) {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    ["n1", "n2"].iter().for_each(|name| runs(&mut cluster, name, "v2"));
    cluster.upgrade(json!({"image": "kairos:v2", "concurrency": 1}));
    cluster.until_stable();
    let op = cluster.s.ops.keys().next().unwrap().1.clone();
    for node in ["n1", "n2"] {
        cluster.entry(&op, node, done(), true);
    }
    (cluster, op)
}

fn done() -> Value {
    json!({"phase": "Completed", "message": "done", "rebootStatus": "completed", "verified": true, "target": "v2",
        "lastUpdated": Time(at(0))})
}

/// The node has said so in its present boot.
fn runs(cluster: &mut Cluster, node: &str, release: &str) {
    cluster.label(node, names::MANAGED, "true");
    cluster.node(node, |node| {
        node.annotations.insert(names::RELEASE.into(), release.into());
        node.annotations.insert(names::BOOT_STATE_OF.into(), "active_boot".into());
    });
}

/// Another upgrade of all nodes, which was created later.
fn newer(cluster: &mut Cluster) {
    let upgrade = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "spec": {"image": "kairos:v1", "force": true, "paused": true},
        "metadata": {"name": "up2", "namespace": "ns", "uid": "up2-uid", "generation": 1, "creationTimestamp": Time(at(50))}});
    cluster.s.upgrades.insert(key("up2"), Arc::new(serde_json::from_value(upgrade).unwrap()));
}

fn verified(cluster: &Cluster, op: &str) -> Condition {
    let conditions = cluster.status(op).conditions;
    conditions.into_iter().find(|one| one.type_ == "Verified").expect("it is over")
}

#[test]
fn an_upgrade_is_not_verified_over_nodes_that_run_another_release_by_its_end() {
    let (mut cluster, op) = proved();
    cluster.until_stable();
    assert_eq!(condition(&cluster.status(&op).conditions, "Verified"), "True/Proved");
    assert_eq!(condition(&cluster.upgrade_status().conditions, "Verified"), "True/Proved");

    let (mut cluster, op) = proved();
    runs(&mut cluster, "n1", "v1");
    cluster.until_stable();
    assert_eq!(condition(&cluster.status(&op).conditions, "Verified"), "False/Drifted");
    assert_eq!(condition(&cluster.upgrade_status().conditions, "Verified"), "False/Drifted");
    let said = verified(&cluster, &op).message;
    assert_eq!(said, "these nodes were upgraded, and run another release by now: n1 (v1)");
}

#[test]
fn the_newer_upgrade_is_named_and_what_its_node_boots_is_waited_for() {
    let (mut cluster, op) = proved();
    newer(&mut cluster);
    runs(&mut cluster, "n1", "v1");
    cluster.step();
    let said = verified(&cluster, &op).message;
    assert!(said.ends_with("by now: n1 (v1); NodeOpUpgrade ns/up2 is newer"), "{said}");
    // It has booted, and has not said yet what.
    let (mut cluster, op) = proved();
    newer(&mut cluster);
    cluster.node("n1", |node| node.boot_id = "b2".into());
    cluster.step();
    let said = verified(&cluster, &op);
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("Unknown", "Drifted"), "{}", said.message);
    // Who boots for another reason runs what it ran.
    let (mut cluster, op) = proved();
    cluster.node("n1", |node| node.boot_id = "b2".into());
    cluster.step();
    assert_eq!(condition(&cluster.status(&op).conditions, "Verified"), "True/Proved");
}

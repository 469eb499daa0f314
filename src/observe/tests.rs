//! Tests of what is observed.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::api::names;

/// An observer whose watch of namespace `ns` has begun.
fn observer() -> Observer {
    let observer = Observer::default();
    observer.lock().own = "own".into();
    observer.lock().work.insert("ns".into(), Work::default());
    observer
}

fn pod(namespace: &str, label: &str, owner: Value) -> LiveObject {
    let meta = json!({"name": label, "namespace": namespace, "uid": "u", "resourceVersion": "7", "labels": {label: ""}, "ownerReferences": [owner]});
    LiveObject::Pod(serde_json::from_value(json!({"metadata": meta})).unwrap())
}

#[test]
fn what_a_deletion_did_not_find_is_not_seen_any_more() {
    let observer = observer();
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": true});
    let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "op", "uid": "ou", "controller": true});
    for (namespace, label, owner) in [("ns", names::REBOOT, op), ("own", names::APP, node)] {
        observer.saw(pod(namespace, label, owner.clone()));
        let key = (namespace.to_owned(), label.to_owned());
        let there = || {
            let caches = observer.lock();
            caches.work["ns"].pods.get(&key).is_some() || caches.facts.get(&key).is_some()
        };
        observer.saw(LiveObject::NoPod(key.clone(), "another".into()));
        assert!(there(), "one of another UID was meant");
        observer.saw(LiveObject::NoPod(key.clone(), "u".into()));
        assert!(!there(), "{label}");
        observer.saw(pod(namespace, label, owner));
        assert!(!there(), "nor does an old watch bring it back");
    }
}

fn nodeop(version: &str, phase: &str) -> LiveObject {
    let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": version},
        "spec": {"command": ["true"]}, "status": {"phase": phase}});
    LiveObject::Op(serde_json::from_value(op).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_empties_the_caches() {
    let observer = observer();
    observer.saw(nodeop("700", "Completed"));
    let slow = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    observer.read(nodeop("700", "Completed"), Instant::now());
    observer.read(nodeop("540", "Running"), slow);
    assert_eq!(
        observer.lock().ops.newest(),
        Some(700),
        "an answer that was on its way for long proves nothing"
    );
    observer.read(nodeop("540", "Running"), Instant::now());
    assert_eq!(observer.lock().ops.newest(), None, "what never was is forgotten");
    assert!(observer.lock().work.is_empty() && !observer.ready());
    assert_eq!(observer.lock().own, "own");
    let listing = observer.emptied.notified();
    assert!(tokio::time::timeout(Duration::from_secs(1), listing).await.is_ok(), "and all is listed anew");
}

#[test]
fn a_cluster_that_is_not_listed_completely_is_not_shown() {
    let observer = observer();
    let show = || {
        observer.snapshot(
            &PlannerConfig::default(),
            Timestamp::UNIX_EPOCH,
            Timestamp::UNIX_EPOCH,
            BTreeMap::new(),
            BTreeMap::new(),
        )
    };
    observer.saw(nodeop("7", "Running"));
    {
        let mut caches = observer.lock();
        let Caches { nodes, ops, facts, upgrades, work, .. } = &mut *caches;
        nodes.list_ends();
        ops.list_ends();
        facts.list_ends();
        upgrades.list_ends();
        work.get_mut("ns").unwrap().jobs.list_ends();
    }
    assert!(show().ops.is_empty(), "the pods of its namespace have not come in");
    observer.lock().work.get_mut("ns").unwrap().pods.list_ends();
    assert_eq!(show().ops.len(), 1);
}

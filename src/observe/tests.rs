//! Tests of what is observed.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{api::names, plan::model::action::Action};

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
            caches.work["ns"].pods.get(&key).is_some() || caches.facts_pods.get(&key).is_some()
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
            <_>::default(),
            BTreeMap::new(),
        )
    };
    observer.saw(nodeop("7", "Running"));
    {
        let mut caches = observer.lock();
        let Caches { nodes, ops, facts_pods, upgrades, work, .. } = &mut *caches;
        nodes.list_ends();
        ops.list_ends();
        facts_pods.list_ends();
        upgrades.list_ends();
        work.get_mut("ns").unwrap().jobs.list_ends();
    }
    assert!(show().is_none(), "the pods of its namespace have not come in");
    observer.lock().work.get_mut("ns").unwrap().pods.list_ends();
    assert_eq!(show().map(|snapshot| snapshot.ops.len()), Some(1));
}

/// A NodeOp whose Job has ended with its pod, and another Job that goes on.
fn over(phase: &str, entries: &Value) -> [LiveObject; 5] {
    let by = |kind: &str, group: &str, name: &str, uid: &str| json!([{"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let op = by("NodeOp", "operator.kairos.io/v1alpha1", "op", "u");
    let meta = |name: &str, owner: &Value| json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": "7", "ownerReferences": owner, "labels": {names::NODEOP: "op", names::NODE: "n1"}});
    let job = |name: &str, condition: &str| {
        let object = json!({"metadata": meta(name, &op), "status": {"conditions": [{"type": condition, "status": "True"}]}});
        LiveObject::Job(serde_json::from_value(object).unwrap())
    };
    let pod = |name: &str, phase: &str, of: &str| {
        let object =
            json!({"metadata": meta(name, &by("Job", "batch/v1", of, of)), "status": {"phase": phase}});
        LiveObject::Pod(serde_json::from_value(object).unwrap())
    };
    let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "9", "generation": 1}, "spec": {"command": ["true"]},
        "status": {"phase": phase, "observedGeneration": 1, "nodeStatuses": entries}});
    [
        job("ended", "Complete"),
        job("goes-on", "Suspended"),
        pod("ended-x", "Succeeded", "ended"),
        pod("goes-on-x", "Running", "goes-on"),
        LiveObject::Op(serde_json::from_value(object).unwrap()),
    ]
}

/// Nobody deletes finished NodeOps, so their Jobs and pods are there for ever.
#[test]
fn of_operations_that_are_over_jobs_and_pods_that_have_ended_are_not_kept() {
    let kept = |phase: &str, order: [usize; 5]| {
        let observer = observer();
        let mut caches = observer.lock();
        let [a, b, c, d, e] = over(phase, &json!({"n1": {"phase": "Completed", "jobName": "ended"}}));
        let mut objects = [a, b, c, d, e].map(Some);
        for at in order {
            caches.take(objects[at].take().unwrap());
            caches.ops.list_ends();
            caches.work.get_mut("ns").unwrap().jobs.list_ends();
            caches.show();
        }
        let jobs: Vec<String> = caches.shown.jobs.values().map(|job| job.name.clone()).collect();
        let pods: Vec<String> = caches.shown.pods.values().map(|pod| pod.name.clone()).collect();
        let work = &caches.work["ns"];
        assert_eq!((work.jobs.views().count(), work.pods.views().count()), (jobs.len(), pods.len()));
        (jobs, pods)
    };
    for order in [[0, 1, 2, 3, 4], [4, 0, 1, 2, 3], [4, 3, 2, 1, 0], [1, 0, 4, 3, 2]] {
        assert_eq!(kept("Completed", order), (vec!["goes-on".into()], vec!["goes-on-x".into()]), "{order:?}");
        assert_eq!(kept("Running", order).0.len(), 2, "{order:?}: it still goes on");
    }
}

/// A kubelet writes its node's status every few seconds, and a plan takes as long as what it asks.
#[test]
fn heartbeats_leave_what_is_shown_as_it_is_and_a_patch_is_made_at_the_newest_of_them() {
    let observer = Observer::default();
    {
        let mut caches = observer.lock();
        caches.nodes.list_ends();
        caches.ops.list_ends();
        caches.upgrades.list_ends();
        caches.facts_pods.list_ends();
    }
    let sees = |version: u64, boot: &str| {
        let meta =
            json!({"name": "n1", "uid": "u", "resourceVersion": version.to_string(), "labels": {"a": "b"}});
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-28T02:00:07Z"});
        let status = json!({"conditions": [ready], "nodeInfo": {"bootID": boot}});
        let node = serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap();
        observer.saw(LiveObject::Node(Box::new(node)));
    };
    let shown = || {
        let now = Timestamp::UNIX_EPOCH;
        let shown = observer.snapshot(&<_>::default(), now, now, <_>::default(), <_>::default()).unwrap();
        shown.nodes["n1"].clone()
    };
    sees(7, "b1");
    let planned_from = shown();
    (8..108).for_each(|version| sees(version, "b1"));
    assert!(Arc::ptr_eq(&planned_from, &shown()));
    let written_at = || {
        let mut action = Action::patch_node(&planned_from, <_>::default());
        observer.bring_up_to_date(&mut action);
        match action {
            Action::PatchNode { resource_version, .. } => resource_version,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(written_at(), "107");
    sees(108, "b2");
    assert_eq!(written_at(), "7", "it was planned from what is not so any more");
    sees(109, "b1");
    assert_eq!(written_at(), "7", "nor for having been so once");
}

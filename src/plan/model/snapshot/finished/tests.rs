//! Tests of the records.

use serde_json::{Value, json};

use super::*;
use crate::plan::{
    self, fixtures,
    model::snapshot::{Owner, PodPhase, Role},
};

const UID: &str = "0d8f5c1e-93a5-4b6e-9d0a-00000000000f";

fn op(meta: Value, spec: Value, status: Value) -> NodeOp {
    let mut of = json!({"namespace": "ns", "name": "op", "uid": UID, "resourceVersion": "7", "generation": 2,
        "creationTimestamp": "2026-01-02T03:04:05Z"});
    of.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": of, "spec": spec, "status": status})).unwrap()
}

fn finished(name: &str) -> NodeOp {
    let counts = json!({"total": 3, "pending": 0, "running": 0, "completed": 2, "failed": 1, "done": "3/3"});
    op(
        json!({"name": name}),
        json!({}),
        json!({"phase": "Failed", "observedGeneration": 2, "lastUpdated": "2026-01-02T04:00:00Z", "counts": counts}),
    )
}

#[test]
fn a_record_is_made_only_where_it_says_all_that_the_nodeop_says() {
    let bare = json!({"phase": "Completed", "observedGeneration": 2});
    let ended = |but: Value| {
        let mut status = json!({"phase": "Failed", "observedGeneration": 2});
        status.as_object_mut().unwrap().extend(but.as_object().unwrap().clone());
        status
    };
    for (object, recorded) in [
        (finished("op"), true),
        (op(json!({}), json!({}), bare.clone()), true),
        (op(json!({"uid": "not-a-number"}), json!({}), bare.clone()), true),
        (op(json!({"uid": UID.to_uppercase()}), json!({}), bare.clone()), true),
        (op(json!({"resourceVersion": "07"}), json!({}), bare.clone()), false),
        (op(json!({"resourceVersion": "opaque"}), json!({}), bare.clone()), false),
        (op(json!({"finalizers": ["another.example/finalizer"]}), json!({}), bare.clone()), false),
        (op(json!({"deletionTimestamp": "2026-01-02T03:04:05Z"}), json!({}), bare.clone()), false),
        (op(json!({"annotations": {"a": "b"}}), json!({}), bare.clone()), false),
        (op(json!({}), json!({"ttlSecondsAfterFinished": 60}), bare), false),
        (op(json!({}), json!({}), ended(json!({"phase": "Running"}))), false),
        (op(json!({}), json!({}), ended(json!({"message": "m"}))), false),
        (op(json!({}), json!({}), ended(json!({"lastUpdated": "1960-01-01T00:00:00Z"}))), false),
        (op(json!({}), json!({}), ended(json!({"nodeStatuses": {"n1": {"phase": "Failed"}}}))), false),
        (op(json!({}), json!({}), ended(json!({"observedGeneration": 1}))), false),
        (op(json!({}), json!({}), ended(json!({"observedGeneration": null}))), true),
    ] {
        let record = FinishedOp::of(&object);
        assert_eq!(record.is_some(), recorded, "{object:?}");
        if let Some(again) = record.map(|record| record.nodeop()) {
            assert_eq!((again.metadata, again.spec), (object.metadata, object.spec));
            assert_eq!(again.status, object.status);
        }
    }
}

#[test]
fn records_are_found_by_name_replaced_and_taken_out() {
    let record = |name: &str| FinishedOp::of(&finished(name)).unwrap();
    let mut ops: FinishedOps = (0..3000).map(|n| record(&format!("op-{n}"))).collect();
    let before = ops.clone();
    assert_eq!(ops.iter().count(), 3000);
    let key = |name: &str| ("ns".to_owned(), name.to_owned());
    let mut later = finished("op-7");
    later.metadata.resource_version = Some("9".into());
    ops.insert(FinishedOp::of(&later).unwrap());
    assert_eq!((ops.get(&key("op-7")).unwrap().version(), ops.iter().count()), (9, 3000));
    assert_eq!(before.get(&key("op-7")).unwrap().version(), 7, "a snapshot does not change");
    assert!(ops.get(&key("op-7")).unwrap().says_the_same(&record("op-7")));
    assert!(ops.get(&("other".into(), "op-7".into())).is_none() && ops.remove(&key("op")).is_none());
    assert_eq!(ops.namespaces().collect::<Vec<_>>(), ["ns"]);
    for n in 0..3000 {
        assert!(ops.remove(&key(&format!("op-{n}"))).is_some());
    }
    assert!(ops.is_empty() && ops.iter().next().is_none());
}

/// A week of a hundred an hour is 16,800 of them.
#[test]
fn a_record_is_small() {
    assert!(size_of::<FinishedOp>() <= 112, "{}", size_of::<FinishedOp>());
}

/// A preflight or a waiter that turns up late is ended whatever is kept of its NodeOp.
#[test]
fn a_plan_is_the_same_whether_a_nodeop_is_kept_whole_or_as_a_record() {
    let op = finished("op");
    let key = ("ns".to_owned(), "op".to_owned());
    for role in [Role::Preflight, Role::Waiter, Role::Job] {
        for phase in [PodPhase::Running, PodPhase::Failed, PodPhase::Succeeded] {
            let mut pod = fixtures::pod(role, "p", Owner::nodeop("op", UID), "n1");
            pod.phase = phase;
            let pods = || [(("ns".to_owned(), "p".to_owned()), Arc::new(pod.clone()))].into();
            let whole = Snapshot {
                pods: pods(),
                ops: [(key.clone(), Arc::new(op.clone()))].into(),
                ..Snapshot::default()
            };
            let recorded = Snapshot {
                pods: pods(),
                finished: [FinishedOp::of(&op).unwrap()].into_iter().collect(),
                ..Snapshot::default()
            };
            let (one, other) = (plan::plan(&whole), plan::plan(&recorded));
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "{role:?} {phase:?}");
        }
    }
}

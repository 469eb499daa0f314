//! Tests of what is written to a NodeOp.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::Request as Sent;
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;
use serde_json::Value;

use super::*;
use crate::{
    act::tests::{Left, Server, actor},
    api::nodeop::{NodeStatus, Phase},
};

#[test]
fn no_event_is_lost_for_its_length() {
    let op = NodeOp::new("op", Default::default()).object_ref(&());
    let notice =
        Notice { warning: true, reason: "NodeFailed", message: "ä".repeat(700), node: Some("n1".into()) };
    for (event, _) in events(&op, &notice) {
        let note = fit(event).note.unwrap();
        assert!((1000..=1024).contains(&note.len()) && note.ends_with('…'), "{}", note.len());
    }
}

/// What a server answers whose CRD knows all fields, or all but this one.
fn answer(request: &Sent<Body>, unknown: Option<&str>) -> (u16, Value) {
    let meta = json!({"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "8"});
    match (is_strict(request), unknown) {
        (true, Some(field)) => {
            let message = format!("strict decoding error: unknown field \"status.nodeStatuses.n1.{field}\"");
            (
                400,
                json!({"kind": "Status", "status": "Failure", "message": message, "reason": "BadRequest", "code": 400}),
            )
        }
        (true, None) => (200, json!({"kind": "PartialObjectMetadata", "metadata": meta})),
        (false, _) => (
            200,
            json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": meta, "spec": {},
                "status": {"nodeStatuses": {"n1": {"phase": "Running"}}}}),
        ),
    }
}

fn is_strict(request: &Sent<Body>) -> bool {
    let strict = request.uri().query().unwrap_or_default().contains("fieldValidation=Strict");
    let bare = request.headers()["accept"].to_str().unwrap().contains("as=PartialObjectMetadata");
    assert_eq!(strict, bare, "what is kept in part has to be seen");
    strict
}

/// What was written, and whether each request was strict.
async fn written(unknown: Option<&'static str>) -> (anyhow::Result<NodeOp>, Vec<bool>) {
    let asked = Arc::<Mutex<Vec<bool>>>::default();
    let noted = asked.clone();
    let client = Server::client(move |request| {
        noted.lock().unwrap().push(is_strict(&request));
        answer(&request, unknown)
    });
    let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(10))))));
    let mut op = NodeOp::new("op", Default::default());
    (op.metadata.namespace, op.metadata.resource_version) = (Some("ns".into()), Some("7".into()));
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::constant(5, 123_456_789));
    let entry = NodeStatus {
        phase: Phase::Running,
        message: Some("m".into()),
        last_updated: Some(time),
        ..NodeStatus::default()
    };
    let status = NodeOpStatus {
        node_statuses: [("n1".to_owned(), entry)].into_iter().collect(),
        ..NodeOpStatus::default()
    };
    let op = actor.patch_status(&op, &status).await.map(Option::unwrap);
    let asked = asked.lock().unwrap().clone();
    (op, asked)
}

fn entry(op: &NodeOp) -> Value {
    serde_json::to_value(&op.status.as_ref().unwrap().node_statuses).unwrap()
}

#[tokio::test]
async fn what_was_written_is_known_without_being_sent_back() {
    let (op, asked) = written(None).await;
    let op = op.unwrap();
    assert_eq!((op.metadata.resource_version.as_deref(), asked), (Some("8"), vec![true]));
    assert_eq!(entry(&op)["n1"]["message"], "m");
    let again: NodeOp = serde_json::from_value(serde_json::to_value(&op).unwrap()).unwrap();
    assert_eq!(op.status, again.status, "with times as they were written out");
}

/// `helm upgrade` leaves CRDs as they are.
#[tokio::test]
async fn a_crd_that_keeps_a_part_says_which() {
    let (op, asked) = written(Some("message")).await;
    let op = op.unwrap();
    assert_eq!((op.metadata.resource_version.as_deref(), asked), (Some("8"), vec![true, false]));
    assert_eq!(entry(&op), json!({"n1": {"phase": "Running"}}));
}

/// What would be left of the entry makes a command run again that has succeeded, or a NodeOp one of the Go
/// operator's.
#[tokio::test]
async fn a_status_that_a_part_would_turn_into_another_one_is_not_written() {
    for field in
        ["succeededIn", "observedGeneration", "step", "jobUid", "nodeUid", "boot", "givenUp", "holdsSlot"]
    {
        let (op, asked) = written(Some(field)).await;
        let told = format!("{:#}", op.unwrap_err());
        assert!(told.contains("CRDs in this cluster are older") && told.contains(field), "{told}");
        assert_eq!(asked, [true], "once, and strictly");
    }
}

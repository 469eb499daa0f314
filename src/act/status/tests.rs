//! Tests of what is written to a NodeOp.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request as Sent, Response, body::Bytes};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body, runtime::events::Reporter};
use serde_json::Value;
use tower_service::Service;

use super::*;
use crate::{
    act::Fence,
    api::nodeop::{NodeStatus, Phase},
    render::RenderConfig,
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

/// A server whose CRD knows all fields or not, and what it was asked.
#[derive(Clone)]
struct Server {
    /// A field that its CRD has not.
    unknown: Option<&'static str>,
    asked: Arc<Mutex<Vec<bool>>>,
}

impl Service<Sent<Body>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Sent<Body>) -> Self::Future {
        let strict = request.uri().query().unwrap_or_default().contains("fieldValidation=Strict");
        let bare = request.headers()["accept"].to_str().unwrap().contains("as=PartialObjectMetadata");
        assert_eq!(strict, bare, "what is kept in part has to be seen");
        self.asked.lock().unwrap().push(strict);
        let meta = json!({"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "8"});
        let (code, answer) = match (strict, self.unknown) {
            (true, Some(field)) => {
                let message =
                    format!("strict decoding error: unknown field \"status.nodeStatuses.n1.{field}\"");
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
        };
        let mut response = Response::new(Full::from(answer.to_string()));
        *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
        ready(Ok(response))
    }
}

struct Leads;

impl Fence for Leads {
    fn check(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs(10))
    }
}

async fn written(unknown: Option<&'static str>) -> (anyhow::Result<NodeOp>, Vec<bool>) {
    let asked = Arc::<Mutex<Vec<bool>>>::default();
    let client = Client::new(Server { unknown, asked: asked.clone() }, "default");
    let text = String::new;
    let site = RenderConfig {
        operator: text(),
        labeler: text(),
        namespace: text(),
        default: text(),
        state_dir: text(),
        pull_secrets: vec![],
    };
    let actor = Actor::new(client, site, Arc::new(Leads), Reporter::from("test"));
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

/// What would be left of the entry makes a command run again that has succeeded.
#[tokio::test]
async fn a_status_that_a_part_would_turn_into_another_one_is_not_written() {
    let (op, asked) = written(Some(INDISPENSABLE)).await;
    let told = format!("{:#}", op.unwrap_err());
    assert!(told.contains("CRDs in this cluster are older") && told.contains("succeededIn"), "{told}");
    assert_eq!(asked, [true], "once, and strictly");
}

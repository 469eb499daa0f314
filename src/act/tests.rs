//! Tests of what all writes have in common, and what the tests of single writes start from.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes};
use kube::{Client, client::Body, runtime::events::Reporter};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::{Actor, Fence, Term};
use crate::{
    api::{
        nodeop::{NodeOp, NodeOpStatus, Phase},
        webhooks::ANSWER_WITHIN,
    },
    plan::model::action::{Action, Target},
    render::RenderConfig,
};

/// An API server that answers as a function does, with a code and an object, and after as long as it says.
#[derive(Clone)]
pub struct Server(Arc<dyn Fn(Request<Body>) -> (Duration, u16, Value) + Send + Sync>);

impl Server {
    pub fn client(answer: impl Fn(Request<Body>) -> (u16, Value) + Send + Sync + 'static) -> Client {
        Self::slowly(move |request| {
            let (code, object) = answer(request);
            (Duration::ZERO, code, object)
        })
    }

    pub fn slowly(
        answer: impl Fn(Request<Body>) -> (Duration, u16, Value) + Send + Sync + 'static,
    ) -> Client {
        Client::new(Self(Arc::new(answer)), "default")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (takes, code, answer) = (self.0)(request);
        let mut response = Response::new(Full::from(answer.to_string()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            Ok(response)
        })
    }
}

/// A server that is not available, and how often it was asked.
pub fn unavailable() -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let client = Server::client(move |_| {
        count.fetch_add(1, Relaxed);
        (503, json!({"kind": "Status", "status": "Failure", "message": "", "reason": "", "code": 503}))
    });
    (client, asked)
}

/// Who writes to that server for as long as the fence lets him, on a site on which nothing was set.
pub fn actor(client: Client, fence: Arc<dyn Fence>) -> Actor {
    let text = String::new;
    let config = RenderConfig {
        operator_image: text(),
        operator_pull_policy: "IfNotPresent".into(),
        namespace: text(),
        default_image: text(),
        state_dir: text(),
        pull_secrets: vec![],
    };
    Actor::new(client, config, fence, Reporter::from("test"))
}

/// What is left of our leadership; nothing if it is in doubt.
#[derive(Debug)]
pub struct Left(pub Mutex<Option<Duration>>);

impl Fence for Left {
    fn check(&self, _: Option<Term>) -> anyhow::Result<Duration> {
        let left = *self.0.lock().unwrap();
        left.ok_or_else(|| anyhow::anyhow!("leadership is in doubt"))
    }
}

#[tokio::test(start_paused = true)]
async fn no_write_is_begun_in_doubt_or_lasts_until_another_replica_may_lead() {
    let left = Arc::new(Left(Mutex::new(None)));
    let actor = actor(unavailable().0, left.clone());
    let begun = AtomicUsize::new(0);
    let write = || async {
        begun.fetch_add(1, Relaxed);
        pending::<kube::Result<()>>().await
    };
    assert!(actor.write(write()).await.is_err());
    assert_eq!(begun.load(Relaxed), 0, "leadership is in doubt");
    for (remains, lasts) in [(2, 2), (60, ANSWER_WITHIN.as_secs())] {
        *left.0.lock().unwrap() = Some(Duration::from_secs(remains));
        let from = Instant::now();
        assert!(actor.write(write()).await.is_err());
        assert_eq!(from.elapsed().as_secs(), lasts);
    }
}

/// The API server gives a webhook that does not answer ten seconds, and drops the request if we go away.
#[tokio::test(start_paused = true)]
async fn each_write_has_the_time_that_webhooks_have() {
    let op: Arc<NodeOp> = Arc::new(
        serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": {"command": ["true"], "preflight": {"command": ["true"]}}}))
        .unwrap(),
    );
    let pod = Target { namespace: "ns".into(), name: "p".into(), uid: "p".into() };
    let status = NodeOpStatus { phase: Some(Phase::Running), ..NodeOpStatus::default() };
    let writes = [
        Action::DeletePod { pod, why: "it is over" },
        Action::PatchStatus { op: op.clone(), status: status.into(), notices: vec![] },
        Action::SetFinalizers { op: op.clone(), finalizers: vec![] },
        Action::CreatePreflightPod { op, node: "n1".into(), name: "p".into() },
    ];
    for (write, (takes, made)) in writes.iter().flat_map(|write| [(write, (10, true)), (write, (14, false))])
    {
        let object = json!({"metadata": {}, "spec": {"containers": []}});
        let client = Server::slowly(move |_| (Duration::from_secs(takes), 200, object.clone()));
        let left = Arc::new(Left(Mutex::new(Some(Duration::from_secs(60)))));
        let answer = actor(client, left).carry_out(write).await;
        assert_eq!(answer.is_ok(), made, "{write}: {answer:?}");
        assert!(answer.is_ok() || format!("{answer:?}").contains("an admission webhook may"), "{answer:?}");
    }
}

//! Tests of what all writes have in common.

use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
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
use tokio::time::Instant;
use tower_service::Service;

use super::{Actor, Fence, REQUEST_TIMEOUT};
use crate::render::RenderConfig;

/// An API server that counts what it is asked, and answers nothing but that it is not available.
#[derive(Clone, Debug, Default)]
pub struct Unavailable(pub Arc<AtomicUsize>);

impl Service<Request<Body>> for Unavailable {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Relaxed);
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        ready(Ok(response))
    }
}

/// What is left of our leadership; nothing if it is in doubt.
struct Left(Mutex<Option<Duration>>);

impl Fence for Left {
    fn check(&self) -> anyhow::Result<Duration> {
        let left = *self.0.lock().unwrap();
        left.ok_or_else(|| anyhow::anyhow!("leadership is in doubt"))
    }
}

#[tokio::test(start_paused = true)]
async fn no_write_is_begun_in_doubt_or_lasts_until_another_replica_may_lead() {
    let text = String::new;
    let site = RenderConfig {
        operator: text(),
        labeler: text(),
        namespace: text(),
        default: text(),
        state_dir: text(),
        pull_secrets: vec![],
    };
    let left = Arc::new(Left(Mutex::new(None)));
    let client = Client::new(Unavailable::default(), "default");
    let actor = Actor::new(client, site, left.clone(), Reporter::from("test"));
    let begun = AtomicUsize::new(0);
    let write = || async {
        begun.fetch_add(1, Relaxed);
        pending::<kube::Result<()>>().await
    };
    assert!(actor.write(write()).await.is_err());
    assert_eq!(begun.load(Relaxed), 0, "leadership is in doubt");
    for (remains, lasts) in [(2, 2), (60, REQUEST_TIMEOUT.as_secs())] {
        *left.0.lock().unwrap() = Some(Duration::from_secs(remains));
        let from = Instant::now();
        assert!(actor.write(write()).await.is_err());
        assert_eq!(from.elapsed().as_secs(), lasts);
    }
}

//! Tests of what is read of our own kinds.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower_service::Service;

use super::*;
use crate::observe::LiveObject;

/// An API server with one object of the kind of this name, in this version, and how often it was asked
/// for the whole of it.
#[derive(Clone)]
struct Server {
    plural: String,
    version: Arc<AtomicU64>,
    read: Arc<AtomicUsize>,
}

impl Server {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn object(&self) -> Value {
        let version = self.version();
        object(version, &format!("version {version}"))
    }
}

fn object(version: u64, message: &str) -> Value {
    let meta = json!({"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string()});
    json!({"metadata": meta, "spec": {"image": "i"}, "status": {"phase": "Running", "message": message}})
}

impl Service<Request<Body>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        let of_kind = request.uri().path().contains(&format!("/{}", this.plural));
        let accept = request.headers().get("accept").and_then(|accept| accept.to_str().ok());
        let bare = accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let by_name = request.uri().path().ends_with("/op");
        let query = request.uri().query().unwrap_or_default();
        let named = by_name || query.contains("fieldSelector=metadata.name%3Dop");
        Box::pin(async move {
            let (had, list) = (this.version(), json!({"resourceVersion": this.version().to_string()}));
            let answer = match (of_kind, watch, named) {
                (true, true, _) => {
                    assert!(bare, "of thousands of nodes nobody is told of each");
                    while this.version() == had {
                        sleep(Duration::from_millis(100)).await;
                    }
                    format!(
                        "{}\n",
                        json!({"type": "MODIFIED", "object": {"metadata": this.object()["metadata"]}})
                    )
                }
                (false, true, _) => std::future::pending().await,
                (true, false, true) => {
                    this.read.fetch_add(1, Ordering::Relaxed);
                    match by_name {
                        true => this.object().to_string(),
                        false => json!({"metadata": list, "items": [this.object()]}).to_string(),
                    }
                }
                (true, false, false) => json!({"metadata": list, "items": [this.object()]}).to_string(),
                (false, false, _) => json!({"metadata": list, "items": []}).to_string(),
            };
            Ok(Response::new(Full::from(answer)))
        })
    }
}

/// A kind that says something in its status.
trait Says: Ours {
    fn message(&self) -> Option<&String>;
    fn live(self) -> LiveObject;
}

impl Says for NodeOp {
    fn message(&self) -> Option<&String> {
        self.status.as_ref()?.message.as_ref()
    }

    fn live(self) -> LiveObject {
        LiveObject::Op(Box::new(self))
    }
}

impl Says for NodeOpUpgrade {
    fn message(&self) -> Option<&String> {
        self.status.as_ref()?.message.as_ref()
    }

    fn live(self) -> LiveObject {
        LiveObject::Upgrade(Box::new(self))
    }
}

/// What the cache shows of the object, once it is of this version.
async fn message<K: Says>(observer: &Observer, version: u64) -> String {
    let has = |observer: &Observer| {
        let mut caches = observer.lock();
        let object = K::cache(&mut caches).get(&("ns".into(), "op".into()))?;
        let here = object.meta().resource_version == Some(version.to_string());
        here.then(|| object.message().cloned().unwrap_or_default())
    };
    for _ in 0..6_000 {
        if let Some(message) = has(observer) {
            return message;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("version {version} was not seen in ten minutes");
}

async fn what_others_wrote_is_read<K: Says>() {
    let server =
        Server { plural: K::plural(&()).into_owned(), version: Arc::default(), read: Arc::default() };
    server.version.store(5, Ordering::Relaxed);
    let observer = Observer::default();
    observer.lock().shown_at = Some(Instant::now());
    observer.start(&Client::new(server.clone(), "default"), "own");
    assert_eq!(message::<K>(&observer, 5).await, "version 5");
    assert_eq!(server.read.load(Ordering::Relaxed), 0, "it came in with a list");
    server.version.store(6, Ordering::Relaxed);
    sleep(ANSWERED_WITHIN / 2).await;
    let ours: K = serde_json::from_value(object(6, "ours")).unwrap();
    observer.saw(ours.live());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(message::<K>(&observer, 6).await, "ours");
    assert_eq!(server.read.load(Ordering::Relaxed), 0, "we know what we wrote");
    server.version.store(7, Ordering::Relaxed);
    assert_eq!(message::<K>(&observer, 7).await, "version 7");
    assert_eq!(server.read.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_we_wrote_is_not_read_and_what_others_wrote_is() {
    what_others_wrote_is_read::<NodeOp>().await;
    what_others_wrote_is_read::<NodeOpUpgrade>().await;
}

/// A replica that stands by has no use of what the leader writes twice a second.
#[tokio::test(start_paused = true)]
async fn where_nobody_plans_many_versions_are_one_read_until_somebody_does() {
    let plural = NodeOp::plural(&()).into_owned();
    let server = Server { plural, version: Arc::default(), read: Arc::default() };
    server.version.store(5, Ordering::Relaxed);
    let observer = Observer::default();
    observer.start(&Client::new(server.clone(), "default"), "own");
    assert_eq!(message::<NodeOp>(&observer, 5).await, "version 5");
    for version in 6..=40 {
        server.version.store(version, Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(message::<NodeOp>(&observer, 40).await, "version 40");
    let read = server.read.load(Ordering::Relaxed);
    assert!((1..=3).contains(&read), "{read}");
    // Whoever begins to lead sees at once what there is.
    sleep(READ_EVERY).await;
    server.version.store(41, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.read.load(Ordering::Relaxed), read, "it waits");
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    assert!(observer.snapshot(&<_>::default(), now, now, <_>::default(), <_>::default()).is_some());
    let news = async {
        while server.read.load(Ordering::Relaxed) == read {
            sleep(ANSWERED_WITHIN).await
        }
    };
    assert!(timeout(Duration::from_secs(1), news).await.is_ok());
}

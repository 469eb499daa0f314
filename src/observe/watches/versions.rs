//! NodeOps, of which a watch tells the versions alone.
//!
//! An operation on thousands of nodes is half a megabyte, and a step on one of them is a new version of it. As
//! a rule we have written that ourselves, and know what stands there. So the watch tells of metadata, and what
//! is news is read. A read is never older than what the watch has told: what comes in meanwhile is in it.

use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{LOOK_AGAIN, Observer, WHOLE_PAGE, config, trim, view};
use crate::{
    api::{metadata::Metadata, nodeop::NodeOp, pages},
    plan::model::snapshot::FinishedOp,
};

/// How much later than the watch the answer to a write may come, as a rule. One that comes later is read.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// Between two tries to read what is news.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Observer {
    /// The events of all NodeOps, for the watch of this number.
    pub(super) fn ops(
        &self,
        api: Api<NodeOp>,
        number: u64,
    ) -> impl Stream<Item = Result<Event<NodeOp>, watcher::Error>> + Send + use<> {
        let versions = Api::<Metadata<NodeOp>>::all(api.clone().into_client());
        let versions = watcher(versions, config()).default_backoff();
        let this = self.clone();
        versions.filter_map(move |event| {
            let (this, api) = (this.clone(), api.clone());
            async move {
                match event {
                    Ok(event) => this.whole(&api, number, event).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
    }

    /// An event with the object that it is about. None of a version that is here.
    async fn whole(
        &self,
        api: &Api<NodeOp>,
        number: u64,
        event: Event<Metadata<NodeOp>>,
    ) -> Option<Event<NodeOp>> {
        match event {
            Event::Init => {
                if let Err(error) = self.list(api, number).await {
                    warn!(error = %error.root_cause(), "NodeOps could not be listed, they are read one by one");
                }
                Some(Event::Init)
            }
            // Whether the store went back, its version of what is here tells.
            Event::InitApply(told) => match self.here(&told) {
                Some(op) => Some(Event::InitApply(NodeOp { metadata: told.metadata, ..op })),
                None => self.read_op(api, &told).await.map(Event::InitApply),
            },
            Event::InitDone => Some(Event::InitDone),
            Event::Apply(told) => {
                // The answer to a write of ours comes about when the watch tells of it.
                if self.knows(&told) && !self.has(&told) {
                    sleep(ANSWERED_WITHIN).await;
                }
                if self.has(&told) { None } else { self.read_op(api, &told).await.map(Event::Apply) }
            }
            Event::Delete(told) => {
                Some(Event::Delete(NodeOp { metadata: told.metadata, ..NodeOp::default() }))
            }
        }
    }

    fn has(&self, told: &Metadata<NodeOp>) -> bool {
        self.lock().ops.has(&view::version(&told.metadata))
    }

    /// Whether some version of it is here.
    fn knows(&self, told: &Metadata<NodeOp>) -> bool {
        self.lock().ops.contains(&view::version(&told.metadata).key)
    }

    fn here(&self, told: &Metadata<NodeOp>) -> Option<NodeOp> {
        let (caches, version) = (self.lock(), view::version(&told.metadata));
        if !caches.ops.has(&version) {
            return None;
        }
        let recorded = || caches.ops.finished().get(&version.key).map(FinishedOp::nodeop);
        caches.ops.get(&version.key).cloned().or_else(recorded)
    }

    /// Reads all of them, in pages: those that are over are never deleted, and are big.
    async fn list(&self, api: &Api<NodeOp>, number: u64) -> anyhow::Result<()> {
        let mut page = ListParams::default().limit(WHOLE_PAGE);
        loop {
            let list = timeout(LOOK_AGAIN, api.list(&page)).await.context("no answer in time")??;
            let mut caches = self.lock();
            if caches.ops.is_filled_by(number) {
                for op in list.items {
                    caches.ops.apply(view::version(&op.metadata), trim::nodeop(op));
                }
            }
            caches.forget_upgraded();
            drop(caches);
            match pages::after(page, list.metadata) {
                Some(next) => page = next,
                None => return Ok(()),
            }
        }
    }

    /// Reads one, and tries until there is an answer; nothing if it is not there any more.
    async fn read_op(&self, api: &Api<NodeOp>, told: &Metadata<NodeOp>) -> Option<NodeOp> {
        let name = told.name_any();
        let namespace = told.namespace().unwrap_or_default();
        let api = Api::<NodeOp>::namespaced(api.clone().into_client(), &namespace);
        loop {
            match timeout(LOOK_AGAIN, api.get_opt(&name)).await {
                Ok(Ok(found)) => return found,
                Ok(Err(error)) => warn!(%error, "NodeOp {namespace}/{name} could not be read"),
                Err(_) => warn!("NodeOp {namespace}/{name} could not be read: no answer in time"),
            }
            sleep(READ_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
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

    /// An API server with one NodeOp, of this version, and how often it was asked for the whole of it.
    #[derive(Clone, Default)]
    struct Server {
        version: Arc<AtomicU64>,
        read: Arc<AtomicUsize>,
    }

    impl Server {
        fn version(&self) -> u64 {
            self.version.load(Ordering::Relaxed)
        }

        fn op(&self) -> Value {
            let version = self.version();
            let meta =
                json!({"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string()});
            json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": meta, "spec": {},
                "status": {"phase": "Running", "message": format!("version {version}")}})
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
            let this = self.clone();
            let of_ops = request.uri().path().contains("nodeops");
            let accept = request.headers().get("accept").and_then(|accept| accept.to_str().ok());
            let bare = accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
            let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let named = request.uri().path().ends_with("/op");
            Box::pin(async move {
                let (had, list) = (this.version(), json!({"resourceVersion": this.version().to_string()}));
                let answer = match (of_ops, watch, named) {
                    (true, true, _) => {
                        assert!(bare, "of thousands of nodes nobody is told of each");
                        while this.version() == had {
                            sleep(Duration::from_millis(100)).await;
                        }
                        format!(
                            "{}\n",
                            json!({"type": "MODIFIED", "object": {"metadata": this.op()["metadata"]}})
                        )
                    }
                    (false, true, _) => std::future::pending().await,
                    (true, false, true) => {
                        this.read.fetch_add(1, Ordering::Relaxed);
                        this.op().to_string()
                    }
                    (true, false, false) => json!({"metadata": list, "items": [this.op()]}).to_string(),
                    (false, false, _) => json!({"metadata": list, "items": []}).to_string(),
                };
                Ok(Response::new(Full::from(answer)))
            })
        }
    }

    /// What the cache shows of it, once it is of this version.
    async fn message(observer: &Observer, version: u64) -> String {
        let has = |observer: &Observer| {
            let caches = observer.lock();
            let op = caches.ops.get(&("ns".into(), "op".into()))?;
            let here = op.metadata.resource_version == Some(version.to_string());
            here.then(|| op.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default())
        };
        for _ in 0..6_000 {
            if let Some(message) = has(observer) {
                return message;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("version {version} was not seen in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_we_wrote_is_not_read_and_what_others_wrote_is() {
        let server = Server::default();
        server.version.store(5, Ordering::Relaxed);
        let observer = Observer::default();
        observer.start(&Client::new(server.clone(), "default"), "own");
        assert_eq!(message(&observer, 5).await, "version 5");
        assert_eq!(server.read.load(Ordering::Relaxed), 0, "it came in with a list");
        let ours = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "spec": {},
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "6"}, "status": {"message": "ours"}});
        server.version.store(6, Ordering::Relaxed);
        sleep(ANSWERED_WITHIN / 2).await;
        observer.saw(LiveObject::Op(Box::new(serde_json::from_value(ours).unwrap())));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(message(&observer, 6).await, "ours");
        assert_eq!(server.read.load(Ordering::Relaxed), 0, "we know what we wrote");
        server.version.store(7, Ordering::Relaxed);
        assert_eq!(message(&observer, 7).await, "version 7");
        assert_eq!(server.read.load(Ordering::Relaxed), 1);
    }
}

//! Our own kinds, of which a watch tells the versions alone.
//!
//! An operation on thousands of nodes is half a megabyte, and a step on one of them is a new version of it,
//! and of the upgrade that it belongs to. As a rule we have written that ourselves, and know what stands
//! there. So the watch tells of metadata, and what is news is read. A read is never older than what the watch
//! has told: what comes in meanwhile is in it.

use std::{fmt::Debug, time::Duration};

use anyhow::Context;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Cache, Caches, LOOK_AGAIN, Observed, Observer, WHOLE_PAGE, config, trim, view};
use crate::{
    api::{metadata::Metadata, nodeop::NodeOp, pages, upgrade::NodeOpUpgrade},
    plan::model::snapshot::FinishedOp,
};

/// How much later than the watch the answer to a write may come, as a rule. One that comes later is read.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// Between two tries to read what is news.
pub(super) const READ_AGAIN: Duration = Duration::from_secs(1);

/// A kind of ours.
pub(super) trait Ours:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Observed
    + Clone
    + Debug
    + Default
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    fn cache(caches: &mut Caches) -> &mut Cache<Self>;
    /// What is kept of it.
    fn kept(self) -> Self;
    /// As much of it as its record says, if one may be kept.
    fn of_record(record: &FinishedOp) -> Option<Self>;

    /// Reads the one of this name.
    fn read(api: &Api<Self>, name: &str) -> impl Future<Output = kube::Result<Option<Self>>> + Send {
        api.get_opt(name)
    }
}

impl Ours for NodeOp {
    fn cache(caches: &mut Caches) -> &mut Cache<Self> {
        &mut caches.ops
    }

    fn kept(self) -> Self {
        trim::nodeop(self)
    }

    fn of_record(record: &FinishedOp) -> Option<Self> {
        Some(record.nodeop())
    }
}

impl Ours for NodeOpUpgrade {
    fn cache(caches: &mut Caches) -> &mut Cache<Self> {
        &mut caches.upgrades
    }

    fn kept(self) -> Self {
        trim::upgrade(self)
    }

    fn of_record(_: &FinishedOp) -> Option<Self> {
        None
    }

    /// As a list of one: we may list and watch them, and nothing else.
    async fn read(api: &Api<Self>, name: &str) -> kube::Result<Option<Self>> {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        Ok(api.list(&params).await?.items.into_iter().next())
    }
}

impl Observer {
    /// The events of all objects of the kind, for the watch of this number.
    pub(super) fn versions<K: Ours>(
        &self,
        api: Api<K>,
        number: u64,
    ) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + use<K> {
        let versions = Api::<Metadata<K>>::all(api.clone().into_client());
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
    async fn whole<K: Ours>(&self, api: &Api<K>, number: u64, event: Event<Metadata<K>>) -> Option<Event<K>> {
        let with = |mut object: K, told: Metadata<K>| {
            *object.meta_mut() = told.metadata;
            object
        };
        match event {
            Event::Init => {
                if let Err(error) = self.list(api, number).await {
                    let (kind, error) = (K::plural(&()), error.root_cause());
                    warn!(%error, "{kind} could not be listed, they are read one by one");
                }
                Some(Event::Init)
            }
            // Whether the store went back, its version of what is here tells.
            Event::InitApply(told) => match self.here(&told) {
                Some(object) => Some(Event::InitApply(with(object, told))),
                None => self.read_one(api, &told).await.map(Event::InitApply),
            },
            Event::InitDone => Some(Event::InitDone),
            Event::Apply(told) => {
                // The answer to a write of ours comes about when the watch tells of it.
                if self.knows(&told) && !self.has(&told) {
                    sleep(ANSWERED_WITHIN).await;
                }
                if self.has(&told) { None } else { self.read_one(api, &told).await.map(Event::Apply) }
            }
            Event::Delete(told) => Some(Event::Delete(with(K::default(), told))),
        }
    }

    fn has<K: Ours>(&self, told: &Metadata<K>) -> bool {
        K::cache(&mut self.lock()).has(&view::version(&told.metadata))
    }

    /// Whether some version of it is here.
    fn knows<K: Ours>(&self, told: &Metadata<K>) -> bool {
        K::cache(&mut self.lock()).contains(&view::version(&told.metadata).key)
    }

    fn here<K: Ours>(&self, told: &Metadata<K>) -> Option<K> {
        let (mut caches, version) = (self.lock(), view::version(&told.metadata));
        let cache = K::cache(&mut caches);
        if !cache.has(&version) {
            return None;
        }
        let recorded = || cache.finished().get(&version.key).and_then(K::of_record);
        cache.get(&version.key).cloned().or_else(recorded)
    }

    /// Reads all of them, in pages: those that are over are never deleted, and are big.
    async fn list<K: Ours>(&self, api: &Api<K>, number: u64) -> anyhow::Result<()> {
        let mut page = ListParams::default().limit(WHOLE_PAGE);
        loop {
            let list = timeout(LOOK_AGAIN, api.list(&page)).await.context("no answer in time")??;
            let mut caches = self.lock();
            let cache = K::cache(&mut caches);
            if cache.is_filled_by(number) {
                for object in list.items {
                    cache.apply(view::version(object.meta()), object.kept());
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
    async fn read_one<K: Ours>(&self, api: &Api<K>, told: &Metadata<K>) -> Option<K> {
        let (kind, name) = (K::kind(&()), told.name_any());
        let namespace = told.namespace().unwrap_or_default();
        let api = Api::<K>::namespaced(api.clone().into_client(), &namespace);
        loop {
            match timeout(LOOK_AGAIN, K::read(&api, &name)).await {
                Ok(Ok(found)) => return found,
                Ok(Err(error)) => warn!(%error, "{kind} {namespace}/{name} could not be read"),
                Err(_) => warn!("{kind} {namespace}/{name} could not be read: no answer in time"),
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
        let meta =
            json!({"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string()});
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
}

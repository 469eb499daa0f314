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
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{Cache, Caches, LOOK_AGAIN, Observed, Observer, WHOLE_PAGE, config, trim, view};
use crate::{
    api::{metadata::Metadata, nodeop::NodeOp, pages, upgrade::NodeOpUpgrade},
    plan::model::snapshot::FinishedOp,
};

/// How much later than the watch the answer to a write may come, as a rule. One that comes later is read.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// How long a replica that stands by waits for further versions before it reads what is news: then for as
/// long as [`READ_AGAIN`] nothing is waited for, and whatever came in meanwhile is read.
const READ_EVERY: Duration = Duration::from_secs(10);
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
                    self.wait_for_more().await;
                }
                if self.has(&told) { None } else { self.read_one(api, &told).await.map(Event::Apply) }
            }
            Event::Delete(told) => Some(Event::Delete(with(K::default(), told))),
        }
    }

    /// Waits for the answer to what may be a write of ours; or, where nobody plans, for further versions, so
    /// that one read is enough for all of them.
    async fn wait_for_more(&self) {
        let planning = self.planning.notified();
        let wait = {
            let caches = self.lock();
            let just_read = caches.read_at.is_some_and(|at| at.elapsed() < READ_AGAIN);
            caches.stands_by().then_some(if just_read { Duration::ZERO } else { READ_EVERY })
        };
        match wait {
            None => sleep(ANSWERED_WITHIN).await,
            Some(Duration::ZERO) => {}
            Some(wait) => {
                let _ = timeout(wait, planning).await;
                self.lock().read_at = Some(Instant::now());
            }
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
mod tests;

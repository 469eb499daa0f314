//! The watches that fill the caches, and what starts and ends them.

pub(super) mod unselected;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, future::join3};
use kube::{
    Api, Client, Resource,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use self::unselected::{Selects, selects_work};
use self::versions::Ours;
use super::{
    Caches, Observer, Work,
    cache::{Cache, Observed, WentBack},
    trim, view,
};
use crate::api::{
    job::Job, metadata::Metadata, names, node::Node, nodeop::NodeOp, pod::Pod, upgrade::NodeOpUpgrade,
};

/// Objects in a page of a list. How large they may be is the client's part, which asks for fewer where a
/// page is too large.
const PAGE: u32 = 50;
/// NodeOps, or NodeOpUpgrades, in a page of a list of whole ones. One of thousands of nodes is a megabyte,
/// and a page is in memory twice while it is read: ten are 20 MB of our 64, and fifty were more than all.
const WHOLE_PAGE: u32 = 10;
/// How often we look whether the store went back, if no watch breaks meanwhile: a store is restored under an
/// API server that is down.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Between two tries to look, and how long one may take.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The watches under way.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// How many there have been: each has a number of its own.
    count: u64,
    cluster: Vec<JoinHandle<()>>,
    /// Of the Jobs and the pods of a namespace.
    work: BTreeMap<String, [JoinHandle<()>; 2]>,
    /// Of the pods of a node that is being drained.
    drains: BTreeMap<String, JoinHandle<()>>,
}

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

impl Observer {
    /// Starts the watches; they run until the runtime ends. `namespace` is our own, where facts pods are.
    pub fn start(&self, client: &Client, namespace: &str) {
        namespace.clone_into(&mut self.lock().own);
        self.watch_cluster(client);
        let (this, client) = (self.clone(), client.clone());
        tokio::spawn(async move {
            join3(this.follow(&client), this.look_back(&client), this.read_unselected(&client)).await
        });
    }

    /// Keeps the watches at what there is.
    async fn follow(&self, client: &Client) {
        loop {
            tokio::select! {
                () = self.emptied.notified() => self.watch_cluster(client),
                () = self.watches_wake.notified() => {}
            }
            self.watch_work(client);
        }
    }

    /// Looks whether the store has lost what we have seen, when a watch broke and from time to time. Where it
    /// has, a watch may deliver nothing until the store's versions have come up to ours again, and nothing
    /// may ask for a live read.
    async fn look_back(&self, client: &Client) {
        loop {
            tokio::select! {
                () = self.broken.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
            while let Err(error) = self.look(client).await {
                debug!(error = %error.root_cause(), "the store's version could not be read");
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Compares the version of the whole store, which a list has, with the newest that was here before.
    async fn look(&self, client: &Client) -> anyhow::Result<()> {
        let had = self.lock().nodes.newest();
        let nodes = Api::<Metadata<Node>>::all(client.clone());
        let list = timeout(LOOK_AGAIN, nodes.list(&ListParams::default().limit(1))).await??;
        let has = list.metadata.resource_version.and_then(|version| version.parse().ok());
        if let (Some(had), Some(has)) = (had, has)
            && has < had
        {
            self.forget(&WentBack { had, has });
        }
        Ok(())
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all watches and empties all caches; what follows begins anew.
    pub(super) fn forget(&self, why: &WentBack) {
        warn!(
            had = why.had,
            has = why.has,
            "the API server's store went back, as after a restore of etcd: everything is listed anew"
        );
        // Held until the caches are empty: no watch may be started for what is about to go.
        let mut watches = self.watches();
        let Watches { count: _, cluster, work, drains } = &mut *watches;
        cluster.iter().chain(work.values().flatten()).chain(drains.values()).for_each(JoinHandle::abort);
        cluster.clear();
        work.clear();
        drains.clear();
        self.lock().empty();
        self.emptied.notify_one();
    }

    fn watch_cluster(&self, client: &Client) {
        let own = self.lock().own.clone();
        let labeler = config().labels(&format!("{}={}", names::APP, names::LABELER));
        let facts = Api::<Pod>::namespaced(client.clone(), &own);
        let mut watches = self.watches();
        let count = &mut watches.count;
        let cluster = vec![
            self.spawn(
                count,
                Api::<Node>::all(client.clone()),
                config(),
                |caches| Some(&mut caches.nodes),
                None,
                view::node,
            ),
            self.spawn_ours(count, Api::<NodeOp>::all(client.clone())),
            self.spawn_ours(count, Api::<NodeOpUpgrade>::all(client.clone())),
            self.spawn(
                count,
                facts,
                labeler,
                |caches| Some(&mut caches.facts_pods),
                None,
                move |pod| view::pod(&pod, &own),
            ),
        ];
        watches.cluster = cluster;
    }

    /// Watches the Jobs and pods of the namespaces that concern us, and of no other one.
    fn watch_work(&self, client: &Client) {
        // The label is anybody's to set.
        let ours = config().labels(names::NODEOP);
        let mut watches = self.watches();
        let (wanted, own) = {
            let caches = self.lock();
            let wanted: BTreeSet<String> = caches.namespaces().into_iter().map(ToOwned::to_owned).collect();
            (wanted, caches.own.clone())
        };
        let Watches { count, cluster: _, work, drains: _ } = &mut *watches;
        work.retain(|namespace, tasks| {
            let keep = wanted.contains(namespace);
            if !keep {
                tasks.iter().for_each(JoinHandle::abort);
                self.lock().leave(namespace);
            }
            keep
        });
        for namespace in wanted {
            if work.contains_key(&namespace) {
                continue;
            }
            self.lock().work.insert(namespace.clone(), Work::default());
            let jobs = Api::<Job>::namespaced(client.clone(), &namespace);
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            let (of_jobs, of_pods, own) = (namespace.clone(), namespace.clone(), own.clone());
            let tasks = [
                self.spawn(
                    count,
                    jobs,
                    ours.clone(),
                    move |caches| caches.work.get_mut(&of_jobs).map(|work| &mut work.jobs),
                    Some(selects_work),
                    |job| view::job(&job),
                ),
                self.spawn(
                    count,
                    pods,
                    ours.clone(),
                    move |caches| caches.work.get_mut(&of_pods).map(|work| &mut work.pods),
                    Some(selects_work),
                    move |pod| view::pod(&pod, &own),
                ),
            ];
            work.insert(namespace, tasks);
        }
    }

    /// Watches the pods of exactly these nodes.
    pub fn watch_pods_of(&self, client: &Client, nodes: &BTreeSet<String>) {
        let mut watches = self.watches();
        let Watches { count, cluster: _, work: _, drains } = &mut *watches;
        drains.retain(|node, task| {
            let keep = nodes.contains(node);
            if !keep {
                task.abort();
                self.lock().leave_node(node);
            }
            keep
        });
        for node in nodes {
            if drains.contains_key(node) {
                continue;
            }
            self.lock().drained_pods.insert(node.clone(), Cache::listed_anew());
            let (api, name) = (Api::<Pod>::all(client.clone()), node.clone());
            let fields = config().fields(&format!("spec.nodeName={node}"));
            let task = self.spawn(
                count,
                api,
                fields,
                move |caches| caches.drained_pods.get_mut(&name),
                None,
                |pod| view::resident(&pod),
            );
            drains.insert(node.clone(), task);
        }
    }

    fn spawn<K, V>(
        &self,
        count: &mut u64,
        api: Api<K>,
        config: watcher::Config,
        cache: impl Fn(&mut Caches) -> Option<&mut Cache<V>> + Send + Sync + 'static,
        selects: Option<Selects>,
        parse: impl Fn(K) -> V + Send + Sync + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        K::DynamicType: Default,
        V: Observed + Send + 'static,
    {
        *count += 1;
        let number = *count;
        if let Some(cache) = cache(&mut self.lock()) {
            cache.fill_by(number);
        }
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let this = self.clone();
        tokio::spawn(async move {
            let is_kept = |object: &K| {
                let key = view::version(object.meta()).key;
                selects.is_some() && cache(&mut this.lock()).is_some_and(|cache| cache.contains(&key))
            };
            let mut fed = Fed::Stale;
            while fed == Fed::Stale {
                let stream = watcher(api.clone(), config.clone()).default_backoff();
                let stream = stream.then(|event| unselected::confirmed(&api, event, &is_kept));
                let selects = |object: &K| selects.is_none_or(|selects| selects(object.meta()));
                fed = this.feed(&kind, number, stream, &cache, selects, &parse).await;
            }
        })
    }

    fn spawn_ours<K: Ours>(&self, count: &mut u64, api: Api<K>) -> JoinHandle<()> {
        *count += 1;
        let number = *count;
        K::cache(&mut self.lock()).fill_by(number);
        let (this, stream) = (self.clone(), self.versions(api, number));
        tokio::spawn(async move {
            this.feed(&K::kind(&()), number, stream, |caches| Some(K::cache(caches)), |_| true, K::kept)
                .await;
        })
    }

    /// Fills a cache from a watch, as long as it is the one that fills it: one that was ended may still have
    /// an event in its hands. Returns what comes next.
    async fn feed<K: Resource, V: Observed>(
        &self,
        kind: &str,
        number: u64,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        cache: impl Fn(&mut Caches) -> Option<&mut Cache<V>>,
        selects: impl Fn(&K) -> bool,
        parse: impl Fn(K) -> V,
    ) -> Fed {
        let mut stream = std::pin::pin!(stream);
        let mut taken: u32 = 0;
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let why = anyhow::Error::new(error).root_cause().to_string();
                    warn!(kind, error = why, "watch broke, it is taken up again");
                    self.broken.notify_one();
                    let (mut lasts, mut stale) = (false, false);
                    if let Some(cache) = cache(&mut self.lock()).filter(|cache| cache.is_filled_by(number)) {
                        (lasts, stale) = (cache.broke(why), cache.is_stale());
                    }
                    if lasts {
                        self.tell();
                    }
                    if stale {
                        return Fed::Stale;
                    }
                    continue;
                }
            };
            let fed = {
                let mut caches = self.lock();
                let Some(cache) = cache(&mut caches).filter(|cache| cache.is_filled_by(number)) else {
                    return Fed::Over;
                };
                let is_listed = matches!(event, Event::InitDone);
                let fed = feed_one(cache, event, &selects, &parse);
                taken = taken.wrapping_add(1);
                if taken.is_multiple_of(PAGE) || is_listed {
                    caches.keep_little();
                }
                fed
            };
            match fed {
                Ok(true) => self.tell(),
                Ok(false) => {}
                Err(went_back) => {
                    self.forget(&went_back);
                    return Fed::Over;
                }
            }
        }
        Fed::Over
    }
}

/// What follows a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// Nothing: what it filled is filled by another one, or by none.
    Over,
    /// Another one, which begins with a list.
    Stale,
}

/// Whether anything changed that a plan can depend on.
fn feed_one<K: Resource, V: Observed>(
    cache: &mut Cache<V>,
    event: Event<K>,
    selects: impl Fn(&K) -> bool,
    parse: impl Fn(K) -> V,
) -> Result<bool, WentBack> {
    Ok(match event {
        Event::Init => {
            cache.list_begins();
            false
        }
        Event::InitApply(object) => cache.listed(view::version(object.meta()), parse(object))?,
        Event::InitDone => {
            cache.list_ends();
            true
        }
        Event::Apply(object) if !selects(&object) => {
            cache.found_unselected(view::version(object.meta()), parse(object))
        }
        Event::Apply(object) => {
            cache.heard();
            cache.apply(view::version(object.meta()), parse(object))
        }
        Event::Delete(object) => {
            cache.heard();
            let version = view::version(object.meta());
            cache.remove(&version.key, Some(&version.uid), Some(&version.resource_version))
        }
    })
}

#[cfg(test)]
mod tests;

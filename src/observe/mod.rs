//! The cluster, as far as it concerns us, turned into a [`Snapshot`].
//!
//! Watched are all nodes and NodeOps, the Jobs and pods that carry our label, and, only while a node is drained, the
//! pods of that node: never all pods. Objects are parsed into views as they come in and dropped, so that a node's list
//! of images is not kept.

pub mod cache;
pub mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::warn;

use self::cache::{Cache, Version};
use crate::{
    api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade},
    plan::model::{
        id::Key,
        question::{Answer, Question},
        snapshot::{Eviction, JobView, NodeView, PodView, Resident, Role, Settings, Snapshot},
    },
};

/// An object that a live request returned, to be seen by the next plan.
#[derive(Clone, Debug)]
pub enum Seen {
    Op(Box<NodeOp>),
    Upgrade(Box<NodeOpUpgrade>),
    Node(Box<Node>),
    Job(Box<Job>),
    Pod(Box<Pod>),
    /// There is no Job of this UID under this name any more.
    NoJob(Key, String),
    /// There is no pod of this UID under this name any more.
    NoPod(Key, String),
}

/// All caches.
#[derive(Debug, Default)]
struct Caches {
    nodes: Cache<NodeView>,
    ops: Cache<NodeOp>,
    jobs: Cache<JobView>,
    pods: Cache<PodView>,
    facts: Cache<PodView>,
    upgrades: Cache<NodeOpUpgrade>,
    residents: BTreeMap<String, Residents>,
}

/// The pods of a node that is being drained.
#[derive(Debug, Default)]
struct Residents {
    cache: Cache<Resident>,
    /// The UIDs in the first list.
    first: Option<Arc<BTreeSet<String>>>,
}

impl Residents {
    /// All pods; nothing before the first list has come in, whose UIDs are kept.
    fn views(&mut self) -> Option<Vec<Arc<Resident>>> {
        let pods: Vec<_> = self.cache.ready().then(|| self.cache.views().into_values().collect())?;
        self.first.get_or_insert_with(|| Arc::new(pods.iter().map(|pod: &Arc<Resident>| pod.uid.clone()).collect()));
        Some(pods)
    }
}

/// Watches the cluster and makes snapshots of it.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    caches: Arc<Mutex<Caches>>,
    /// Told whenever a cache changed.
    changed: Arc<Notify>,
    /// The watches of the nodes that are being drained.
    drains: Arc<Mutex<BTreeMap<String, JoinHandle<()>>>>,
}

impl Observer {
    /// Starts the watches; they run until the runtime ends. `namespace` is our own, where facts pods are.
    pub fn start(&self, client: &Client, namespace: &str) {
        let all = watcher::Config::default();
        let ours = watcher::Config::default().labels(names::NODEOP);
        let labeler = watcher::Config::default().labels(&format!("{}={}", names::APP, names::LABELER));
        let own = Api::<Pod>::namespaced(client.clone(), namespace);
        self.spawn(Api::<Node>::all(client.clone()), all.clone(), |caches| &mut caches.nodes, |node| view::node(&node));
        self.spawn(Api::<NodeOp>::all(client.clone()), all.clone(), |caches| &mut caches.ops, trimmed);
        self.spawn(Api::<NodeOpUpgrade>::all(client.clone()), all, |caches| &mut caches.upgrades, trimmed);
        self.spawn(Api::<Job>::all(client.clone()), ours.clone(), |caches| &mut caches.jobs, |job| view::job(&job));
        self.spawn(Api::<Pod>::all(client.clone()), ours, |caches| &mut caches.pods, |pod| view::pod(&pod));
        self.spawn(own, labeler, |caches| &mut caches.facts, |pod| view::pod(&pod));
    }

    fn spawn<K, V>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        cache: impl Fn(&mut Caches) -> &mut Cache<V> + Send + 'static,
        parse: impl Fn(K) -> V + Send + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        K::DynamicType: Default,
        V: Send + 'static,
    {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let stream = watcher(api, config).default_backoff();
        let this = self.clone();
        tokio::spawn(async move { this.feed(&kind, stream, cache, parse).await })
    }

    async fn feed<K: Resource, V>(
        &self,
        kind: &str,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        cache: impl Fn(&mut Caches) -> &mut Cache<V>,
        parse: impl Fn(K) -> V,
    ) {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    warn!(kind, error = %anyhow::Error::new(error).root_cause(), "watch broke, it is taken up again");
                    continue;
                }
            };
            let mut caches = self.lock();
            let cache = cache(&mut caches);
            match event {
                Event::Init => cache.list_begins(),
                Event::InitApply(object) => cache.listed(version(object.meta()), parse(object)),
                Event::InitDone => cache.list_ends(),
                Event::Apply(object) => drop(cache.apply(version(object.meta()), parse(object))),
                Event::Delete(object) => {
                    let version = version(object.meta());
                    let _ = cache.remove(&version.key, Some(&version.uid), Some(&version.resource_version));
                }
            }
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Caches> {
        // A panic while a cache was locked aborts the process in release builds; in tests the data is still whole.
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes the next [`Self::changed`] return at once.
    pub fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Whether every first list has come in; before that nothing may be planned.
    pub fn ready(&self) -> bool {
        let caches = self.lock();
        let ours = caches.ops.ready() && caches.upgrades.ready() && caches.jobs.ready() && caches.pods.ready() && caches.facts.ready();
        ours && caches.nodes.ready()
    }

    /// Takes what a live request returned.
    pub fn saw(&self, seen: Seen) {
        let mut caches = self.lock();
        let changed = match seen {
            Seen::NoJob(key, uid) => caches.jobs.remove(&key, Some(&uid), None),
            Seen::NoPod(key, uid) => {
                let ours = caches.pods.remove(&key, Some(&uid), None);
                caches.facts.remove(&key, Some(&uid), None) || ours
            }
            Seen::Op(op) => caches.ops.apply(version(&op.metadata), trimmed(*op)),
            Seen::Upgrade(upgrade) => caches.upgrades.apply(version(&upgrade.metadata), trimmed(*upgrade)),
            Seen::Node(node) => caches.nodes.apply(version(&node.metadata), view::node(&node)),
            Seen::Job(job) => caches.jobs.apply(version(&job.metadata), view::job(&job)),
            Seen::Pod(pod) => {
                let view = view::pod(&pod);
                let cache = if view.role == Role::Facts { &mut caches.facts } else { &mut caches.pods };
                cache.apply(version(&pod.metadata), view)
            }
        };
        if changed {
            self.changed.notify_one();
        }
    }

    /// Takes a live read's word that an object is not there.
    pub fn gone(&self, question: &Question) {
        let mut caches = self.lock();
        let _ = match question {
            Question::Node(name) => caches.nodes.remove(&(String::new(), name.clone()), None, None),
            Question::Op(op) => caches.ops.remove(&op.key(), Some(&op.uid), None),
            Question::Job(key) => caches.jobs.remove(key, None, None),
            Question::Pod(key) => caches.pods.remove(key, None, None),
            Question::Rivals | Question::Work(_) | Question::Admission(..) | Question::Successor(_) | Question::Volumes(_) => false,
        };
    }

    /// Watches the pods of exactly these nodes.
    pub fn watch_pods_of(&self, client: &Client, nodes: &BTreeSet<String>) {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        drains.retain(|node, task| {
            let keep = nodes.contains(node);
            if !keep {
                task.abort();
                self.lock().residents.remove(node);
            }
            keep
        });
        for node in nodes {
            if drains.contains_key(node) {
                continue;
            }
            let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
            let name = node.clone();
            let api = Api::<Pod>::all(client.clone());
            // A watch that was stopped in the middle of an event may have left something.
            self.lock().residents.remove(node);
            let task = self.spawn(
                api,
                config,
                move |caches| &mut caches.residents.entry(name.clone()).or_default().cache,
                |pod| view::resident(&pod),
            );
            drains.insert(node.clone(), task);
        }
    }

    /// One moment of the cluster.
    pub fn snapshot(
        &self,
        settings: &Settings,
        now: Timestamp,
        leading_since: Timestamp,
        evictions: BTreeMap<String, Eviction>,
        answers: BTreeMap<Question, Answer>,
    ) -> Snapshot {
        let mut caches = self.lock();
        let residents = caches.residents.iter_mut().filter_map(|(node, pods)| Some((node.clone(), pods.views()?))).collect();
        let listed = caches.residents.iter().filter_map(|(node, pods)| Some((node.clone(), pods.first.clone()?))).collect();
        Snapshot {
            now,
            leading_since,
            settings: settings.clone(),
            nodes: caches.nodes.views().into_iter().map(|((_, name), node)| (name, node)).collect(),
            ops: caches.ops.views(),
            upgrades: caches.upgrades.views(),
            facts: caches.facts.views(),
            jobs: caches.jobs.views(),
            pods: caches.pods.views(),
            residents,
            listed,
            evictions,
            answers,
            failures: BTreeMap::new(),
        }
    }
}

fn version(meta: &ObjectMeta) -> Version {
    view::version(meta)
}

/// `managedFields` and kubectl's copy of the object are half of it, and decide nothing.
fn trimmed<K: Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deletion_did_not_find_is_not_seen_any_more() {
        let observer = Observer::default();
        let pod = |label: &str| {
            let meta = serde_json::json!({"name": label, "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {label: ""}});
            Box::new(serde_json::from_value::<Pod>(serde_json::json!({"metadata": meta})).unwrap())
        };
        for label in [names::REBOOT, names::APP] {
            observer.saw(Seen::Pod(pod(label)));
            let key = ("ns".to_owned(), label.to_owned());
            let there = || {
                let caches = observer.lock();
                caches.pods.views().contains_key(&key) || caches.facts.views().contains_key(&key)
            };
            observer.saw(Seen::NoPod(key.clone(), "another".into()));
            assert!(there(), "one of another UID was meant");
            observer.saw(Seen::NoPod(key.clone(), "u".into()));
            assert!(!there(), "{label}");
            observer.saw(Seen::Pod(pod(label)));
            assert!(!there(), "nor does an old watch bring it back");
        }
    }
}

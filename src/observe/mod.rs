//! The cluster, as far as it concerns us, turned into a [`Snapshot`].
//!
//! Watched are all nodes and NodeOps; the Jobs and pods that carry our label, in namespaces that have NodeOps
//! and nowhere else, since anybody may set a label; and, only while a node is drained, the pods of that node:
//! never all pods. Objects are parsed into views as they come in and dropped, so that a node's list of images
//! is not kept.

pub mod cache;
mod forget;
mod job;
mod live;
mod resident;
mod same;
pub mod static_pods;
mod trim;
pub mod view;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use tokio::{sync::Notify, time::Instant};

pub use self::live::LiveObject;
use self::{cache::Cache, forget::Changed, watches::Watches};
use crate::{
    api::{nodeop::NodeOp, owner, upgrade::NodeOpUpgrade},
    plan::model::{
        id::Key,
        question::{Answer, Question},
        snapshot::{
            Evictions, JobView, NodePod, NodeTable, NodeView, PlacedTable, PlannerConfig, PodView, Shows,
            Sightings, Snapshot, Table, brief,
        },
    },
};

/// All caches.
#[derive(Debug, Default)]
struct Caches {
    /// Our own namespace, where facts pods are.
    own: String,
    nodes: Cache<NodeView>,
    ops: Cache<NodeOp>,
    facts_pods: Cache<PodView>,
    upgrades: Cache<NodeOpUpgrade>,
    /// The Jobs and pods of each namespace that concerns us.
    work: BTreeMap<String, Work>,
    /// The pods of each node that is being drained.
    drained_pods: BTreeMap<String, Cache<NodePod>>,
    sightings: Arc<Sightings>,
    shown: Shown,
    /// When the last snapshot was made. A replica that stands by makes none.
    shown_at: Option<Instant>,
    /// When objects of our own kinds were read last while none is made.
    read_at: Option<Instant>,
}

/// Within this time whoever leads makes a snapshot, whatever happens.
const SHOWN_WITHIN: Duration = Duration::from_secs(600);

/// What the last snapshot showed, which is brought up to date for the next one by what has changed.
#[derive(Clone, Debug, Default)]
struct Shown {
    nodes: NodeTable,
    ops: Table<Key, NodeOp>,
    upgrades: Table<Key, NodeOpUpgrade>,
    facts_pods: PlacedTable<PodView>,
    jobs: PlacedTable<JobView>,
    pods: PlacedTable<PodView>,
    drained_pods: Table<String, Vec<Arc<NodePod>>>,
}

/// The Jobs and pods of one namespace.
#[derive(Debug, Default)]
struct Work {
    jobs: Cache<JobView>,
    pods: Cache<PodView>,
}

impl Caches {
    /// The namespaces whose Jobs and pods concern us: those with NodeOps, and those of NodeOps that still
    /// hold a node.
    fn namespaces(&self) -> BTreeSet<&str> {
        let ops = self.ops.iter().map(|((namespace, _), _)| namespace.as_str());
        let ops = ops.chain(self.ops.finished().namespaces());
        // What was shown, and what came in since: not all nodes, at each event.
        let shown = self.shown.nodes.claimant_namespaces().map(String::as_str);
        let news = self.nodes.changed().flat_map(|node| node.marked_by()).map(|of| of.namespace.as_str());
        ops.chain(shown).chain(news).collect()
    }

    /// Whether no plans are made here, or none yet.
    fn stands_by(&self) -> bool {
        self.shown_at.is_none_or(|at| at.elapsed() > SHOWN_WITHIN)
    }

    /// What no watch tells of: as what asks for each, and its version. Nothing while no plans are made here:
    /// what is over is forgotten as they are made.
    fn unselected(&self) -> Vec<(Question, Option<u64>)> {
        if self.stands_by() {
            return Vec::new();
        }
        let of = |work: &Work| {
            let jobs = work.jobs.unselected().map(|(key, version)| (Question::Job(key.clone()), version));
            let pods = work.pods.unselected().map(|(key, version)| (Question::Pod(key.clone()), version));
            jobs.chain(pods).collect::<Vec<_>>()
        };
        self.work.values().flat_map(of).collect()
    }

    fn ready(&self) -> bool {
        let listed = |namespace: &str| {
            self.work.get(namespace).is_some_and(|work| work.jobs.ready() && work.pods.ready())
        };
        let cluster =
            self.nodes.ready() && self.ops.ready() && self.upgrades.ready() && self.facts_pods.ready();
        cluster && self.namespaces().into_iter().all(listed)
    }

    /// The first lists that have not come in, each with why not if that has gone on for a while.
    fn unlisted(&self) -> Vec<String> {
        fn of<V>(what: &str, cache: &Cache<V>) -> Option<String> {
            let why = cache.lasting_error().map(|why| format!(" ({why})")).unwrap_or_default();
            (!cache.ready()).then(|| format!("{what}{why}"))
        }
        let cluster = [
            of("nodes", &self.nodes),
            of("NodeOps", &self.ops),
            of("NodeOpUpgrades", &self.upgrades),
            of("facts pods", &self.facts_pods),
        ];
        let work = self.work.iter().flat_map(|(namespace, work)| {
            [
                of(&format!("Jobs in namespace {namespace}"), &work.jobs),
                of(&format!("pods in namespace {namespace}"), &work.pods),
            ]
        });
        cluster.into_iter().chain(work).flatten().collect()
    }

    /// Forgets all but the identity of the NodeOps whose NodeOpUpgrades have recorded their end.
    fn forget_upgraded(&mut self) {
        if !self.upgrades.ready() {
            return;
        }
        let over = |(key, op): (&Key, &NodeOp)| {
            let owner = owner::upgrade(&op.metadata)?;
            let upgrade = self.upgrades.get(&(key.0.clone(), owner.name.clone()));
            Some((key.clone(), trim::upgraded(op, upgrade)?))
        };
        let over: Vec<(Key, NodeOp)> = self.ops.iter().filter_map(over).collect();
        over.into_iter().for_each(|(key, op)| self.ops.replace(&key, op));
    }

    /// Brings up to date what snapshots show, and forgets what has ended. Whether a pod is still of use can
    /// be told once all else is here that may name it.
    fn show(&mut self) {
        let Shown { nodes, ops, upgrades, facts_pods, jobs, pods, drained_pods } = &mut self.shown;
        let mut changed = Changed::default();
        self.nodes.changes().for_each(|((_, name), node)| nodes.show(name, node));
        for (key, op) in self.ops.changes() {
            changed.ops.push(key.clone());
            ops.show(key, op);
        }
        self.upgrades.changes().for_each(|(key, upgrade)| upgrades.show(key, upgrade));
        self.facts_pods.changes().for_each(|(key, pod)| facts_pods.show(key, pod));
        for work in self.work.values_mut() {
            for (key, job) in work.jobs.changes() {
                changed.jobs.push(key.clone());
                jobs.show(key, job);
            }
            if self.ops.ready() && work.jobs.ready() {
                for (key, pod) in work.pods.changes() {
                    changed.pods.push(key.clone());
                    pods.show(key, pod);
                }
            }
        }
        for (node, pods) in self.drained_pods.iter_mut().filter(|(_, pods)| pods.ready()) {
            if pods.changes().count() > 0 || !drained_pods.contains_key(node) {
                drained_pods.insert(node.clone(), Arc::new(pods.views().cloned().collect()));
            }
        }
        self.forget_ended(changed);
    }

    /// A node's pods do not concern us any more.
    fn leave_node(&mut self, node: &str) {
        self.drained_pods.remove(node);
        self.shown.drained_pods.remove(node);
    }

    /// A namespace does not concern us any more.
    fn leave(&mut self, namespace: &str) {
        self.work.remove(namespace);
        self.shown.jobs.retain(|key, _| key.0 != namespace);
        self.shown.pods.retain(|key, _| key.0 != namespace);
    }

    /// Keeps only what is no copy of the store.
    fn empty(&mut self) {
        *self = Self {
            own: mem::take(&mut self.own),
            sightings: mem::take(&mut self.sightings),
            ..Self::default()
        };
    }
}

/// Watches the cluster and makes snapshots of it.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    caches: Arc<Mutex<Caches>>,
    watches: Arc<Mutex<Watches>>,
    /// Told whenever a cache changed, or somebody asked for a plan: the planner wakes.
    changed: Arc<Notify>,
    /// Told whenever a cache changed: watches of what now is there, or no longer is, begin or end.
    watches_wake: Arc<Notify>,
    /// Told when a watch broke: whether the store went back is looked at.
    broken: Arc<Notify>,
    /// Told when the caches were emptied because the store went back: all watches begin anew.
    emptied: Arc<Notify>,
    /// Told when plans begin to be made here.
    planning: Arc<Notify>,
}

impl Observer {
    fn lock(&self) -> MutexGuard<'_, Caches> {
        // A panic while a cache was locked aborts the process in release builds; in tests the data is still
        // whole.
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.notify_one();
        self.watches_wake.notify_one();
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
        self.lock().ready()
    }

    /// Which first lists have not come in, as a sentence.
    pub fn unlisted(&self) -> String {
        self.lock().unlisted().join(", ")
    }

    /// Takes the answer to a write of ours.
    pub fn saw(&self, seen: LiveObject) {
        if self.lock().take(seen) {
            self.tell();
        }
    }

    /// Takes what a live read found that began at that moment. No such read can be older than what was here
    /// by then, unless the store went back: then all that is here is of a past that never was, and the
    /// cluster is listed anew.
    pub fn read(&self, seen: LiveObject, began: Instant) {
        let checked = self.lock().check(&seen, began);
        match checked {
            Ok(()) => self.saw(seen),
            Err(went_back) => self.forget(&went_back),
        }
    }

    /// Whether a NodeOp of which a live list that began then tells is here as it is there, or as it was
    /// later. As with [`Self::read`], the list shows whether the store went back.
    pub fn has_op(&self, told: &ObjectMeta, began: Instant) -> bool {
        let version = view::version(told);
        let (checked, has) = {
            let caches = self.lock();
            (caches.ops.check(&version, began), caches.ops.has(&version))
        };
        match checked {
            Ok(()) => has,
            Err(went_back) => {
                self.forget(&went_back);
                false
            }
        }
    }

    /// Takes a live read's word that an object is not there.
    pub fn gone(&self, question: &Question) {
        let mut caches = self.lock();
        match question {
            Question::Node(name) => {
                caches.nodes.remove(&(String::new(), name.clone()), None, None);
            }
            Question::Op(op) => {
                caches.ops.remove(&op.key(), Some(&op.uid), None);
            }
            Question::Job(key) => {
                if let Some(work) = caches.work.get_mut(&key.0) {
                    work.jobs.remove(key, None, None);
                }
            }
            Question::Pod(key) => {
                if let Some(work) = caches.work.get_mut(&key.0) {
                    work.pods.remove(key, None, None);
                }
            }
            Question::AllNodeOps
            | Question::OwnedWorkload(_)
            | Question::Admission(..)
            | Question::OtherReplica(_)
            | Question::Volumes(_)
            | Question::Events { .. }
            | Question::ControlPlanePods(_) => {}
        }
    }

    /// One moment of the cluster. There is none as long as the cluster has not been listed completely: a plan
    /// that is made of nothing would end the watches of all drains, and what they know would be forgotten.
    /// A namespace with its first NodeOp comes in at any time, also between two rounds of one plan.
    pub fn snapshot(
        &self,
        config: &PlannerConfig,
        now: Timestamp,
        leading_since: Timestamp,
        evictions: Evictions,
        answers: BTreeMap<Question, Answer>,
    ) -> Option<Snapshot> {
        let mut caches = self.lock();
        if !caches.ready() {
            return None;
        }
        let mut snapshot = Snapshot {
            now,
            leading_since,
            config: config.clone(),
            evictions,
            answers,
            ..Snapshot::default()
        };
        caches.forget_upgraded();
        let failing =
            caches.drained_pods.iter().filter_map(|(node, pods)| Some((node, pods.lasting_error()?)));
        snapshot.unlisted = failing.map(|(node, why)| (node.clone(), brief(why))).collect();
        caches.show();
        if caches.stands_by() {
            self.planning.notify_waiters();
        }
        caches.shown_at = Some(Instant::now());
        let Shown { nodes, ops, upgrades, facts_pods, jobs, pods, drained_pods } = caches.shown.clone();
        let finished = caches.ops.finished().clone();
        snapshot =
            Snapshot { nodes, ops, finished, upgrades, facts_pods, jobs, pods, drained_pods, ..snapshot };
        Arc::make_mut(&mut caches.sightings).note(&snapshot);
        snapshot.sightings = caches.sightings.clone();
        Some(snapshot)
    }
}

#[cfg(test)]
mod tests;

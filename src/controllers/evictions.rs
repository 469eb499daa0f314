//! Evictions beside the planner, bounded, and the memory of what came of them.
//!
//! The memory is this process's only. A new leader has none, and the planner then starts one interval late.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::{
    clock::Clock,
    metrics::{EvictionResult, Metrics},
};
use crate::{
    act::{self, Actor, EvictionRefusal},
    observe::Observer,
    plan::model::{
        action::Target,
        snapshot::{Eviction, Evictions as Tried, NodePod, Refusal, Snapshot, Table},
    },
};

/// Evictions under way at once: the server may hold each for ten seconds.
const AT_ONCE: usize = 16;

/// A pod that is to be evicted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub node: String,
    pub pod: Target,
    pub grace_period_seconds: Option<i64>,
}

/// Starts evictions and remembers them.
#[derive(Clone, Debug)]
pub struct Evictions {
    observer: Observer,
    clock: Clock,
    metrics: Option<Arc<Metrics>>,
    slots: Arc<Semaphore>,
    known: Arc<Mutex<Known>>,
}

/// What is known of the tries.
#[derive(Debug, Default)]
struct Known {
    tried: Tried,
    /// The pods among which those that have gone were looked for last.
    among: Table<String, Vec<Arc<NodePod>>>,
}

impl Known {
    fn of_node(&mut self, node: &str) -> &mut BTreeMap<String, Eviction> {
        Arc::make_mut(self.tried.entry(node.to_owned()).or_default())
    }

    fn last(&self, node: &str, uid: &str) -> Option<&Eviction> {
        self.tried.get(node)?.get(uid)
    }
}

impl Evictions {
    pub fn new(observer: Observer, clock: Clock) -> Self {
        let (slots, known) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::default());
        Self { observer, clock, metrics: None, slots, known }
    }

    /// Counts what comes of the tries from now on.
    pub fn measure(&mut self, metrics: &Arc<Metrics>) {
        self.metrics = Some(metrics.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last try on each pod.
    pub fn known(&self) -> Tried {
        self.lock().tried.clone()
    }

    /// Forgets pods that no drain sees any more. Those of a node that is drained and not listed, as when its
    /// watch was begun anew, may be there still.
    pub fn forget_all_but(&self, s: &Snapshot) {
        let mut known = self.lock();
        let Known { tried, among } = &mut *known;
        let mut gone: Vec<(String, String)> = Vec::new();
        for (node, of_node) in &*tried {
            let pods = s.drained_pods.get(node);
            let is_looked_at = pods.zip(among.get(node)).is_some_and(|(now, last)| Arc::ptr_eq(now, last));
            if is_looked_at || (pods.is_none() && s.is_kept_clear(node)) {
                continue;
            }
            let there = |uid: &str| pods.is_some_and(|pods| pods.iter().any(|pod| pod.uid == uid));
            let left = of_node.iter().filter(|(uid, eviction)| !eviction.under_way && !there(uid));
            gone.extend(left.map(|(uid, _)| (node.clone(), uid.clone())));
        }
        *among = s.drained_pods.clone();
        for (node, uid) in gone {
            known.of_node(&node).remove(&uid);
            if known.tried.get(&node).is_some_and(|of_node| of_node.is_empty()) {
                known.tried.remove(&node);
            }
        }
    }

    /// Tries once to evict each of these pods, without waiting for the answers. Those for which no slot is
    /// free are left to a later plan, and are the first then.
    pub fn start(&self, actor: &Actor, wanted: Vec<Wanted>) {
        let wanted = in_turn(wanted, &self.lock().tried);
        for Wanted { node, pod, grace_period_seconds } in wanted {
            let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
            self.start_one(actor, slot, node, pod, grace_period_seconds);
        }
    }

    fn start_one(
        &self,
        actor: &Actor,
        slot: OwnedSemaphorePermit,
        node: String,
        pod: Target,
        grace_period_seconds: Option<i64>,
    ) {
        let refusal = {
            let mut known = self.lock();
            let before = known.last(&node, &pod.uid).and_then(|eviction| eviction.refusal.clone());
            let eviction = Eviction { at: self.clock.now(), under_way: true, refusal: before.clone() };
            known.of_node(&node).insert(pod.uid.clone(), eviction);
            before
        };
        let (this, actor) = (self.clone(), actor.clone());
        tokio::spawn(async move {
            let outcome = actor.evict(&node, &pod, grace_period_seconds).await;
            if let Some(metrics) = &this.metrics {
                metrics.evicted(result(&outcome));
            }
            let refusal = this.judge(&pod, &node, refusal, outcome);
            let at = this.clock.now();
            this.lock().of_node(&node).insert(pod.uid, Eviction { at, under_way: false, refusal });
            drop(slot);
            this.observer.nudge();
        });
    }

    /// Waits until none is under way; none can be started any more.
    pub async fn end(&self) {
        // An error means that this was called before.
        let _ = self.slots.acquire_many(u32::try_from(AT_ONCE).unwrap_or(u32::MAX)).await;
        self.slots.close();
    }

    fn judge(
        &self,
        pod: &Target,
        node: &str,
        before: Option<Refusal>,
        outcome: anyhow::Result<act::Eviction>,
    ) -> Option<Refusal> {
        let path = format!("{}/{}", pod.namespace, pod.name);
        let since = before.as_ref().map_or_else(|| self.clock.now(), |before| before.since);
        match outcome {
            Ok(act::Eviction::Evicted) => {
                info!(pod = path, node, "evicted");
                None
            }
            Ok(act::Eviction::Needless(found)) => {
                info!(pod = path, node, "not evicted: it is gone from the node, or on its way out");
                // The view that it was planned from is an old one; its watch may be broken.
                let key = (pod.namespace.clone(), pod.name.clone());
                self.observer.read_resident(node, &key, &pod.uid, found.as_deref());
                None
            }
            Ok(act::Eviction::Gone) => {
                info!(pod = path, node, "not evicted: it is gone from the node, or on its way out");
                None
            }
            Ok(act::Eviction::Changed) => {
                info!(pod = path, node, "not evicted: another pod has its name");
                None
            }
            Ok(act::Eviction::Refused { by: _, message, retry_after, permanent }) => {
                if before.is_none() {
                    info!(pod = path, node, message, "the eviction is refused");
                }
                Some(Refusal { since, message, retry_after, permanent })
            }
            Err(error) => {
                let message = act::error_message(&error);
                // It is tried again every few seconds.
                if before.is_none_or(|before| before.message != message) {
                    warn!(pod = path, node, error = message, "the eviction failed");
                }
                Some(Refusal { since, message, retry_after: None, permanent: false })
            }
        }
    }
}

/// Puts first what was tried least recently, one pod of each node after the other: a server may hold each try
/// for ten seconds and refuse it then, and with all slots taken by such pods nobody else would ever be tried.
fn in_turn(mut wanted: Vec<Wanted>, known: &Tried) -> Vec<Wanted> {
    let last = |wanted: &Wanted| known.get(&wanted.node)?.get(&wanted.pod.uid).map(|last| last.at);
    wanted.sort_by_cached_key(last);
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let place = |wanted: Wanted| {
        let place = places.entry(wanted.node.clone()).or_default();
        *place += 1;
        (*place, wanted)
    };
    let mut placed: Vec<(usize, Wanted)> = wanted.into_iter().map(place).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, wanted)| wanted).collect()
}

/// As what an outcome is counted.
fn result(outcome: &anyhow::Result<act::Eviction>) -> EvictionResult {
    match outcome {
        Ok(act::Eviction::Evicted) => EvictionResult::Evicted,
        Ok(act::Eviction::Needless(_) | act::Eviction::Gone) => EvictionResult::Gone,
        Ok(act::Eviction::Changed) => EvictionResult::Changed,
        Ok(act::Eviction::Refused { by: EvictionRefusal::Budget, .. }) => EvictionResult::Budget,
        Ok(act::Eviction::Refused { by: EvictionRefusal::Other, .. }) => EvictionResult::Refused,
        Err(_) => EvictionResult::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use k8s_openapi::{
        apimachinery::pkg::apis::meta::v1::Time,
        jiff::{SignedDuration, Timestamp},
    };
    use serde_json::json;

    use super::*;
    use crate::{
        act::tests::Server,
        plan::node::fixtures::{World, at},
    };

    /// What the API server said of a pod decides when it is asked again.
    #[test]
    fn what_was_refused_is_known_though_the_watch_of_the_pods_began_anew() {
        let entry =
            json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
        let drain = serde_json::from_value(json!({"enabled": true})).unwrap();
        let mut world = World::new(entry).op(|op| op.spec.drain_options = Some(drain));
        let evictions = Evictions::new(Observer::default(), Clock::set_to(at(0)));
        for (node, uid) in [("n1", "p"), ("n1", "gone"), ("n2", "q")] {
            let tried = Eviction { at: at(1), under_way: false, refusal: None };
            evictions.lock().of_node(node).insert(uid.into(), tried);
        }
        let known = |world: &World| {
            evictions.forget_all_but(&world.snapshot);
            let known = evictions.known();
            known.values().flat_map(|of_node| of_node.keys().cloned()).collect::<Vec<_>>()
        };
        let pod = NodePod { uid: "p".into(), ..NodePod::default() };
        world.snapshot.drained_pods = [("n1".to_owned(), vec![Arc::new(pod)].into())].into();
        world.pass(1);
        assert_eq!(known(&world), ["p"], "nobody drains the other node");
        let before = evictions.known();
        assert!(known(&world) == ["p"] && before.is(&evictions.known()), "nothing is copied for nothing");
        world.snapshot.drained_pods.clear();
        world.pass(2);
        assert_eq!(known(&world), ["p"], "it may be there still");
        world.snapshot.drained_pods = [("n1".to_owned(), vec![].into())].into();
        world.pass(3);
        assert!(known(&world).is_empty());
    }

    /// The watch of the node's pods may be broken, and then nothing else tells that the pod has gone.
    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_an_eviction_is_news_to_the_planner() {
        let meta = json!({"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "6"});
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": meta}]});
        let client = Server::slowly(move |request| {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            (Duration::from_secs(if watches { 3600 } else { 0 }), 200, list.clone())
        });
        let observer = Observer::default();
        observer.watch_pods_of(&client, &["n1".to_owned()].into());
        let news = || tokio::time::timeout(Duration::from_secs(10), observer.changed());
        assert!(news().await.is_ok(), "it is listed");
        // More than one news of the list may have come.
        while news().await.is_ok() {}
        let evictions = Evictions::new(observer.clone(), Clock::set_to(at(0)));
        let target = Target { namespace: "ns".into(), name: "p".into(), uid: "u".into() };
        evictions.judge(&target, "n1", None, Ok(act::Eviction::Gone));
        assert!(news().await.is_err(), "it may be there still");
        evictions.judge(&target, "n1", None, Ok(act::Eviction::Needless(None)));
        assert!(news().await.is_ok());
    }

    /// A webhook holds each try on n1 for as long as it may, and fails then; n9 has one pod that nobody
    /// keeps.
    #[test]
    fn pods_whose_evictions_hang_keep_no_other_pod_from_being_tried() {
        let wanted = |node: &str, number: usize| Wanted {
            node: node.into(),
            pod: Target { namespace: "ns".into(), name: "p".into(), uid: format!("{node}-{number}") },
            grace_period_seconds: None,
        };
        let all: Vec<Wanted> = (0..100).map(|number| wanted("n1", number)).chain([wanted("n9", 0)]).collect();
        let (mut known, mut now) = (Known::default(), Timestamp::UNIX_EPOCH);
        let mut tried: BTreeSet<String> = BTreeSet::new();
        for pass in 0..7 {
            now += SignedDuration::from_secs(20);
            for Wanted { node, pod, .. } in in_turn(all.clone(), &known.tried).into_iter().take(AT_ONCE) {
                let last = Eviction { at: now, under_way: false, refusal: None };
                tried.insert(pod.uid.clone());
                known.of_node(&node).insert(pod.uid, last);
            }
            assert!(tried.contains("n9-0"), "pass {pass}: {tried:?}");
        }
        assert_eq!(tried.len(), all.len());
    }
}

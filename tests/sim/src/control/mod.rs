//! The controllers that every cluster has, driven by the store's log: nothing here polls.
//!
//! One task reads each change and lets every controller look at what it concerns. What must happen later (a
//! deadline, a back-off) is a timer that names the object to look at again.

mod gc;
mod job;
mod job_pods;
mod job_verdict;
mod namespace;
mod pdb;
mod schedule;
mod workload;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    meter::metered,
    server::{Shared, State},
    store::{Change, ChangeKind, Key},
};

/// Where controllers ask to look at an object again.
#[derive(Clone, Debug)]
pub struct Timers {
    due: mpsc::UnboundedSender<Key>,
    held: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Timers {
    /// Looks at the object again after a time.
    pub fn after(&self, delay: Duration, key: Key) {
        let due = self.due.clone();
        tokio::spawn(metered(async move {
            tokio::time::sleep(delay).await;
            // Nobody listens once the cluster is gone.
            let _ = due.send(key);
        }));
    }

    /// Holds something back for a time, and looks at the object again after it.
    pub fn hold(&self, what: &str, delay: Duration, key: Key) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what.to_owned(), Instant::now() + delay);
        self.after(delay, key);
    }

    /// Whether it is long enough ago that this was asked first about something; the object is looked at again
    /// when it is.
    pub fn passed(&self, what: &str, delay: Duration, key: &Key) -> bool {
        let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(what);
        if !known {
            self.hold(what, delay, key.clone());
        }
        !self.holds(what)
    }

    /// Whether something is held back.
    pub fn holds(&self, what: &str) -> bool {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(what)
            .is_some_and(|until| Instant::now() < *until)
    }
}

/// Runs all controllers until it is dropped.
pub async fn run(shared: Shared) {
    let (due, mut again) = mpsc::unbounded_channel();
    let timers = Timers { due, held: Arc::default() };
    let mut head = shared.lock().store.follow_all();
    let mut cursor = 0;
    loop {
        let changes = shared.lock().store.history(cursor);
        if let Some(last) = changes.last() {
            cursor = last.version;
            round(&shared, &changes, &timers);
            // Clients get their turn between rounds, as they would on a real cluster.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            changed = head.changed() => if changed.is_err() { return },
            Some(key) = again.recv() => look(&mut shared.lock(), &key, &timers),
        }
    }
}

/// One round: what a change means by itself is done at once; objects that several changes are about are
/// looked at once, after all of them, or a thousand pods of one owner would mean a thousand looks at all of
/// its pods.
fn round(shared: &Shared, changes: &[Arc<Change>], timers: &Timers) {
    let mut queue = BTreeSet::new();
    for change in changes {
        react(&mut shared.lock(), change, timers, &mut queue);
    }
    for key in queue {
        look(&mut shared.lock(), &key, timers);
    }
}

fn react(state: &mut State, change: &Arc<Change>, timers: &Timers, queue: &mut BTreeSet<Key>) {
    gc::react(state, change);
    namespace::react(state, change);
    schedule::react(state, change, timers);
    match change.key.table.as_ref() {
        "pods" => {
            queue.extend(job_pods::owner(state, change));
            queue.extend(workload::owner(change));
            queue.extend(pdb::budgets(state, change));
        }
        "nodes" if change.kind == ChangeKind::Modified => {}
        "nodes" => queue.extend(workload::daemon_sets(state)),
        _ => drop(queue.insert(change.key.clone())),
    }
}

fn look(state: &mut State, key: &Key, timers: &Timers) {
    match key.table.as_ref() {
        "jobs.batch" => job::look(state, key, timers),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" => {
            workload::look(state, key, timers)
        }
        "poddisruptionbudgets.policy" => pdb::compute(state, key),
        "nodes" => schedule::sweep(state, key),
        _ => {}
    }
}

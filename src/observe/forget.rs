//! Jobs and pods that have ended, of operations that are over: nothing is decided by them any more, and
//! nobody deletes the old ones, so they are not kept.

use std::collections::BTreeSet;

use super::{Caches, trim};
use crate::{
    api::owner::Owner,
    plan::model::{
        id::Key,
        snapshot::{FinishedOp, JobView, PodView, records},
    },
};

/// What changed since the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub ops: Vec<Key>,
    pub jobs: Vec<Key>,
    pub pods: Vec<Key>,
}

impl Caches {
    /// What snapshots do where plans are made, where none is: lists bring in many that are over, a replica may
    /// stand by for months, and all that has changed is remembered until it is shown.
    pub(super) fn keep_little(&mut self) {
        self.forget_upgraded();
        if self.stands_by() {
            self.show();
        }
    }

    /// Forgets what has ended of operations that are over. A Job that is still active, or a pod that still
    /// runs, is kept: it has to be ended.
    pub(super) fn forget_ended(&mut self, changed: Changed) {
        let forgotten = |key: &Key| {
            let whole = self.shown.ops.get(key).filter(|op| trim::is_forgotten(op));
            let recorded = || self.ops.finished().get(key).map(FinishedOp::uid);
            whole.and_then(|op| op.metadata.uid.clone()).or_else(recorded)
        };
        let over: Vec<String> = changed.ops.iter().filter_map(forgotten).collect();
        let of_ops = over
            .iter()
            .flat_map(|uid| self.shown.jobs.of_owner(uid))
            .map(|job| (job.namespace.clone(), job.name.clone()));
        let jobs: BTreeSet<Key> = of_ops
            .chain(changed.jobs)
            .filter(|key| self.shown.jobs.get(key).is_some_and(|job| self.is_job_forgotten(job)))
            .collect();
        let uids: Vec<String> =
            jobs.iter().filter_map(|key| Some(self.shown.jobs.get(key)?.uid.clone())).collect();
        for key in &jobs {
            self.shown.jobs.remove(key);
            if let Some(work) = self.work.get_mut(&key.0) {
                work.jobs.forget(key);
            }
        }
        let of_owners = over
            .iter()
            .chain(&uids)
            .flat_map(|uid| self.shown.pods.of_owner(uid))
            .map(|pod| (pod.namespace.clone(), pod.name.clone()));
        let pods: BTreeSet<Key> = of_owners
            .chain(changed.pods)
            .filter(|key| self.shown.pods.get(key).is_some_and(|pod| self.is_pod_forgotten(pod)))
            .collect();
        for key in &pods {
            self.shown.pods.remove(key);
            if let Some(work) = self.work.get_mut(&key.0) {
                work.pods.forget(key);
            }
        }
    }

    fn is_job_forgotten(&self, job: &JobView) -> bool {
        job.state.is_over() && self.is_over(&job.namespace, &job.owner)
    }

    /// One that a Job made is forgotten after that Job, unless the status of a NodeOp names it.
    fn is_pod_forgotten(&self, pod: &PodView) -> bool {
        if !pod.phase.is_final() {
            return false;
        }
        if !pod.owner.is_job() {
            return self.is_over(&pod.namespace, &pod.owner);
        }
        let job = self.shown.jobs.get(&(pod.namespace.clone(), pod.owner.name.clone()));
        job.is_none_or(|job| job.uid != pod.owner.uid)
            && !self.shown.ops.values().any(|op| records(op, &pod.owner, &pod.node))
    }

    /// Whether the owner is a NodeOp that is over, and of which its identity is kept.
    fn is_over(&self, namespace: &str, owner: &Owner) -> bool {
        let key = (namespace.to_owned(), owner.name.clone());
        let recorded = self.ops.finished().get(&key).is_some_and(|op| op.is(&owner.uid));
        let op = self.shown.ops.get(&key);
        recorded
            || op.is_some_and(|op| op.metadata.uid.as_ref() == Some(&owner.uid) && trim::is_forgotten(op))
    }
}

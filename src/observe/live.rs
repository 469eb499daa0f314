//! What live requests return, taken into the caches beside what the watches tell.

use tokio::time::Instant;

use super::{
    Caches, Observer,
    cache::{Version, WentBack},
    trim, view,
    watches::unselected::selects_work,
};
use crate::{
    api::{job::Job, node::Node, nodeop::NodeOp, pod::Pod, upgrade::NodeOpUpgrade},
    plan::model::{
        action::{Action, PlannedFrom},
        id::Key,
        snapshot::Role,
    },
};

/// An object that a live request returned, to be seen by the next plan.
#[derive(Clone, Debug)]
pub enum LiveObject {
    Op(Box<NodeOp>),
    Upgrade(Box<NodeOpUpgrade>),
    Node(Box<Node>),
    Job(Box<Job>),
    Pod(Box<Pod>),
    /// There is no Job of this UID under this name any more.
    NoJob(Key, String),
    /// There is no pod of this UID under this name any more.
    NoPod(Key, String),
    /// What was done is not all of it: the next plan goes on.
    Unfinished,
}

impl Observer {
    /// Makes an action write at the newest version of what it was planned from, if that says the same still.
    /// What has changed since keeps the version that was seen, and the API server refuses the write.
    pub fn bring_up_to_date(&self, action: &mut Action) {
        let caches = self.lock();
        let (seen, newest) = match action.planned_from() {
            Some(PlannedFrom::Node { name, resource_version: seen }) => {
                let key = (String::new(), name.to_owned());
                let newest = caches.nodes.version_of(&key, |node| node.resource_version == *seen);
                (seen, newest)
            }
            Some(PlannedFrom::Job { job, resource_version: seen }) => {
                let key = job.key();
                let work = caches.work.get(&key.0);
                let newest =
                    work.and_then(|work| work.jobs.version_of(&key, |job| job.resource_version == *seen));
                (seen, newest)
            }
            None => return,
        };
        if let Some(newest) = newest {
            *seen = newest.to_string();
        }
    }
}

impl Caches {
    /// Whether a live read that began then can be true of the store that these caches were filled from.
    pub(super) fn check(&self, seen: &LiveObject, began: Instant) -> Result<(), WentBack> {
        let work = |version: &Version| self.work.get(&version.key.0);
        match seen {
            LiveObject::Op(op) => self.ops.check(&view::version(&op.metadata), began),
            LiveObject::Upgrade(upgrade) => self.upgrades.check(&view::version(&upgrade.metadata), began),
            LiveObject::Node(node) => self.nodes.check(&view::version(&node.metadata), began),
            LiveObject::Job(job) => {
                let version = view::version(&job.metadata);
                work(&version).map_or(Ok(()), |work| work.jobs.check(&version, began))
            }
            LiveObject::Pod(pod) => {
                let version = view::version(&pod.metadata);
                self.facts_pods.check(&version, began)?;
                work(&version).map_or(Ok(()), |work| work.pods.check(&version, began))
            }
            LiveObject::NoJob(..) | LiveObject::NoPod(..) | LiveObject::Unfinished => Ok(()),
        }
    }

    /// Takes what a request returned; whether anything changed.
    pub(super) fn take(&mut self, seen: LiveObject) -> bool {
        match seen {
            LiveObject::Unfinished => true,
            LiveObject::NoJob(key, uid) => {
                self.work.get_mut(&key.0).is_some_and(|work| work.jobs.remove(&key, Some(&uid), None))
            }
            LiveObject::NoPod(key, uid) => {
                let ours =
                    self.work.get_mut(&key.0).is_some_and(|work| work.pods.remove(&key, Some(&uid), None));
                self.facts_pods.remove(&key, Some(&uid), None) || ours
            }
            LiveObject::Op(op) => self.ops.apply(view::version(&op.metadata), trim::nodeop(*op)),
            LiveObject::Upgrade(upgrade) => {
                self.upgrades.wrote(view::version(&upgrade.metadata), trim::upgrade(*upgrade))
            }
            LiveObject::Node(node) => {
                let version = view::version(&node.metadata);
                self.nodes.apply(version, view::node(*node))
            }
            // What no watch tells of would stay for ever.
            LiveObject::Job(job) => {
                let (version, view) = (view::version(&job.metadata), view::job(&job));
                let Some(work) = self.work.get_mut(&version.key.0) else { return false };
                if selects_work(&job.metadata) {
                    work.jobs.apply(version, view)
                } else {
                    work.jobs.found_unselected(version, view)
                }
            }
            LiveObject::Pod(pod) => {
                let (version, view) = (view::version(&pod.metadata), view::pod(&pod, &self.own));
                match self.work.get_mut(&version.key.0) {
                    _ if view.role == Role::Facts => self.facts_pods.apply(version, view),
                    // Somebody else's, under the name of one of ours, is passed by.
                    Some(work) if selects_work(&pod.metadata) || view.role == Role::Stranger => {
                        work.pods.apply(version, view)
                    }
                    Some(work) => work.pods.found_unselected(version, view),
                    // Somebody else's, under the name of a pod that was to read facts.
                    None if version.key.0 == self.own => self.facts_pods.apply(version, view),
                    None => false,
                }
            }
        }
    }
}

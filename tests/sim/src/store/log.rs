//! The changes of one table, and of that what is about one name or one node: hundreds watch one object each,
//! or the pods of one node, and are not to look at what all others do.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::Change;
use crate::{json::text, watch};

/// What a watch is about that is not about all of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Objects of this name.
    Name(String),
    /// Pods that are bound to this node.
    Node(String),
}

impl Topic {
    /// What a change is about.
    fn of(change: &Change) -> BTreeSet<Self> {
        let objects = [Some(&change.object), change.before.as_ref()];
        let pods = objects.into_iter().flatten().filter(|_| change.key.table.as_ref() == "pods");
        let nodes = pods.map(|pod| Self::Node(text(pod, "/spec/nodeName").to_owned()));
        nodes.chain([Self::Name(change.key.name.clone())]).collect()
    }
}

/// Changes in their order, as far as they are remembered.
#[derive(Debug)]
struct Log {
    changes: VecDeque<Arc<Change>>,
    /// The last change that is not remembered.
    forgotten: u64,
    head: watch::Sender<u64>,
}

impl Log {
    fn new(changes: VecDeque<Arc<Change>>, forgotten: u64) -> Self {
        Self { changes, forgotten, head: watch::channel(0).0 }
    }

    fn push(&mut self, change: &Arc<Change>) {
        self.changes.push_back(change.clone());
        self.head.send_replace(change.version);
    }

    fn forget(&mut self, oldest: u64) {
        if self.changes.front().is_some_and(|change| change.version <= oldest) {
            self.changes.pop_front();
            self.forgotten = oldest;
        }
    }

    fn since(&self, version: u64) -> Option<Vec<Arc<Change>>> {
        let from = self.changes.partition_point(|change| change.version <= version);
        (version >= self.forgotten).then(|| self.changes.range(from..).cloned().collect())
    }
}

/// The changes of one table.
#[derive(Debug)]
pub struct Logs {
    all: Log,
    topics: HashMap<Topic, Log>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { all: Log::new(VecDeque::new(), 0), topics: HashMap::new() }
    }
}

impl Logs {
    /// Adds a change, and tells those whom it concerns.
    pub fn push(&mut self, change: &Arc<Change>) {
        self.all.push(change);
        if !self.topics.is_empty() {
            let of = Topic::of(change);
            of.iter()
                .for_each(|topic| self.topics.get_mut(topic).into_iter().for_each(|log| log.push(change)));
        }
    }

    /// Forgets the oldest change.
    pub fn forget(&mut self, oldest: &Change) {
        self.all.forget(oldest.version);
        for topic in Topic::of(oldest) {
            let Some(log) = self.topics.get_mut(&topic) else { continue };
            log.forget(oldest.version);
            if log.changes.is_empty() && !log.head.is_followed() {
                self.topics.remove(&topic);
            }
        }
    }

    /// Tells of further changes, of all or of those that a topic is about.
    pub fn follow(&mut self, topic: Option<&Topic>) -> watch::Receiver<u64> {
        let Some(topic) = topic else { return self.all.head.subscribe() };
        if !self.topics.contains_key(topic) {
            let about = self.all.changes.iter().filter(|change| Topic::of(change).contains(topic));
            let log = Log::new(about.cloned().collect(), self.all.forgotten);
            self.topics.insert(topic.clone(), log);
        }
        self.topics.get(topic).unwrap_or(&self.all).head.subscribe()
    }

    /// Changes after a version; `None` if some of them are forgotten.
    pub fn since(&self, topic: Option<&Topic>, version: u64) -> Option<Vec<Arc<Change>>> {
        topic.and_then(|topic| self.topics.get(topic)).unwrap_or(&self.all).since(version)
    }

    /// All changes, the latest first.
    pub fn latest_first(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.all.changes.iter().rev()
    }
}

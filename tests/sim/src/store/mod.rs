//! All objects, and every change that was ever made to them, in the order of one integer.
//!
//! The resourceVersion counts changes of the whole store, as etcd's revision does. The log is what watches
//! read from, and what tests check their invariants on. It counts on when the store goes back
//! ([`Store::restore`]), and the resourceVersion does not: from then on the two differ.

mod found;
mod log;
mod restore;
pub mod selector;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

pub use self::log::Topic;
use self::{found::Found, log::Logs};
use crate::{auth::User, json, watch};
use hyper::body::Bytes;
use serde_json::Value;

/// A stored version of an object; versions are never changed, only replaced.
pub type Object = Arc<Value>;

/// Which object: its table is the plural name with the group, as in `jobs.batch`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Plural and group.
    pub table: Arc<str>,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(table: &str, namespace: &str, name: &str) -> Self {
        Self { table: table.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It has another version.
    Modified,
    /// It is gone; the change's object is the last version.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// Which change it is; the resourceVersion that it made, as long as the store has never gone back.
    pub version: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// Which object.
    pub key: Key,
    /// The object after the change; after a deletion its last version.
    pub object: Object,
    /// The object before the change.
    pub before: Option<Object>,
    /// When, since the cluster started.
    pub at: std::time::Duration,
    encoded: OnceLock<Bytes>,
}

impl Change {
    /// The object as JSON text, made once for all watches that send it.
    pub fn encoded(&self) -> Bytes {
        self.encoded.get_or_init(|| self.object.to_string().into()).clone()
    }
}

#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<(String, String), Object>,
    logs: Logs,
}

/// All tables.
#[derive(Debug)]
pub struct Store {
    version: u64,
    /// By how much the resourceVersion is behind the count of changes.
    back: u64,
    compacted: u64,
    /// Of that what somebody has asked for: then no watch goes on, also of what nothing was forgotten of.
    cut: u64,
    tables: BTreeMap<Arc<str>, Table>,
    log: VecDeque<Arc<Change>>,
    limit: usize,
    found: Found,
    head: watch::Sender<u64>,
    started: tokio::time::Instant,
}

impl Store {
    /// An empty store that remembers `limit` changes at least.
    pub fn new(limit: usize) -> Self {
        Self {
            version: 0,
            back: 0,
            compacted: 0,
            cut: 0,
            tables: BTreeMap::new(),
            log: VecDeque::new(),
            limit,
            found: Found::default(),
            head: watch::channel(0).0,
            started: tokio::time::Instant::now(),
        }
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The resourceVersion of the last change.
    pub fn revision(&self) -> u64 {
        self.version - self.back
    }

    /// The version that a client's resourceVersion means.
    pub fn version_of(&self, revision: u64) -> u64 {
        revision.saturating_add(self.back)
    }

    /// The version before which nothing can be watched any more.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The present version of an object.
    pub fn get(&self, key: &Key) -> Option<Object> {
        self.tables.get(&key.table)?.objects.get(&(key.namespace.clone(), key.name.clone())).cloned()
    }

    /// Objects of a table in the order of namespace and name, of one namespace if it is given.
    pub fn list<'a>(
        &'a self,
        table: &str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Object> + use<'a> {
        let from = (namespace.unwrap_or_default().to_owned(), String::new());
        let objects = self.tables.get(table).map(|t| &t.objects);
        objects
            .into_iter()
            .flat_map(move |o| o.range(from.clone()..))
            .take_while(move |((ns, _), _)| namespace.is_none_or(|wanted| wanted == ns))
            .map(|(_, object)| object)
    }

    /// Objects of a table as they were at a version that is remembered.
    pub fn list_at(&self, table: &str, namespace: Option<&str>, version: u64) -> Vec<Object> {
        let Some(table) = self.tables.get(table) else { return Vec::new() };
        let mut objects = table.objects.clone();
        for change in table.logs.latest_first().take_while(|change| change.version > version) {
            let key = (change.key.namespace.clone(), change.key.name.clone());
            match &change.before {
                Some(before) => objects.insert(key, before.clone()),
                None => objects.remove(&key),
            };
        }
        let wanted = |(at, _): &(String, String)| namespace.is_none_or(|namespace| namespace == at);
        objects.into_iter().filter(|(key, _)| wanted(key)).map(|(_, object)| object).collect()
    }

    /// Keys of the objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> Vec<Key> {
        self.found.owned_by(uid).cloned().collect()
    }

    /// Keys of the pods that are bound to a node; of those that wait for one, if it has no name.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Key> {
        self.found.on_node(node)
    }

    /// The pods that are bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = Object> {
        self.found.on_node(node).filter_map(|key| self.get(key))
    }

    /// Keys of the bindings that give a user a role, in all namespaces.
    pub fn bindings_of(&self, user: &User) -> Vec<Key> {
        self.found.bindings_of(user).into_iter().cloned().collect()
    }

    /// Stores a version of an object and returns it with its resourceVersion.
    pub fn put(&mut self, key: &Key, mut object: Value) -> Object {
        self.version += 1;
        json::set(&mut object, "/metadata/resourceVersion", self.revision().to_string());
        let object = Arc::new(object);
        let table = self.tables.entry(key.table.clone()).or_default();
        let before = table.objects.insert((key.namespace.clone(), key.name.clone()), object.clone());
        self.found.note(key, before.as_deref(), Some(&object));
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(key, kind, object.clone(), before);
        object
    }

    /// Removes an object and returns its last version.
    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        let table = self.tables.get_mut(&key.table)?;
        let before = table.objects.remove(&(key.namespace.clone(), key.name.clone()))?;
        self.version += 1;
        let mut last = (*before).clone();
        json::set(&mut last, "/metadata/resourceVersion", self.revision().to_string());
        let last = Arc::new(last);
        self.found.note(key, Some(&before), None);
        self.record(key, ChangeKind::Deleted, last.clone(), Some(before));
        Some(last)
    }

    /// Changes of one table after a version, of all or of those that a topic is about; `None` if some of them
    /// are forgotten.
    pub fn since(&self, table: &str, topic: Option<&Topic>, version: u64) -> Option<Vec<Arc<Change>>> {
        if version < self.cut {
            return None;
        }
        self.tables.get(table).map_or_else(|| Some(Vec::new()), |table| table.logs.since(topic, version))
    }

    /// Changes of all tables after a version, as far as they are remembered.
    pub fn history(&self, version: u64) -> Vec<Arc<Change>> {
        let from = self.log.partition_point(|change| change.version <= version);
        self.log.range(from..).cloned().collect()
    }

    /// Tells when a table changes, or that of it which a topic is about.
    pub fn follow(&mut self, table: &str, topic: Option<&Topic>) -> watch::Receiver<u64> {
        self.tables.entry(table.into()).or_default().logs.follow(topic)
    }

    /// Tells when any table changes.
    pub fn follow_all(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Forgets all changes so far, for watches: to resume one from before now gets 410.
    pub fn compact(&mut self) {
        (self.compacted, self.cut) = (self.version, self.version);
    }

    fn record(&mut self, key: &Key, kind: ChangeKind, object: Object, before: Option<Object>) {
        let change = Change {
            version: self.version,
            kind,
            key: key.clone(),
            object,
            before,
            at: self.started.elapsed(),
            encoded: OnceLock::new(),
        };
        let change = Arc::new(change);
        self.log.push_back(change.clone());
        self.trim();
        if let Some(table) = self.tables.get_mut(&key.table) {
            table.logs.push(&change);
        }
        self.head.send_replace(self.version);
    }

    fn trim(&mut self) {
        while self.log.len() > self.limit {
            let Some(oldest) = self.log.pop_front() else { return };
            self.compacted = self.compacted.max(oldest.version);
            if let Some(table) = self.tables.get_mut(&oldest.key.table) {
                table.logs.forget(&oldest);
            }
        }
    }
}

//! One kind of object in the API server, with all its past: a cache is an index into that past.

use std::{collections::BTreeMap, sync::Arc};

use kairos_operator::plan::model::id::Key;

pub type Map<T> = BTreeMap<Key, Arc<T>>;

#[derive(Debug)]
pub struct Store<T> {
    versions: Vec<Arc<Map<T>>>,
    /// The resourceVersion at which each version began.
    since: Vec<u64>,
    /// The newest version at the end of each tick.
    ticks: Vec<usize>,
}

impl<T: Clone> Store<T> {
    pub fn new() -> Self {
        Self { versions: vec![Arc::new(BTreeMap::new())], since: vec![0], ticks: vec![0] }
    }

    pub fn live(&self) -> &Map<T> {
        &self.versions[self.newest()]
    }

    pub fn newest(&self) -> usize {
        self.versions.len() - 1
    }

    pub fn at(&self, version: usize) -> &Map<T> {
        &self.versions[version]
    }

    pub fn since(&self, version: usize) -> u64 {
        self.since[version]
    }

    pub fn end_tick(&mut self) {
        self.ticks.push(self.versions.len() - 1);
    }

    /// The oldest version that a cache may still show which lags by at most `lag` ticks.
    pub fn oldest(&self, lag: usize) -> usize {
        self.ticks[self.ticks.len().saturating_sub(lag + 1)]
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.live().get(key).cloned()
    }

    pub fn put(&mut self, key: Key, object: T, rv: u64) {
        let mut map = Map::clone(self.live());
        map.insert(key, Arc::new(object));
        self.push(map, rv);
    }

    pub fn remove(&mut self, key: &Key, rv: u64) {
        let mut map = Map::clone(self.live());
        map.remove(key);
        self.push(map, rv);
    }

    fn push(&mut self, map: Map<T>, rv: u64) {
        self.versions.push(Arc::new(map));
        self.since.push(rv);
    }
}

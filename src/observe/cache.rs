//! A cache of views that only goes forward: fed by a watch, and by the answers to our own writes and live reads.
//!
//! Our own write's answer is in here at once, so the next plan is never made from a version older than our last write.
//! An older version that a lagging watch delivers later is passed over.

use std::{collections::BTreeMap, sync::Arc};

use crate::plan::snapshot::Key;

/// A view with the resourceVersion and the UID that it was parsed from.
#[derive(Clone, Debug)]
struct Entry<V> {
    view: Arc<V>,
    uid: String,
    /// As a number, which Kubernetes allows since 1.35 and etcd has always made true; `None` always yields to what is newer.
    version: Option<u64>,
}

/// What identifies one version of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub key: Key,
    pub uid: String,
    pub resource_version: String,
}

/// The views of one kind.
#[derive(Debug)]
pub struct Cache<V> {
    entries: BTreeMap<Key, Entry<V>>,
    /// The keys seen in a list that is still coming in.
    listing: Option<BTreeMap<Key, ()>>,
    ready: bool,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), listing: None, ready: false }
    }
}

impl<V> Cache<V> {
    /// Whether a first list has come in completely.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// A list begins.
    pub fn list_begins(&mut self) {
        self.listing = Some(BTreeMap::new());
    }

    /// An object of the list that is coming in.
    pub fn listed(&mut self, version: Version, view: V) {
        if let Some(listing) = &mut self.listing {
            listing.insert(version.key.clone(), ());
        }
        self.apply(version, view);
    }

    /// The list is complete: what it did not name is gone. (If the list was an old one, the planner asks before it
    /// relies on an absence, and finds the object again.)
    pub fn list_ends(&mut self) {
        if let Some(listing) = self.listing.take() {
            self.entries.retain(|key, _| listing.contains_key(key));
        }
        self.ready = true;
    }

    /// Takes a version, unless a newer one of the same object is here. Whether anything changed.
    pub fn apply(&mut self, version: Version, view: V) -> bool {
        let number = version.resource_version.parse().ok();
        if let Some(old) = self.entries.get(&version.key)
            && old.uid == version.uid
            && let (Some(old), Some(new)) = (old.version, number)
            && new <= old
        {
            return false;
        }
        self.entries.insert(version.key, Entry { view: Arc::new(view), uid: version.uid, version: number });
        true
    }

    /// The object is gone; a later one of the same name is not meant.
    pub fn remove(&mut self, key: &Key, uid: Option<&str>) {
        if uid.is_none_or(|uid| self.entries.get(key).is_some_and(|entry| entry.uid == uid)) {
            self.entries.remove(key);
        }
    }

    /// All views.
    pub fn views(&self) -> BTreeMap<Key, Arc<V>> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.view.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(uid: &str, resource_version: &str) -> Version {
        Version { key: ("ns".into(), "a".into()), uid: uid.into(), resource_version: resource_version.into() }
    }

    fn value(cache: &Cache<i32>) -> Option<i32> {
        cache.views().values().next().map(|view| **view)
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let mut cache = Cache::default();
        assert!(cache.apply(version("u", "10"), 10));
        assert!(!cache.apply(version("u", "9"), 9), "a lagging watch");
        assert!(!cache.apply(version("u", "10"), 11), "the same version again");
        assert!(cache.apply(version("u", "100"), 100), "compared as numbers, not as text");
        assert_eq!(value(&cache), Some(100));
    }

    #[test]
    fn an_object_made_again_replaces_the_old_one_and_survives_its_deletion() {
        let mut cache = Cache::default();
        cache.apply(version("u1", "10"), 1);
        cache.apply(version("u2", "12"), 2);
        cache.remove(&("ns".into(), "a".into()), Some("u1"));
        assert_eq!(value(&cache), Some(2));
    }

    #[test]
    fn a_relist_drops_what_it_does_not_name_and_keeps_what_is_newer() {
        let mut cache = Cache::default();
        cache.apply(version("u", "10"), 10);
        cache.apply(Version { key: ("ns".into(), "b".into()), uid: "v".into(), resource_version: "11".into() }, 11);
        cache.list_begins();
        cache.listed(version("u", "5"), 5);
        assert!(!cache.ready());
        cache.list_ends();
        assert!(cache.ready());
        assert_eq!(cache.views().len(), 1);
        assert_eq!(value(&cache), Some(10));
    }
}

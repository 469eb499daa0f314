//! A cache of views that only goes forward: fed by a watch, and by the answers to our own writes and live
//! reads.
//!
//! Our own write's answer is in here at once, so the next plan is never made from a version older than our
//! last write. An older version that a lagging watch delivers later is passed over, and so is the late answer
//! to a write of an object that the watch has seen go since: nothing would ever take such a ghost away again.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use tokio::time::Instant;

use crate::plan::model::id::Key;

/// A view with the resourceVersion and the UID that it was parsed from.
#[derive(Clone, Debug)]
struct Entry<V> {
    view: Arc<V>,
    uid: String,
    /// As a number, which Kubernetes allows since 1.35 and etcd has always made true; `None` always yields to
    /// what is newer.
    version: Option<u64>,
    /// When it came in here.
    taken: Instant,
}

/// What is kept of an object.
pub trait Observed {
    /// Whether a plan made from the one is the plan made from the other: heartbeats and lists of images bring
    /// new versions all the time, and nothing new.
    fn says_the_same(&self, other: &Self) -> bool;
}

/// What identifies one version of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub key: Key,
    pub uid: String,
    pub resource_version: String,
}

/// How many deletions are remembered. An answer is late by seconds, not by thousands of deletions.
const MAX_TOMBSTONES: usize = 4096;

/// The views of one kind.
#[derive(Debug)]
pub struct Cache<V> {
    entries: BTreeMap<Key, Entry<V>>,
    /// The version of each object that has gone, at its end as far as we know it.
    tombstones: BTreeMap<Key, u64>,
    /// When the list that is still coming in was asked for, and the keys seen in it.
    listing: Option<(Instant, BTreeSet<Key>)>,
    ready: bool,
    /// The watch that fills it; an earlier one that has not ended yet does not count any more.
    watch: u64,
    /// What has changed since it was last shown in a snapshot.
    changed: BTreeSet<Key>,
}

/// The store has lost what it had: a read that cannot be late shows an object as it was before. A backup was
/// restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBack {
    pub had: u64,
    pub has: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        let (entries, tombstones, changed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { entries, tombstones, listing: None, ready: false, watch: 0, changed }
    }
}

impl<V> Cache<V> {
    /// Whether a first list has come in completely.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// From here on this watch fills it, and no other.
    pub fn fill_by(&mut self, watch: u64) {
        self.watch = watch;
    }

    /// Whether it is this watch that fills it.
    pub fn is_filled_by(&self, watch: u64) -> bool {
        self.watch == watch
    }

    /// A list is about to be asked for.
    pub fn list_begins(&mut self) {
        self.listing = Some((Instant::now(), BTreeSet::new()));
    }

    /// An object of the list that is coming in. Whether anything changed.
    pub fn listed(&mut self, version: Version, view: V) -> Result<bool, WentBack>
    where
        V: Observed,
    {
        if let Some((began, listing)) = &mut self.listing {
            let began = *began;
            listing.insert(version.key.clone());
            self.check(&version, began)?;
        }
        Ok(self.apply(version, view))
    }

    /// Whether the store is one that can have what is here. A live read (no resourceVersion asked for: from a
    /// majority of etcd) of an object that was here before the read began, in a newer version, under the same
    /// UID, proves that it is not.
    pub fn check(&self, version: &Version, began: Instant) -> Result<(), WentBack> {
        let here =
            self.entries.get(&version.key).filter(|entry| entry.uid == version.uid && entry.taken < began);
        match (here.and_then(|entry| entry.version), version.resource_version.parse().ok()) {
            (Some(had), Some(has)) if has < had => Err(WentBack { had, has }),
            _ => Ok(()),
        }
    }

    /// Whether this version is here, or a later one, or the end of the object.
    pub fn has(&self, version: &Version) -> bool {
        let here = self.entries.get(&version.key).and_then(|entry| entry.version);
        let newest = here.max(self.tombstones.get(&version.key).copied());
        newest.zip(version.resource_version.parse::<u64>().ok()).is_some_and(|(newest, told)| told <= newest)
    }

    /// The newest version of all that is here.
    pub fn newest(&self) -> Option<u64> {
        self.entries.values().filter_map(|entry| entry.version).max()
    }

    /// The list is complete: what it did not name is gone. (If the list was an old one, the planner asks
    /// before it relies on an absence, and finds the object again.)
    pub fn list_ends(&mut self) {
        if let Some((_, listing)) = self.listing.take() {
            // No tomb: a list older than our own write does not name what that write made, and the watch
            // still has to show it.
            let gone = self.entries.keys().filter(|key| !listing.contains(*key));
            self.changed.extend(gone.cloned());
            self.entries.retain(|key, _| listing.contains(key));
        }
        self.ready = true;
    }

    /// Takes a version, unless a newer one of the name is here or has gone. Whether anything changed that a
    /// plan can depend on.
    pub fn apply(&mut self, version: Version, view: V) -> bool
    where
        V: Observed,
    {
        let number = version.resource_version.parse().ok();
        let here = self.entries.get(&version.key).and_then(|entry| entry.version);
        let newest = here.max(self.tombstones.get(&version.key).copied());
        if let (Some(newest), Some(number)) = (newest, number)
            && number <= newest
        {
            return false;
        }
        self.tombstones.remove(&version.key);
        let here = self.entries.get(&version.key).filter(|entry| entry.uid == version.uid);
        let same = here.is_some_and(|entry| entry.view.says_the_same(&view));
        self.changed.insert(version.key.clone());
        self.entries.insert(
            version.key,
            Entry { view: Arc::new(view), uid: version.uid, version: number, taken: Instant::now() },
        );
        !same
    }

    /// The object is gone; a later one of the same name is not meant. `last` is the resourceVersion of its
    /// end, if known. Whether it was here.
    pub fn remove(&mut self, key: &Key, uid: Option<&str>, last: Option<&str>) -> bool {
        let same = self.entries.get(key).is_some_and(|entry| uid.is_none_or(|uid| entry.uid == uid));
        let removed = if same { self.entries.remove(key) } else { None };
        if removed.is_some() {
            self.changed.insert(key.clone());
        }
        if self.entries.contains_key(key) {
            return false;
        }
        let there = removed.is_some();
        let last = last.and_then(|last| last.parse().ok());
        if let Some(last) = last.max(removed.and_then(|entry| entry.version)) {
            let tomb = self.tombstones.entry(key.clone()).or_default();
            *tomb = last.max(*tomb);
        }
        if self.tombstones.len() > MAX_TOMBSTONES
            && let Some(oldest) =
                self.tombstones.iter().min_by_key(|(_, version)| **version).map(|(key, _)| key.clone())
        {
            self.tombstones.remove(&oldest);
        }
        there
    }

    /// The view under this name.
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|entry| entry.view.as_ref())
    }

    /// Keeps this of an object, in the version that is here, instead of its view.
    pub fn replace(&mut self, key: &Key, view: V) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.view = Arc::new(view);
            self.changed.insert(key.clone());
        }
    }

    /// Does not keep an object any more that is still there. A later version of it comes in again.
    pub fn forget(&mut self, key: &Key) {
        self.entries.remove(key);
        self.changed.remove(key);
    }

    /// The views of what [`Self::changes`] is going to tell.
    pub fn changed(&self) -> impl Iterator<Item = &V> {
        self.changed.iter().filter_map(|key| self.get(key))
    }

    /// What has changed since this was called last, and what it is now; nothing for what has gone.
    pub fn changes(&mut self) -> impl Iterator<Item = (Key, Option<Arc<V>>)> {
        let changed = mem::take(&mut self.changed);
        changed.into_iter().map(|key| {
            let view = self.entries.get(&key).map(|entry| entry.view.clone());
            (key, view)
        })
    }

    /// All views.
    pub fn views(&self) -> impl Iterator<Item = &Arc<V>> {
        self.entries.values().map(|entry| &entry.view)
    }

    /// All views.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.entries.iter().map(|(key, entry)| (key, entry.view.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Observed for i32 {
        fn says_the_same(&self, other: &Self) -> bool {
            self == other
        }
    }

    #[test]
    fn a_version_that_says_nothing_new_is_shown_and_wakes_nobody() {
        let mut cache = Cache::default();
        assert!(cache.apply(version("u", "10"), 1));
        assert_eq!(cache.changes().count(), 1);
        assert!(!cache.apply(version("u", "11"), 1), "a heartbeat");
        assert_eq!(cache.changes().count(), 1, "a patch needs its version all the same");
        assert!(cache.apply(version("v", "12"), 1), "another object of that name");
        cache.remove(&("ns".into(), "a".into()), None, None);
        assert_eq!(cache.changes().collect::<Vec<_>>(), [(("ns".into(), "a".into()), None)]);
        assert_eq!(cache.changes().count(), 0);
    }

    fn version(uid: &str, resource_version: &str) -> Version {
        Version { key: ("ns".into(), "a".into()), uid: uid.into(), resource_version: resource_version.into() }
    }

    fn value(cache: &Cache<i32>) -> Option<i32> {
        cache.views().next().map(|view| **view)
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
        cache.remove(&("ns".into(), "a".into()), Some("u1"), Some("11"));
        assert_eq!(value(&cache), Some(2));
        cache.apply(version("u1", "11"), 1);
        assert_eq!(value(&cache), Some(2), "a late answer about the old one");
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_has_gone() {
        let key: Key = ("ns".into(), "a".into());
        for (uid, last) in [(Some("u"), Some("15")), (None, None)] {
            let mut cache = Cache::default();
            cache.apply(version("u", "10"), 10);
            cache.remove(&key, uid, last);
            assert!(!cache.apply(version("u", "10"), 10), "{last:?}");
            assert_eq!(
                cache.apply(version("u", "12"), 12),
                last.is_none(),
                "only what is known to have ended stays away"
            );
            assert!(cache.apply(version("v", "20"), 20), "one made again is another matter");
        }
        let mut cache = Cache::default();
        cache.remove(&key, Some("u"), Some("15"));
        assert!(!cache.apply(version("u", "14"), 14), "the end was seen before the object");
    }

    #[test]
    fn what_an_old_list_does_not_name_yet_comes_back_with_the_watch() {
        let mut cache = Cache::default();
        cache.apply(version("u", "10"), 10);
        cache.list_begins();
        cache.list_ends();
        assert_eq!(value(&cache), None);
        assert!(cache.apply(version("u", "10"), 10), "made by us after the list was taken");
    }

    #[test]
    fn deletions_are_remembered_up_to_a_number() {
        let mut cache = Cache::<i32>::default();
        for i in 0..MAX_TOMBSTONES + 10 {
            cache.remove(&("ns".into(), format!("p{i}")), None, Some(&i.to_string()));
        }
        assert_eq!(cache.tombstones.len(), MAX_TOMBSTONES);
        assert!(
            cache.tombstones.contains_key(&("ns".into(), format!("p{}", MAX_TOMBSTONES + 9))),
            "the newest are kept"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_relist_drops_what_it_does_not_name_and_keeps_what_came_in_meanwhile() {
        let mut cache = Cache::default();
        cache.apply(version("u", "10"), 10);
        cache.apply(
            Version { key: ("ns".into(), "b".into()), uid: "v".into(), resource_version: "11".into() },
            11,
        );
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        cache.list_begins();
        cache.apply(version("u", "12"), 12);
        assert_eq!(cache.listed(version("u", "10"), 10), Ok(false), "the list was read before our own write");
        assert!(!cache.ready());
        cache.list_ends();
        assert!(cache.ready());
        assert_eq!(cache.views().count(), 1);
        assert_eq!(value(&cache), Some(12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_is_older_than_what_was_here_before_it_began_shows_a_restored_store() {
        let mut cache = Cache::default();
        let early = Instant::now();
        cache.apply(version("u", "700"), 1);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let began = Instant::now();
        assert_eq!(cache.check(&version("u", "600"), began), Err(WentBack { had: 700, has: 600 }));
        assert_eq!(cache.check(&version("u", "600"), early), Ok(()), "its answer was merely slow");
        assert_eq!(cache.check(&version("v", "600"), began), Ok(()), "another object of that name");
        assert_eq!(cache.check(&version("u", "700"), began), Ok(()));
        cache.list_begins();
        assert_eq!(cache.listed(version("u", "600"), 2), Err(WentBack { had: 700, has: 600 }));
        assert_eq!((cache.newest(), Cache::<i32>::default().newest()), (Some(700), None));
    }
}

//! A cache of views that only goes forward: fed by a watch, and by the answers to our own writes and live
//! reads.
//!
//! Our own write's answer is in here at once, so the next plan is never made from a version older than our
//! last write. An older version that a lagging watch delivers later is passed over, and so is the late answer
//! to a write of an object that the watch has seen go since: nothing would ever take such a ghost away again.

mod broken;
mod unselected;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use tokio::time::Instant;

use self::broken::Broken;
use crate::plan::model::{
    id::Key,
    snapshot::{FinishedOp, FinishedOps},
};

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
    /// Whether what is planned from a view is written at the version that stands in it. Then each version has
    /// to be shown. Otherwise what is written is brought up to date just before, see
    /// [`Observer::bring_up_to_date`](super::Observer::bring_up_to_date).
    const IS_WRITTEN_AS_SHOWN: bool = false;

    /// Whether a plan made from the one is the plan made from the other: heartbeats and lists of images bring
    /// new versions all the time, and nothing new.
    fn says_the_same(&self, other: &Self) -> bool;

    /// The record that is kept instead of it, if that says as much.
    fn record(&self) -> Option<FinishedOp> {
        None
    }
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
    /// Those of which a record is kept. A name is in one of the two.
    finished: FinishedOps,
    /// When the last of them came in, and so when each of them was here.
    finished_at: Option<Instant>,
    /// The last version that each object that has gone can have had, as far as we know.
    tombstones: BTreeMap<Key, u64>,
    /// What the watch does not tell of, see [`unselected`].
    unselected: BTreeSet<Key>,
    /// When the list that is still coming in was asked for, and the keys seen in it.
    listing: Option<(Instant, BTreeSet<Key>)>,
    ready: bool,
    /// What keeps it from being filled, since the last list or event that came in.
    broken: Option<Broken>,
    /// A watch that fails for a while is followed by a list. Nobody else sees what it would have told.
    lists_anew: bool,
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
        Self {
            entries: BTreeMap::new(),
            finished: FinishedOps::default(),
            finished_at: None,
            tombstones: BTreeMap::new(),
            unselected: BTreeSet::new(),
            listing: None,
            ready: false,
            broken: None,
            lists_anew: false,
            watch: 0,
            changed: BTreeSet::new(),
        }
    }
}

impl<V> Cache<V> {
    /// One that is listed anew once its watch has failed for a while: then it is known when it is up to date.
    pub fn listed_anew() -> Self {
        Self { lists_anew: true, ..Self::default() }
    }

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
        let entry = self.entries.get(&version.key).filter(|entry| entry.taken < began);
        let here = entry.filter(|entry| entry.uid == version.uid).and_then(|entry| entry.version);
        let recorded = self.finished.get(&version.key).filter(|record| record.is(&version.uid));
        let recorded = recorded.filter(|_| self.finished_at.is_some_and(|at| at < began));
        match (here.max(recorded.map(FinishedOp::version)), version.resource_version.parse().ok()) {
            (Some(had), Some(has)) if has < had => Err(WentBack { had, has }),
            _ => Ok(()),
        }
    }

    /// Whether this version is here, or a later one, or the end of the object.
    pub fn has(&self, version: &Version) -> bool {
        let newest = self.newest_of(&version.key);
        newest.zip(version.resource_version.parse::<u64>().ok()).is_some_and(|(newest, told)| told <= newest)
    }

    /// The newest version of a name that was here, or that it had at its end.
    fn newest_of(&self, key: &Key) -> Option<u64> {
        self.kept_version(key).max(self.tombstones.get(key).copied())
    }

    /// The version that is here.
    fn kept_version(&self, key: &Key) -> Option<u64> {
        let here = self.entries.get(key).and_then(|entry| entry.version);
        here.max(self.finished.get(key).map(FinishedOp::version))
    }

    /// The newest version of all that is here.
    pub fn newest(&self) -> Option<u64> {
        let whole = self.entries.values().filter_map(|entry| entry.version);
        whole.chain(self.finished.iter().map(FinishedOp::version)).max()
    }

    /// The list is complete: what it did not name is gone. (If the list was an old one, the planner asks
    /// before it relies on an absence, and finds the object again.)
    pub fn list_ends(&mut self) {
        if let Some((_, listing)) = self.listing.take() {
            // No tomb: a list older than our own write does not name what that write made, and the watch
            // still has to show it.
            let recorded = self.finished.iter().map(FinishedOp::key);
            let gone = self.entries.keys().cloned().chain(recorded).filter(|key| !listing.contains(key));
            let gone = gone.filter(|key| !self.unselected.contains(key));
            for key in gone.collect::<Vec<_>>() {
                self.entries.remove(&key);
                self.finished.remove(&key);
                self.changed.insert(key);
            }
        }
        (self.ready, self.broken) = (true, None);
    }

    /// Takes a version, unless a newer one of the name is here or has gone. Whether anything changed that a
    /// plan can depend on.
    pub fn apply(&mut self, version: Version, view: V) -> bool
    where
        V: Observed,
    {
        let number = version.resource_version.parse().ok();
        if self.newest_of(&version.key).zip(number).is_some_and(|(newest, number)| number <= newest) {
            return false;
        }
        self.tombstones.remove(&version.key);
        self.unselected.remove(&version.key);
        let now = Instant::now();
        let here = self.entries.get_mut(&version.key).filter(|entry| entry.uid == version.uid);
        let here = here.filter(|entry| entry.view.says_the_same(&view));
        let same = here.is_some();
        // A heartbeat: the view that is here stays, and whatever shows it need not look at it again.
        if let Some(entry) = here.filter(|_| !V::IS_WRITTEN_AS_SHOWN && number.is_some()) {
            (entry.version, entry.taken) = (number, now);
            return false;
        }
        let record = view.record();
        let recorded = self.finished.get(&version.key).zip(record.as_ref());
        let same = same || recorded.is_some_and(|(had, has)| had.says_the_same(has));
        self.changed.insert(version.key.clone());
        if let Some(record) = record {
            self.entries.remove(&version.key);
            self.finished.insert(record);
            self.finished_at = Some(now);
        } else {
            self.finished.remove(&version.key);
            let entry = Entry { view: Arc::new(view), uid: version.uid, version: number, taken: now };
            self.entries.insert(version.key, entry);
        }
        !same
    }

    /// Takes the answer to a write of ours. A watch may have told of that version before. It has told the
    /// same then, but shares nothing with what the write was planned from: what is here is kept as we wrote
    /// it.
    pub fn wrote(&mut self, version: Version, view: V) -> bool
    where
        V: Observed,
    {
        let number: Option<u64> = version.resource_version.parse().ok();
        let here = self.entries.get(&version.key).filter(|entry| entry.uid == version.uid);
        let told = here.filter(|entry| number.is_some() && entry.version == number);
        if told.is_some_and(|entry| entry.view.says_the_same(&view)) {
            self.replace(&version.key, view);
            return false;
        }
        self.apply(version, view)
    }

    /// The object is gone; a later one of the same name is not meant. `last` is the resourceVersion of its
    /// end, if known. Whether it was here. One that was read in that very version is not selected any more,
    /// and is there.
    pub fn remove(&mut self, key: &Key, uid: Option<&str>, last: Option<&str>) -> bool {
        let last: Option<u64> = last.and_then(|last| last.parse().ok());
        if last.is_some() && self.unselected.contains(key) && self.kept_version(key) >= last {
            return false;
        }
        let whole = self.entries.get(key).is_some_and(|entry| uid.is_none_or(|uid| entry.uid == uid));
        let recorded = self.finished.get(key).is_some_and(|record| uid.is_none_or(|uid| record.is(uid)));
        let there = whole || recorded;
        if !there && self.contains(key) {
            return false;
        }
        self.unselected.remove(key);
        let entry = self.entries.remove(key).and_then(|entry| entry.version);
        let removed = self.finished.remove(key).map(|record| record.version()).max(entry);
        if there {
            self.changed.insert(key.clone());
        }
        // Nobody can have read an object in the version of its deletion. One that is read in that version is
        // there, and no longer selected.
        if let Some(last) = last.and_then(|last| last.checked_sub(1)).max(removed) {
            let tomb = self.tombstones.entry(key.clone()).or_default();
            *tomb = last.max(*tomb);
        }
        if self.tombstones.len() > MAX_TOMBSTONES {
            // Half of them at once: else each deletion that follows would look at all to find the oldest.
            let mut versions: Vec<u64> = self.tombstones.values().copied().collect();
            versions.sort_unstable();
            let middle = versions.get(versions.len() / 2).copied().unwrap_or(0);
            self.tombstones.retain(|_, version| *version >= middle);
        }
        there
    }

    /// Whether anything is kept under this name.
    pub fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key) || self.finished.get(key).is_some()
    }

    /// Those of which a record is kept. Whatever gives views leaves them out.
    pub const fn finished(&self) -> &FinishedOps {
        &self.finished
    }

    /// The view under this name.
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|entry| entry.view.as_ref())
    }

    /// The version that is here of an object whose view is still the one that is meant.
    pub fn version_of(&self, key: &Key, is_meant: impl FnOnce(&V) -> bool) -> Option<u64> {
        self.entries.get(key).filter(|entry| is_meant(&entry.view))?.version
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
        self.unselected.remove(key);
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

    /// All views, with the keys of their objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.entries.iter().map(|(key, entry)| (key, entry.view.as_ref()))
    }
}

#[cfg(test)]
mod tests;

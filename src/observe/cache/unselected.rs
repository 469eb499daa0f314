//! Objects that a live read found, and that the watch does not tell of: somebody took away the label by which
//! it selects.
//!
//! Whoever may edit an object may take our label off it, and a cleaning policy does so to many. The watch says
//! that the object is deleted, in the version of that very change, and nothing of it from then on. A live
//! read, or the answer to a write of ours, shows it still. What they showed counts for the plan that asked and
//! for the next ones of some seconds, and no longer: later ones ask again, since nothing would ever take it
//! away here.

use std::{sync::Arc, time::Duration};

use super::{Cache, Observed, Version};

/// How long it counts: until whoever was told of a change has planned.
const COUNTS_FOR: Duration = Duration::from_secs(5);

impl<V: Observed> Cache<V> {
    /// Takes an object that was found so. Whether a plan has not seen it as it is now.
    pub fn found_unselected(&mut self, version: Version, view: V) -> bool {
        let key = version.key.clone();
        let before = self.unselected.get(&key).cloned();
        self.apply(version, view);
        let Some(entry) = self.entries.get(&key) else { return false };
        let news = before.is_none_or(|before| !before.says_the_same(&entry.view));
        self.unselected.insert(key, entry.view.clone());
        news
    }

    /// Those that are here.
    pub fn unselected(&self) -> impl Iterator<Item = &Arc<V>> {
        self.unselected.keys().filter_map(|key| self.entries.get(key)).map(|entry| &entry.view)
    }

    /// A plan begins, and has asked nothing yet.
    pub fn forget_unselected(&mut self) {
        let Self { unselected, entries, changed, .. } = self;
        for key in unselected.keys() {
            if entries.get(key).is_some_and(|entry| entry.taken.elapsed() > COUNTS_FOR) {
                entries.remove(key);
                changed.insert(key.clone());
            }
        }
    }
}

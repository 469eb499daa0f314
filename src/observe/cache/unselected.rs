//! Objects that the watch does not tell of, because somebody took away the label by which it selects: they
//! are kept as they were read last, and read again and again, until they have the label again, or are gone.

use super::{Cache, Observed, Version};
use crate::plan::model::id::Key;

impl<V: Observed> Cache<V> {
    /// Takes an object that was read and is not selected. Whether anything changed that a plan can depend on.
    pub fn found_unselected(&mut self, version: Version, view: V) -> bool {
        let (key, number) = (version.key.clone(), version.resource_version.parse().ok());
        let is_new = !self.unselected.contains(&key);
        let changed = self.apply(version, view);
        // A newer version is here, by the watch perhaps, or it has gone.
        if self.kept_version(&key) != number {
            return false;
        }
        self.unselected.insert(key);
        changed || is_new
    }

    /// Their names, and the versions that are here.
    pub fn unselected(&self) -> impl Iterator<Item = (&Key, Option<u64>)> {
        self.unselected.iter().map(|key| (key, self.kept_version(key)))
    }
}

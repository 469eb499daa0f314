//! Views of one kind, shared between the snapshots that show them.
//!
//! A snapshot is made for each plan, and most of what it shows is what the one before showed. So what holds
//! the views is shared, too: a clone costs nothing, and a change copies only while somebody still looks at
//! the state before it.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Something that shows views by their keys.
pub trait Shows<K, V> {
    /// Shows this under the key, or nothing any more.
    fn show(&mut self, key: K, view: Option<Arc<V>>);
}

/// Views by key.
#[derive(Clone, Debug, PartialEq)]
pub struct Table<K, V>(Arc<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Table<K, V> {
    /// Whether both are one and the same: nothing has changed in between.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K, V> Deref for Table<K, V> {
    type Target = BTreeMap<K, Arc<V>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Clone, V> DerefMut for Table<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<K: Ord + Clone, V> Shows<K, V> for Table<K, V> {
    fn show(&mut self, key: K, view: Option<Arc<V>>) {
        match view {
            Some(view) => drop(self.insert(key, view)),
            None => drop(self.remove(&key)),
        }
    }
}

impl<K: Ord, V> FromIterator<(K, Arc<V>)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, Arc<V>)>>(views: I) -> Self {
        Self(Arc::new(views.into_iter().collect()))
    }
}

impl<K: Ord, V, const N: usize> From<[(K, Arc<V>); N]> for Table<K, V> {
    fn from(views: [(K, Arc<V>); N]) -> Self {
        views.into_iter().collect()
    }
}

impl<K, V> From<BTreeMap<K, Arc<V>>> for Table<K, V> {
    fn from(views: BTreeMap<K, Arc<V>>) -> Self {
        Self(Arc::new(views))
    }
}

impl<'a, K, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a Arc<V>);
    type IntoIter = std::collections::btree_map::Iter<'a, K, Arc<V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

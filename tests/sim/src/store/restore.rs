//! A store that goes back, as after a restore of etcd from a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use super::{ChangeKind, Key, Object, Store};

impl Store {
    /// Brings all objects back to what they were after a change, with the resourceVersions that they had. The
    /// next resourceVersions are given a second time. What was not remembered, or came before an earlier
    /// restore, cannot be had back.
    pub fn restore(&mut self, version: u64) {
        let revision = version.saturating_sub(self.back);
        let (then, now) = (self.past(version), self.past(u64::MAX));
        let gone = now.keys().filter(|key| !then.contains_key(*key)).map(|key| (key.clone(), None));
        let back = then
            .iter()
            .filter(|(key, object)| now.get(*key) != Some(*object))
            .map(|(key, object)| (key.clone(), Some(object.clone())));
        for (key, object) in gone.chain(back).collect::<Vec<_>>() {
            self.swap(&key, object);
        }
        self.back = self.version - revision;
        self.compact();
    }

    /// All objects as they were after a change.
    fn past(&self, version: u64) -> BTreeMap<Key, Object> {
        let mut objects = BTreeMap::new();
        for change in self.log.iter().take_while(|change| change.version <= version) {
            match change.kind {
                ChangeKind::Deleted => drop(objects.remove(&change.key)),
                ChangeKind::Added | ChangeKind::Modified => {
                    drop(objects.insert(change.key.clone(), change.object.clone()))
                }
            }
        }
        objects
    }

    /// Puts a version of an object in its place, or takes the object away, without a new resourceVersion.
    fn swap(&mut self, key: &Key, object: Option<Object>) {
        let place = (key.namespace.clone(), key.name.clone());
        let table = self.tables.entry(key.table.clone()).or_default();
        let before = match &object {
            Some(object) => table.objects.insert(place, object.clone()),
            None => table.objects.remove(&place),
        };
        self.version += 1;
        self.found.note(key, before.as_deref(), object.as_deref());
        let kind = match (&before, &object) {
            (Some(_), Some(_)) => ChangeKind::Modified,
            (_, None) => ChangeKind::Deleted,
            (None, Some(_)) => ChangeKind::Added,
        };
        let last = object.or_else(|| before.clone()).unwrap_or_else(|| Arc::new(serde_json::Value::Null));
        self.record(key, kind, last, before);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json::text;

    #[test]
    fn a_store_that_went_back_gives_its_versions_a_second_time() {
        let mut store = Store::new(usize::MAX);
        let key = |name: &str| Key::new("things", "ns", name);
        let thing = |value: u64| json!({"metadata": {}, "value": value});
        store.put(&key("a"), thing(1));
        let then = store.version();
        store.put(&key("a"), thing(2));
        store.put(&key("b"), thing(3));
        store.restore(then);
        assert_eq!((store.revision(), store.get(&key("b"))), (then, None));
        let a = store.get(&key("a")).unwrap();
        assert_eq!((&a["value"], text(&a, "/metadata/resourceVersion")), (&json!(1), "1"));
        let again = store.put(&key("a"), thing(4));
        assert_eq!(text(&again, "/metadata/resourceVersion"), "2", "for the second time");
        let since = |version| store.since("things", None, version);
        assert!(since(store.version_of(1)).is_some() && since(1).is_none());
    }
}

//! Namespaces take their contents with them.

use serde_json::json;

use crate::{
    json::{set, text},
    server::{State, delete},
    store::{Change, ChangeKind, Key},
};

/// Looks at a namespace that is being deleted, or at one whose last object may have gone.
pub fn react(state: &mut State, change: &Change) {
    let name = match (change.key.table.as_ref(), change.kind) {
        ("namespaces", ChangeKind::Added | ChangeKind::Modified) => change.key.name.as_str(),
        ("namespaces", ChangeKind::Deleted) => return,
        (_, ChangeKind::Deleted) if !change.key.namespace.is_empty() => change.key.namespace.as_str(),
        _ => return,
    };
    let key = Key::new("namespaces", "", name);
    let leaving = state.store.get(&key).is_some_and(|n| n.pointer("/metadata/deletionTimestamp").is_some());
    if leaving && empty(state, name) {
        state.modify(&key, |namespace| set(namespace, "/spec/finalizers", json!([])));
    }
}

/// Deletes what is in the namespace; true if nothing is left.
fn empty(state: &mut State, namespace: &str) -> bool {
    let kinds: Vec<_> = state.registry.all().filter(|k| k.namespaced).cloned().collect();
    let mut left = false;
    for kind in kinds {
        let table = kind.table();
        let found: Vec<(Key, bool)> = state
            .store
            .list(table, Some(namespace))
            .map(|o| {
                (
                    Key::new(table, namespace, text(o, "/metadata/name")),
                    o.pointer("/metadata/deletionTimestamp").is_some(),
                )
            })
            .collect();
        for (key, leaving) in found {
            let options = delete::Options { propagation: "Background".into(), ..delete::Options::default() };
            left |= leaving || !matches!(state.delete(&kind, &key, &options), Ok(delete::Deleted::Gone(_)));
        }
    }
    !left
}

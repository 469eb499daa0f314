//! Garbage collection: dependents follow their owners.

use serde_json::Value;

use crate::{
    json::{flag, list, set, text},
    server::{State, delete},
    store::{Change, ChangeKind, Key},
};

/// Looks at what a change means for owners and dependents.
pub fn react(state: &mut State, change: &Change) {
    match change.kind {
        ChangeKind::Deleted => {
            collect(state, text(&change.object, "/metadata/uid"), "Background");
            for reference in list(&change.object, "/metadata/ownerReferences") {
                finish_owner(state, &change.key.namespace, reference);
            }
        }
        ChangeKind::Added => collect_if_orphan(state, &change.key),
        ChangeKind::Modified => {}
    }
    if change.kind != ChangeKind::Deleted && change.object.pointer("/metadata/deletionTimestamp").is_some() {
        propagate(state, &change.key);
    }
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|f| f == name)
}

fn drop_finalizer(state: &mut State, key: &Key, name: &str) {
    state.modify(key, |object| {
        let kept: Vec<Value> =
            list(object, "/metadata/finalizers").iter().filter(|f| *f != name).cloned().collect();
        set(object, "/metadata/finalizers", kept);
    });
}

/// Obeys the propagation policy of an object that is being deleted.
fn propagate(state: &mut State, key: &Key) {
    let Some(object) = state.store.get(key) else { return };
    let uid = text(&object, "/metadata/uid");
    if has_finalizer(&object, "orphan") {
        for dependent in state.store.owned_by(uid) {
            state.modify(&dependent, |d| {
                let kept: Vec<Value> = list(d, "/metadata/ownerReferences")
                    .iter()
                    .filter(|r| text(r, "/uid") != uid)
                    .cloned()
                    .collect();
                set(d, "/metadata/ownerReferences", kept);
            });
        }
        drop_finalizer(state, key, "orphan");
    } else if has_finalizer(&object, "foregroundDeletion") {
        collect(state, uid, "Foreground");
        finish(state, key);
    }
}

/// Deletes the dependents of an owner, unless another owner of theirs lives.
fn collect(state: &mut State, uid: &str, propagation: &str) {
    for key in state.store.owned_by(uid) {
        let Some(dependent) = state.store.get(&key) else { continue };
        let other_lives = list(&dependent, "/metadata/ownerReferences")
            .iter()
            .any(|r| text(r, "/uid") != uid && owner_lives(state, &key.namespace, r));
        if !other_lives && dependent.pointer("/metadata/deletionTimestamp").is_none() {
            delete_as(state, &key, propagation);
        }
    }
}

fn delete_as(state: &mut State, key: &Key, propagation: &str) {
    let Some(kind) = state.registry.of_table(&key.table) else { return };
    let options = delete::Options { propagation: propagation.into(), ..delete::Options::default() };
    if let Err(error) = state.delete(&kind, key, &options) {
        tracing::warn!(?key, ?error, "garbage collection was refused");
    }
}

fn owner_key(state: &State, namespace: &str, reference: &Value) -> Option<Key> {
    let kind = state.registry.of_object(text(reference, "/apiVersion"), text(reference, "/kind"))?;
    let namespace = if kind.namespaced { namespace } else { "" };
    Some(Key::new(kind.table(), namespace, text(reference, "/name")))
}

fn owner_lives(state: &State, namespace: &str, reference: &Value) -> bool {
    let owner = owner_key(state, namespace, reference).and_then(|key| state.store.get(&key));
    owner.is_some_and(|o| text(&o, "/metadata/uid") == text(reference, "/uid"))
}

/// An object that was created for owners of which none lives. One whose owner is of a kind that nobody serves
/// is left: the real collector asks for that owner again and again.
fn collect_if_orphan(state: &mut State, key: &Key) {
    let Some(object) = state.store.get(key) else { return };
    let owners = list(&object, "/metadata/ownerReferences");
    let known = |reference: &Value| {
        state.registry.of_object(text(reference, "/apiVersion"), text(reference, "/kind")).is_some()
    };
    if !owners.is_empty()
        && owners.iter().all(known)
        && !owners.iter().any(|r| owner_lives(state, &key.namespace, r))
    {
        delete_as(state, key, "Background");
    }
}

/// An owner in foreground deletion goes when no blocking dependent is left.
fn finish_owner(state: &mut State, namespace: &str, reference: &Value) {
    if let Some(key) = owner_key(state, namespace, reference) {
        finish(state, &key);
    }
}

fn finish(state: &mut State, key: &Key) {
    let Some(owner) = state.store.get(key).filter(|o| has_finalizer(o, "foregroundDeletion")) else { return };
    let uid = text(&owner, "/metadata/uid");
    let blocks = |key: &Key| {
        let dependent = state.store.get(key);
        dependent.is_some_and(|d| {
            list(&d, "/metadata/ownerReferences")
                .iter()
                .any(|r| text(r, "/uid") == uid && flag(r, "/blockOwnerDeletion"))
        })
    };
    if !state.store.owned_by(uid).iter().any(blocks) {
        drop_finalizer(state, key, "foregroundDeletion");
    }
}

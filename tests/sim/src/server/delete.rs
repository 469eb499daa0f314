//! Deletion: preconditions, grace, finalizers and what becomes of dependents.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    State,
    error::{ApiError, ApiResult},
    request::Query,
};
use crate::{
    json::{flag, int, list, set, text},
    kinds::Kind,
    store::{Key, Object},
};

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds that a pod gets.
    pub grace: Option<i64>,
    /// `Background`, `Foreground`, `Orphan`, or empty for the kind's default.
    pub propagation: String,
    /// The object must have this UID.
    pub uid: String,
    /// The object must have this version.
    pub version: String,
    /// Nothing is deleted.
    pub dry_run: bool,
}

impl Options {
    /// Reads a body of `DeleteOptions`, or the query if there is no body.
    pub fn parse(body: &Value, query: &Query) -> ApiResult<Self> {
        let none = Query::default();
        let query = if body.is_null() { query } else { &none };
        let grace = query.number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok());
        let propagation = match (text(body, "/propagationPolicy"), query.get("propagationPolicy")) {
            ("", "") if flag(body, "/orphanDependents") => "Orphan",
            ("", from_query) => from_query,
            (from_body, _) => from_body,
        };
        Ok(Self {
            grace: int(body, "/gracePeriodSeconds").or(grace),
            propagation: propagation.to_owned(),
            uid: text(body, "/preconditions/uid").to_owned(),
            version: text(body, "/preconditions/resourceVersion").to_owned(),
            dry_run: query.dry_run() || list(body, "/dryRun").iter().any(|d| d == "All"),
        })
    }
}

/// What a deletion came to.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone.
    Gone(Object),
    /// The object is still there, with a deletion timestamp.
    Pending(Object),
}

/// Whether an object that is being deleted has nothing left to wait for.
pub fn is_finished(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
        && list(object, "/metadata/finalizers").is_empty()
        // Only namespaces have these; the namespace controller takes them off when the contents are gone.
        && list(object, "/spec/finalizers").is_empty()
        && int(object, "/metadata/deletionGracePeriodSeconds").unwrap_or_default() == 0
}

impl State {
    /// Deletes an object, or begins to.
    pub fn delete(&mut self, kind: &Arc<Kind>, key: &Key, options: &Options) -> ApiResult<Deleted> {
        let old = self.store.get(key).ok_or_else(|| ApiError::not_found(&key.table, &key.name))?;
        check(kind, key, &old, options)?;
        let mut new = (*old).clone();
        let grace = grace(kind, &old, options);
        mark(&mut new, grace);
        add_propagation_finalizer(kind, &mut new, &options.propagation);
        if kind.table() == "namespaces" {
            set(&mut new, "/status/phase", "Terminating");
        }
        if options.dry_run {
            return Ok(Deleted::Pending(Arc::new(new)));
        }
        if is_finished(&new) {
            let gone = self.expunge(kind, key).unwrap_or(old);
            set(&mut new, "/metadata/resourceVersion", text(&gone, "/metadata/resourceVersion"));
            return Ok(Deleted::Gone(Arc::new(new)));
        }
        if new == *old {
            return Ok(Deleted::Pending(old));
        }
        if let Some(generation) = int(&old, "/metadata/generation") {
            set(&mut new, "/metadata/generation", generation + 1);
        }
        Ok(Deleted::Pending(self.store.put(key, new)))
    }

    /// Removes an object from the store at once.
    pub fn expunge(&mut self, kind: &Arc<Kind>, key: &Key) -> Option<Object> {
        let gone = self.store.remove(key)?;
        if kind.table() == "customresourcedefinitions.apiextensions.k8s.io" {
            self.unserve(&gone);
        }
        Some(gone)
    }

    /// With its definition a custom resource loses its objects.
    fn unserve(&mut self, definition: &Value) {
        let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
        let table = crate::kinds::table_name(group, plural);
        let objects: Vec<Key> = self
            .store
            .list(&table, None)
            .map(|o| Key::new(&table, text(o, "/metadata/namespace"), text(o, "/metadata/name")))
            .collect();
        for key in objects {
            self.store.remove(&key);
        }
        self.registry.remove(group, plural);
    }
}

fn check(kind: &Kind, key: &Key, old: &Value, options: &Options) -> ApiResult<()> {
    // This one conflict speaks of the kind where others name the resource.
    let conflict = |why: &str| ApiError::conflict(&kind.full_name(), &key.name, why);
    let found = text(old, "/metadata/uid");
    if !options.uid.is_empty() && options.uid != found {
        let why = format!(
            "the UID in the precondition ({}) does not match the UID in record ({found}). The object might have been deleted and then recreated",
            options.uid
        );
        return Err(conflict(&why));
    }
    let found = text(old, "/metadata/resourceVersion");
    if !options.version.is_empty() && options.version != found {
        let why = format!(
            "the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({found}). The object might have been modified",
            options.version
        );
        return Err(conflict(&why));
    }
    Ok(())
}

/// Only a pod that a kubelet runs, or is to run, needs time.
fn grace(kind: &Kind, old: &Value, options: &Options) -> i64 {
    let has_kubelet = !text(old, "/spec/nodeName").is_empty()
        && !matches!(text(old, "/status/phase"), "Succeeded" | "Failed");
    if kind.table() != "pods" || !has_kubelet {
        return 0;
    }
    options.grace.or_else(|| int(old, "/spec/terminationGracePeriodSeconds")).unwrap_or(30).max(0)
}

/// Sets when the object goes; a second deletion can only bring that forward.
fn mark(object: &mut Value, grace: i64) {
    let now = crate::clock::now();
    let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let before = int(object, "/metadata/deletionGracePeriodSeconds");
    if object.pointer("/metadata/deletionTimestamp").is_none() || before.is_some_and(|b| grace < b) {
        set(object, "/metadata/deletionTimestamp", at);
        set(object, "/metadata/deletionGracePeriodSeconds", grace);
    }
}

fn add_propagation_finalizer(kind: &Kind, object: &mut Value, propagation: &str) {
    // Jobs keep their pods unless the client says otherwise: an old promise of batch/v1.
    let orphan = propagation == "Orphan" || (propagation.is_empty() && kind.table() == "jobs.batch");
    let wanted = match propagation {
        "Foreground" => "foregroundDeletion",
        _ if orphan => "orphan",
        _ => return,
    };
    let mut finalizers = list(object, "/metadata/finalizers").to_vec();
    if !finalizers.iter().any(|f| f == wanted) {
        finalizers.push(json!(wanted));
        set(object, "/metadata/finalizers", finalizers);
    }
}

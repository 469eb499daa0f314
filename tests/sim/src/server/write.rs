//! Creating and replacing objects: what happens to every write, whoever makes it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    State,
    error::{ApiError, ApiResult, Cause},
    now,
};
use crate::{
    admission::Creation,
    auth::User,
    json::{self, list, put, set, take, text},
    kinds::{Kind, custom, defaults, names},
    store::{Key, Object},
};

/// How a write is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Unknown fields are refused.
    pub strict: bool,
    /// Who writes, for checks of what they may grant; nobody for the simulator's own writes.
    pub user: Option<&'a User>,
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, if there is a status subresource.
    Main,
    /// The status.
    Status,
    /// Everything: a controller of the simulator.
    All,
}

impl State {
    /// Creates an object.
    pub fn insert(&mut self, kind: &Arc<Kind>, mut object: Value, options: Options<'_>) -> ApiResult<Object> {
        let table = kind.table();
        if text(&object, "/metadata/name").is_empty() && !text(&object, "/metadata/generateName").is_empty() {
            // The server cuts the stem so that the whole fits into a label value.
            let stem: String = text(&object, "/metadata/generateName").chars().take(58).collect();
            let name = format!("{stem}{}", self.suffix());
            set(&mut object, "/metadata/name", name);
        }
        let name = text(&object, "/metadata/name").to_owned();
        if name.is_empty() {
            return Err(ApiError::invalid(
                &kind.full_name(),
                "",
                &[Cause::required("metadata.name", "name or generateName is required")],
            ));
        }
        let namespace = text(&object, "/metadata/namespace").to_owned();
        self.check_namespace(kind, &namespace, &name)?;
        let key = Key::new(table, &namespace, &name);
        let exists = self.store.get(&key).is_some();
        self.prepare(kind, &mut object, exists);
        self.admission.add(table, &mut object);
        let mut object = kind.admit(&object, None, options.strict)?;
        self.before_insert(kind, &mut object, options.user)?;
        if let Some(why) =
            self.admission.refusal(&Creation { table, object: &object, dry_run: options.dry_run })
        {
            return Err(
                ApiError::forbidden(format!("{table} \"{name}\" is forbidden: {why}")).about(table, &name)
            );
        }
        // That comes last: what is refused for another reason is refused for that.
        if exists {
            return Err(ApiError::exists(table, &name));
        }
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = self.store.put(&key, object);
        self.after_write(kind, &stored)?;
        Ok(stored)
    }

    /// Nothing is created where nothing may be.
    pub fn check_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> ApiResult<()> {
        if !kind.namespaced {
            return Ok(());
        }
        let key = Key::new("namespaces", "", namespace);
        let Some(found) = self.store.get(&key) else {
            return Err(ApiError::not_found("namespaces", namespace));
        };
        if found.pointer("/metadata/deletionTimestamp").is_none() {
            return Ok(());
        }
        let table = kind.table();
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error =
            ApiError::forbidden(format!("{table} \"{name}\" is forbidden: {why}")).about(table, name);
        let message = format!("namespace {namespace} is being terminated");
        error.details["causes"] =
            json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
        Err(error)
    }

    /// Metadata that the server alone writes.
    fn prepare(&mut self, kind: &Kind, object: &mut Value, exists: bool) {
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
        ] {
            take(object, &format!("/metadata/{field}"));
        }
        if !kind.namespaced {
            take(object, "/metadata/namespace");
        }
        // One that is refused because its name is taken needs none.
        set(object, "/metadata/uid", if exists { String::new() } else { self.uid() });
        set(object, "/metadata/creationTimestamp", now());
        put(object, "/metadata/generation", has_generation(kind).then(|| 1.into()));
        // Nodes register with their status; everything else begins without one.
        if kind.status && kind.table() != "nodes" {
            take(object, "/status");
        }
    }

    fn before_insert(&mut self, kind: &Arc<Kind>, object: &mut Value, user: Option<&User>) -> ApiResult<()> {
        match kind.table() {
            "pods" => self.admit_pod(object)?,
            "jobs.batch" => {
                defaults::job_identity(object);
                let causes = names::check(kind, object);
                if !causes.is_empty() {
                    let name = text(object, "/metadata/name");
                    return Err(ApiError::invalid(&kind.full_name(), name, &causes));
                }
            }
            "namespaces" => {
                let name = text(object, "/metadata/name").to_owned();
                set(object, "/metadata/labels/kubernetes.io~1metadata.name", name);
            }
            "customresourcedefinitions.apiextensions.k8s.io" => drop(custom::kinds_of(object)?),
            _ => {}
        }
        self.check_owners(object, None, user)?;
        self.check_grants(kind, object, user)
    }

    /// What admission adds to a pod, and what the server writes into its status.
    fn admit_pod(&self, object: &mut Value) -> ApiResult<()> {
        json::set_default(object, "/spec/serviceAccountName", "default");
        let priority = match text(object, "/spec/priorityClassName") {
            "system-node-critical" => 2_000_001_000,
            "system-cluster-critical" => 2_000_000_000,
            _ => 0,
        };
        json::set_default(object, "/spec/priority", priority);
        json::set_default(object, "/spec/preemptionPolicy", "PreemptLowerPriority");
        let (namespace, name) =
            (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned());
        let account = text(object, "/spec/serviceAccountName").to_owned();
        set(object, "/spec/serviceAccount", account.clone());
        if self.store.get(&Key::new("serviceaccounts", &namespace, &account)).is_none() {
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
            );
            return Err(
                ApiError::forbidden(format!("pods \"{name}\" is forbidden: {why}")).about("pods", &name)
            );
        }
        for (key, condition) in
            [("not-ready", "node.kubernetes.io/not-ready"), ("unreachable", "node.kubernetes.io/unreachable")]
        {
            let tolerated = list(object, "/spec/tolerations").iter().any(|t| tolerates(t, condition));
            if !tolerated {
                let mut tolerations = list(object, "/spec/tolerations").to_vec();
                let full = format!("node.kubernetes.io/{key}");
                tolerations.push(json!({"key": full, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
                set(object, "/spec/tolerations", tolerations);
            }
        }
        set(object, "/status", json!({"phase": "Pending", "qosClass": "BestEffort"}));
        Ok(())
    }

    /// Replaces an object, and removes it if it was only waiting for its last finalizer. What does not change
    /// anything is neither stored nor told to anybody.
    pub fn replace(
        &mut self,
        kind: &Arc<Kind>,
        old: &Object,
        mut new: Value,
        part: Part,
        options: Options<'_>,
    ) -> ApiResult<Object> {
        let table = kind.table();
        let name = text(old, "/metadata/name").to_owned();
        check_preconditions(kind, old, &new)?;
        keep_server_fields(kind, old, &mut new, part);
        let mut new = kind.admit(&new, Some(old), options.strict)?;
        set(&mut new, "/metadata/resourceVersion", text(old, "/metadata/resourceVersion"));
        if part != Part::Status && self.has_other_spec(kind, old, &new) {
            let generation = json::int(old, "/metadata/generation").unwrap_or_default() + 1;
            put(&mut new, "/metadata/generation", has_generation(kind).then(|| generation.into()));
        }
        if new == **old {
            return Ok(old.clone());
        }
        check_finalizers(kind, old, &new)?;
        if part == Part::Main {
            self.check_owners(&new, Some(old.as_ref()), options.user)?;
            self.check_grants(kind, &new, options.user)?;
            if table == "customresourcedefinitions.apiextensions.k8s.io" {
                drop(custom::kinds_of(&new)?);
            }
        }
        if options.dry_run {
            return Ok(Arc::new(new));
        }
        let key = Key::new(table, text(old, "/metadata/namespace"), &name);
        if super::delete::is_finished(&new) {
            return Ok(self.expunge(kind, &key).unwrap_or_else(|| Arc::new(new)));
        }
        let stored = self.store.put(&key, new);
        self.after_write(kind, &stored)?;
        Ok(stored)
    }

    fn has_other_spec(&self, kind: &Kind, old: &Value, new: &Value) -> bool {
        if !kind.is_custom() {
            return old.get("spec") != new.get("spec");
        }
        let bare = |object: &Value| {
            let mut bare = object.clone();
            take(&mut bare, "/metadata");
            if kind.status {
                take(&mut bare, "/status");
            }
            bare
        };
        bare(old) != bare(new)
    }

    /// Changes an object as a controller of the simulator would, whatever the client-side rules say. An
    /// object that is gone, and a change that is none, are not errors.
    pub fn modify(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Option<Object> {
        let kind = self.registry.of_table(&key.table)?;
        let old = self.store.get(key)?;
        let mut new = (*old).clone();
        change(&mut new);
        match self.replace(&kind, &old, new, Part::All, Options::default()) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::warn!(?key, ?error, "a controller's write was refused");
                None
            }
        }
    }

    /// What the server does at once about what was stored.
    fn after_write(&mut self, kind: &Arc<Kind>, stored: &Object) -> ApiResult<()> {
        match kind.table() {
            "customresourcedefinitions.apiextensions.k8s.io" => self.serve(stored),
            "namespaces" => self.furnish(text(stored, "/metadata/name")),
            _ => Ok(()),
        }
    }

    fn serve(&mut self, definition: &Value) -> ApiResult<()> {
        self.registry.remove(text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
        for kind in custom::kinds_of(definition)? {
            self.registry.add(kind);
        }
        let key = Key::new(
            "customresourcedefinitions.apiextensions.k8s.io",
            "",
            text(definition, "/metadata/name"),
        );
        let mut established = definition.clone();
        custom::establish(&mut established, &now());
        if established != *definition {
            self.store.put(&key, established);
        }
        Ok(())
    }

    /// A namespace has its default account from the start.
    fn furnish(&mut self, namespace: &str) -> ApiResult<()> {
        let key = Key::new("serviceaccounts", namespace, "default");
        let leaving = self
            .store
            .get(&Key::new("namespaces", "", namespace))
            .is_none_or(|n| n.pointer("/metadata/deletionTimestamp").is_some());
        if self.store.get(&key).is_none() && !leaving {
            self.seed(
                "",
                "v1",
                "serviceaccounts",
                json!({"metadata": {"name": "default", "namespace": namespace}}),
            );
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let all = text(toleration, "/key").is_empty() && text(toleration, "/operator") == "Exists";
    let effect = text(toleration, "/effect");
    (all || text(toleration, "/key") == key) && (effect.is_empty() || effect == "NoExecute")
}

fn has_generation(kind: &Kind) -> bool {
    kind.is_custom()
        || matches!(
            kind.group.as_str(),
            "apps"
                | "batch"
                | "policy"
                | "apiextensions.k8s.io"
                | "admissionregistration.k8s.io"
                | "networking.k8s.io"
        )
        || kind.plural == "pods"
}

/// Said of a body that is for another namespace than the path.
pub const OTHER_NAMESPACE: &str =
    "the namespace of the provided object does not match the namespace sent on the request";

fn check_preconditions(kind: &Kind, old: &Value, new: &Value) -> ApiResult<()> {
    let table = kind.table();
    let name = text(old, "/metadata/name");
    let sent = text(new, "/metadata/resourceVersion");
    if !sent.is_empty() && sent != text(old, "/metadata/resourceVersion") {
        return Err(ApiError::stale(table, name));
    }
    let sent = text(new, "/metadata/name");
    if !sent.is_empty() && sent != name {
        let why = format!("the name of the object ({sent}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(why));
    }
    let sent = text(new, "/metadata/namespace");
    if !sent.is_empty() && sent != text(old, "/metadata/namespace") {
        return Err(ApiError::bad_request(OTHER_NAMESPACE));
    }
    // In a patch another UID is a change like any other, of a field that nobody changes.
    let sent = text(new, "/metadata/uid");
    if !sent.is_empty() && sent != text(old, "/metadata/uid") {
        let cause = Cause::immutable("metadata.uid", &sent.into());
        return Err(ApiError::invalid(&kind.full_name(), name, &[cause]));
    }
    Ok(())
}

/// A write cannot change what is the server's, nor the part that it is not about.
fn keep_server_fields(kind: &Kind, old: &Value, new: &mut Value, part: Part) {
    for field in ["name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion"] {
        put(new, &format!("/metadata/{field}"), old.pointer(&format!("/metadata/{field}")).cloned());
    }
    take(new, "/metadata/managedFields");
    if part != Part::All {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            put(new, &format!("/metadata/{field}"), old.pointer(&format!("/metadata/{field}")).cloned());
        }
    }
    match part {
        Part::Main if kind.status => put(new, "/status", old.get("status").cloned()),
        Part::Status if kind.is_custom() => {
            let status = take(new, "/status");
            *new = old.clone();
            put(new, "/status", status);
        }
        Part::Status => put(new, "/spec", old.get("spec").cloned()),
        Part::Main | Part::All => {}
    }
}

/// An object that is being deleted gets no new finalizers.
fn check_finalizers(kind: &Kind, old: &Value, new: &Value) -> ApiResult<()> {
    let known = list(old, "/metadata/finalizers");
    let added = list(new, "/metadata/finalizers").iter().filter(|f| !known.contains(f));
    let added: Vec<String> = added.map(Value::to_string).collect();
    if added.is_empty() || old.pointer("/metadata/deletionTimestamp").is_none() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let cause = Cause { reason: "FieldValueForbidden", field: "metadata.finalizers".into(), message };
    Err(ApiError::invalid(&kind.full_name(), text(old, "/metadata/name"), &[cause]))
}

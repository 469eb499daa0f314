//! Which resources there are: the built-in ones and those that CustomResourceDefinitions add while the server
//! runs.

pub mod builtin;
pub mod custom;
pub mod defaults;
pub mod names;
pub mod schema;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use crate::server::error::{ApiError, ApiResult, Cause};

/// A column of `kubectl get`.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer` or `date`.
    pub kind: String,
    /// Where the value is, in Kubernetes' JSONPath.
    pub path: String,
    /// Columns above 0 show with `-o wide` only.
    pub priority: i64,
}

/// How objects of a kind are checked.
pub enum Form {
    /// A type of k8s-openapi: decoding drops unknown fields and refuses wrong types.
    Typed {
        /// Decodes and encodes again.
        round_trip: fn(&Value) -> Result<Value, serde_json::Error>,
        /// The JSON schema, for `kubectl explain`.
        schema: fn() -> Value,
    },
    /// A custom resource.
    Custom(Box<custom::CustomSchema>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Typed { .. } => "Typed",
            Self::Custom(_) => "Custom",
        })
    }
}

/// A resource that is served.
#[derive(Debug)]
pub struct Kind {
    table: String,
    /// API group; empty for the core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind of the objects.
    pub kind: String,
    /// Name in paths.
    pub plural: String,
    /// Name for people.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a status subresource.
    pub status: bool,
    /// Short names.
    pub short: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Fields besides name and namespace that a field selector may name.
    pub fields: Vec<String>,
    /// Columns of `kubectl get` for custom resources.
    pub columns: Vec<Column>,
    /// How objects are checked.
    pub form: Form,
}

impl Kind {
    /// Name of the table in the store, which is also the name that error messages use.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Kind and group, as in `Job.batch`.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Whether an object of the kind is replaced at a version only.
    pub fn needs_version(&self) -> bool {
        const VERSIONED: [&str; 4] = [
            "customresourcedefinitions.apiextensions.k8s.io",
            "leases.coordination.k8s.io",
            "poddisruptionbudgets.policy",
            "volumeattachments.storage.k8s.io",
        ];
        self.is_custom() || VERSIONED.contains(&self.table())
    }

    /// Whether users define this kind.
    pub fn is_custom(&self) -> bool {
        matches!(self.form, Form::Custom(_))
    }

    /// Drops unknown fields, writes defaults, and refuses what does not fit the kind's schema. `old` is the
    /// stored version: what was wrong in it and is unchanged passes.
    pub fn admit(&self, object: &Value, old: Option<&Value>, strict: bool) -> ApiResult<Value> {
        let mut admitted = match &self.form {
            Form::Typed { round_trip, .. } => {
                round_trip(object).map_err(|error| self.undecodable(&error.to_string()))?
            }
            Form::Custom(custom) => custom.prune(object),
        };
        if strict {
            self.refuse_unknown(object, &admitted)?;
        }
        drop_empty(&mut admitted);
        defaults::fill(self, &mut admitted);
        let mut causes = names::check(self, &admitted);
        causes.extend(match &self.form {
            Form::Typed { .. } => defaults::check(self, &admitted, old),
            Form::Custom(custom) => {
                admitted = custom.default(&admitted);
                custom.check(&admitted, old)
            }
        });
        self.refuse(&admitted, &causes)?;
        Ok(admitted)
    }

    /// `fieldValidation=Strict`, which kubectl asks for: fields that were dropped are an error.
    fn refuse_unknown(&self, sent: &Value, kept: &Value) -> ApiResult<()> {
        let mut unknown = Vec::new();
        find_dropped(sent, kept, "", &mut unknown);
        if unknown.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        Err(self.undecodable(&format!("strict decoding error: {}", list.join(", "))))
    }

    fn undecodable(&self, why: &str) -> ApiError {
        let (kind, version) = (&self.kind, &self.version);
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    }

    fn refuse(&self, object: &Value, causes: &[Cause]) -> ApiResult<()> {
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&self.full_name(), crate::json::text(object, "/metadata/name"), causes))
    }
}

/// Name of a resource with its group, as in `jobs.batch`.
pub fn table_name(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Empty maps and lists of an object's metadata are as good as none, and are not stored.
fn drop_empty(object: &mut Value) {
    for parent in ["/metadata", "/spec/template/metadata"] {
        if let Some(metadata) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
            metadata.retain(|_, value| {
                !value.as_object().is_some_and(serde_json::Map::is_empty)
                    && !value.as_array().is_some_and(Vec::is_empty)
            });
        }
    }
}

fn find_dropped(sent: &Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (key, value) in sent {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match kept.get(key) {
                    Some(kept) => find_dropped(value, kept, &path, unknown),
                    // A null is how clients write that there is nothing.
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(sent), Value::Array(kept)) => {
            for (i, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                find_dropped(sent, kept, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// All resources that are served, by group, version and plural name.
#[derive(Debug)]
pub struct Registry {
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
    tables: HashMap<String, Arc<Kind>>,
}

impl Registry {
    /// The built-in resources.
    pub fn builtin() -> Self {
        let mut registry = Self { kinds: BTreeMap::new(), tables: HashMap::new() };
        for kind in builtin::kinds() {
            registry.add(kind);
        }
        registry
    }

    /// Serves a resource, instead of an earlier one of its name.
    pub fn add(&mut self, kind: Kind) {
        let kind = Arc::new(kind);
        self.tables.insert(kind.table.clone(), kind.clone());
        self.kinds.insert((kind.group.clone(), kind.version.clone(), kind.plural.clone()), kind);
    }

    /// Serves a custom resource no longer.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.kinds.retain(|(g, _, p), _| g != group || p != plural);
        self.tables.remove(&table_name(group, plural));
    }

    /// The resource of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// The resource of a table.
    pub fn of_table(&self, table: &str) -> Option<Arc<Kind>> {
        self.tables.get(table).cloned()
    }

    /// The resource of an object or an owner reference.
    pub fn of_object(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds.values().find(|k| k.kind == kind && k.api_version() == api_version).cloned()
    }

    /// All resources, in the order of group and name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }
}

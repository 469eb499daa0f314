//! The forms in which objects are shown: as they are, metadata only, or as the rows of a table.

pub mod discovery;
pub mod openapi;
pub mod path;
pub mod table;

use serde_json::{Value, json};

use crate::{kinds::Kind, server::read::Listed, store::Object};

/// What a client wants to see, by its `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Objects.
    Plain,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`, for `kubectl get`.
    Table,
}

impl Form {
    /// Reads an `Accept` header: the first form that we have.
    pub fn of(accept: &str) -> Self {
        for choice in accept.split(',') {
            let wants = |form: &str| choice.split(';').any(|part| part.trim() == form);
            if wants("as=Table") {
                return Self::Table;
            }
            if wants("as=PartialObjectMetadata") || wants("as=PartialObjectMetadataList") {
                return Self::Metadata;
            }
            if choice.starts_with("application/json") || choice.starts_with("*/*") {
                return Self::Plain;
            }
        }
        Self::Plain
    }

    /// One object in this form.
    pub fn one(self, kind: &Kind, object: &Object) -> Value {
        match self {
            Self::Plain => (**object).clone(),
            Self::Metadata => metadata(object),
            Self::Table => table::of(kind, std::slice::from_ref(object), &object["metadata"]),
        }
    }

    /// A list in this form.
    pub fn many(self, kind: &Kind, listed: &Listed) -> Value {
        let (name, version, items): (_, _, Vec<Value>) = match self {
            Self::Table => return table::of(kind, &listed.items, &listed.metadata),
            Self::Plain => (
                format!("{}List", kind.kind),
                kind.api_version(),
                listed.items.iter().map(|o| (**o).clone()).collect(),
            ),
            Self::Metadata => (
                "PartialObjectMetadataList".into(),
                "meta.k8s.io/v1".into(),
                listed.items.iter().map(|o| metadata(o)).collect(),
            ),
        };
        json!({"kind": name, "apiVersion": version, "metadata": listed.metadata, "items": items})
    }
}

/// An object's metadata alone.
pub fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

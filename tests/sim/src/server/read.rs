//! Getting one object, listing many.

use serde_json::{Value, json};

use super::{
    State,
    error::{ApiError, ApiResult},
    request::{Query, Resource},
};
use crate::{
    json::text,
    kinds::Kind,
    store::{Key, Object, selector::Selector},
};

/// A list, before it is put into the form that the client wants.
#[derive(Debug)]
pub struct Listed {
    /// The objects.
    pub items: Vec<Object>,
    /// `metadata` of the list.
    pub metadata: Value,
}

/// What a request selects. Fields that a real server would not know are refused.
pub fn selector(kind: &Kind, resource: &Resource, query: &Query) -> ApiResult<Selector> {
    let namespace = (!resource.namespace.is_empty()).then_some(resource.namespace.as_str());
    let mut fields = query.get("fieldSelector").to_owned();
    if !resource.name.is_empty() {
        fields = format!("metadata.name={}", resource.name);
    }
    let selector = Selector::parse(namespace, query.get("labelSelector"), &fields)?;
    let known = |field: &str| {
        matches!(field, "metadata.name" | "metadata.namespace") || kind.fields.iter().any(|f| f == field)
    };
    let unknown = selector.fields().find(|field| !known(field)).map(str::to_owned);
    match unknown {
        Some(field) => Err(ApiError::bad_request(unsupported(kind, &field))),
        None => Ok(selector),
    }
}

/// What a server says of a field that cannot be selected by; it depends on where the kind was made.
fn unsupported(kind: &Kind, field: &str) -> String {
    match kind.table() {
        "jobs.batch" => format!("field label \"{field}\" not supported for {}", kind.kind),
        _ if !kind.is_custom() && kind.fields.is_empty() => format!(
            "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
        _ => format!("field label not supported: {field}"),
    }
}

impl State {
    /// One object.
    pub fn fetch(&self, kind: &Kind, resource: &Resource) -> ApiResult<Object> {
        let table = kind.table();
        let key = Key::new(table, &resource.namespace, &resource.name);
        self.store.get(&key).ok_or_else(|| ApiError::not_found(table, &resource.name))
    }

    /// Objects, page by page if the client asks for pages.
    pub fn page(&self, kind: &Kind, resource: &Resource, query: &Query) -> ApiResult<Listed> {
        let selector = selector(kind, resource, query)?;
        let limit = query
            .number("limit")?
            .filter(|n| *n > 0)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX);
        let (version, after) = self.start_of(query)?;
        let (table, namespace) = (kind.table(), selector.namespace.as_deref());
        let wanted = |o: &Object| place(o) > after && selector.matches(o);
        let most = limit.saturating_add(1);
        let mut items: Vec<Object> = if after.is_empty() {
            self.store.list(table, namespace).filter(|o| wanted(o)).take(most).cloned().collect()
        } else {
            // A later page is of the same moment as the first.
            let then = self.store.list_at(table, namespace, self.store.version_of(version));
            then.into_iter().filter(wanted).take(most).collect()
        };
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if items.len() > limit {
            items.truncate(limit);
            if let Some(last) = items.last() {
                metadata["continue"] = format!("{version}:{}", place(last).replace(' ', "/")).into();
            }
        }
        Ok(Listed { items, metadata })
    }

    /// The version that a list has, and the place after which it goes on. A later page has the version of the
    /// first, so that a watch from there tells what happened between the pages.
    fn start_of(&self, query: &Query) -> ApiResult<(u64, String)> {
        let token = query.get("continue");
        if token.is_empty() {
            let asked = query.number("resourceVersion")?.unwrap_or_default();
            let present = self.store.revision();
            return if asked > present { Err(too_new(asked, present)) } else { Ok((present, String::new())) };
        }
        let (version, place) =
            token.split_once(':').ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
        let version = version.parse().map_err(|_| ApiError::bad_request("continue key is not valid"))?;
        if self.store.version_of(version) < self.store.compacted() {
            return Err(ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
            ));
        }
        Ok((version, place.replace('/', " ")))
    }
}

/// The refusal of a version that does not exist yet.
pub fn too_new(asked: u64, present: u64) -> ApiError {
    let mut error = ApiError::new(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {asked}, current: {present}"),
    );
    error.details = json!({"retryAfterSeconds": 1, "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
    error
}

/// Where an object stands in its table's order. The separator sorts before all that a name may hold.
fn place(object: &Value) -> String {
    format!("{} {}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

//! Events have two groups and one store: what is written as `events.k8s.io/v1` is read as `v1` by kubectl,
//! and back.

use serde_json::{Value, json};

use super::{
    handle::Answer,
    request::{Query, Resource},
};
use crate::json::{put, set, take};

/// Fields by their names in `events.k8s.io/v1` and in `v1`.
const FIELDS: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether a resource is the other group's view of Events.
pub fn is_other_view(resource: &Resource) -> bool {
    resource.group == "events.k8s.io" && resource.plural == "events"
}

/// The same request to the core group.
pub fn to_core(resource: &Resource) -> Resource {
    Resource { group: String::new(), version: "v1".into(), ..resource.clone() }
}

/// Field selectors name fields of the core group.
pub fn query_of(query: &Query) -> Query {
    query.replaced("fieldSelector", "regarding.", "involvedObject.")
}

/// A body in the core group's names, whole object or patch. Lists of JSON patch operations are left.
pub fn body_to_core(mut body: Value) -> Value {
    for (theirs, core) in FIELDS {
        let value = take(&mut body, &format!("/{theirs}"));
        if value.is_some() {
            put(&mut body, &format!("/{core}"), value);
        }
    }
    if body.get("kind").is_some_and(|kind| kind == "Event") {
        set(&mut body, "/apiVersion", "v1");
    }
    body
}

/// An answer in the other group's names.
pub fn answer_from_core(answer: Answer) -> Answer {
    match answer {
        Answer::Object(code, kind, object) => {
            drop(kind);
            Answer::Raw(code, object_from_core((*object).clone()))
        }
        Answer::List(_, listed) => {
            let items: Vec<Value> = listed.items.iter().map(|o| object_from_core((**o).clone())).collect();
            Answer::Raw(
                200,
                json!({"kind": "EventList", "apiVersion": "events.k8s.io/v1", "metadata": listed.metadata, "items": items}),
            )
        }
        Answer::Raw(code, value) => Answer::Raw(code, value),
    }
}

fn object_from_core(mut object: Value) -> Value {
    for (theirs, core) in FIELDS {
        let value = take(&mut object, &format!("/{core}"));
        put(&mut object, &format!("/{theirs}"), value);
    }
    set(&mut object, "/apiVersion", "events.k8s.io/v1");
    object
}

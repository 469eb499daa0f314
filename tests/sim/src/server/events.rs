//! Events have two groups and one store: what is written as `events.k8s.io/v1` is read as `v1` by kubectl,
//! and back.

use serde_json::{Value, json};

use super::{
    error::Cause,
    handle::Answer,
    request::{Query, Resource},
};
use crate::json::{put, set, take, text};

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

/// Bytes of an Event's note.
const MAX_NOTE: usize = 1024;

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

/// Faults of a new Event of `events.k8s.io/v1`, already in the core group's names. The core group takes
/// nearly anything.
pub fn check(event: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let longest = [("reportingComponent", 128), ("reportingInstance", 128), ("action", 128), ("reason", 128)];
    for (field, most) in longest {
        // The first has another name in the group that it is told to.
        let named = if field == "reportingComponent" { "reportingController" } else { field };
        let value = text(event, &format!("/{field}"));
        if value.is_empty() {
            causes.push(Cause::required(named, ""));
        } else if value.len() > most {
            causes.push(Cause::invalid(named, &value.into(), format!("can have at most {most} characters")));
        }
    }
    if !matches!(text(event, "/type"), "Normal" | "Warning") {
        causes.push(Cause::invalid("type", &event["type"], "has invalid value: "));
    }
    if text(event, "/message").len() > MAX_NOTE {
        let why = format!("can have at most {MAX_NOTE} characters");
        causes.push(Cause::invalid("message", &event["message"], why));
    }
    let (about, at) = (text(event, "/involvedObject/namespace"), text(event, "/metadata/namespace"));
    if about.is_empty() && !matches!(at, "default" | "kube-system") {
        let why = "does not match event.namespace";
        causes.push(Cause::invalid("involvedObject.namespace", &about.into(), why));
    }
    causes
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

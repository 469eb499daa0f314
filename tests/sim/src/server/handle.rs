//! From a request for a resource to its answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    State,
    delete::{self, Deleted},
    error::{ApiError, ApiResult, Cause, details},
    events,
    patch::{self, Style},
    read::Listed,
    request::{Query, Resource},
    write::{OTHER_NAMESPACE, Options, Part},
};
use crate::{
    auth::User,
    json::{set, text},
    kinds::Kind,
    store::{Key, Object},
};

/// A request, ready to be answered.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who asks.
    pub user: &'a User,
    /// What for.
    pub resource: &'a Resource,
    /// Parameters.
    pub query: &'a Query,
    /// `get`, `list`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// Content type of the body.
    pub content_type: &'a str,
    /// Body.
    pub body: Value,
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// One object, in whichever form the client wants.
    Object(u16, Arc<Kind>, Object),
    /// Many objects.
    List(Arc<Kind>, Listed),
    /// Something that has one form only.
    Raw(u16, Value),
}

impl Answer {
    /// HTTP status.
    pub fn code(&self) -> u16 {
        match self {
            Self::Object(code, ..) | Self::Raw(code, _) => *code,
            Self::List(..) => 200,
        }
    }
}

impl State {
    /// Answers everything but watches.
    pub fn answer(&mut self, call: Call<'_>) -> ApiResult<Answer> {
        if events::is_other_view(call.resource) {
            let (resource, query) = (events::to_core(call.resource), events::query_of(call.query));
            let mut body = events::body_to_core(call.body);
            if call.verb == "create" {
                set(&mut body, "/metadata/namespace", resource.namespace.clone());
                let causes = events::check(&body);
                if !causes.is_empty() {
                    let name = text(&body, "/metadata/name");
                    return Err(ApiError::invalid("Event.events.k8s.io", name, &causes));
                }
            }
            let call = Call { resource: &resource, query: &query, body, ..call };
            return self.answer(call).map(events::answer_from_core);
        }
        let resource = call.resource;
        if let Some(answer) = self.review(&call) {
            return Ok(Answer::Raw(201, answer));
        }
        let kind = self
            .registry
            .find(&resource.group, &resource.version, &resource.plural)
            .ok_or_else(ApiError::no_path)?;
        if kind.namespaced && resource.namespace.is_empty() && !matches!(call.verb, "list") {
            return Err(ApiError::no_path());
        }
        match (resource.sub.as_str(), call.verb) {
            ("", "list") => self.page(&kind, resource, call.query).map(|listed| Answer::List(kind, listed)),
            ("" | "status", "get") => {
                self.fetch(&kind, resource).map(|object| Answer::Object(200, kind, object))
            }
            ("", "create") => self.create(&kind, call),
            ("" | "status", "update") => self.update(&kind, call),
            ("" | "status", "patch") => self.patch(&kind, call),
            ("", "delete") => self.remove(&kind, &call),
            ("", "deletecollection") => self.remove_all(&kind, &call),
            ("eviction", "create") if kind.table() == "pods" => {
                self.evict(&kind, resource, &call.body, call.query).map(|a| Answer::Raw(201, a))
            }
            ("log", "get") if kind.table() == "pods" => {
                self.log(&kind, resource, call.query).map(|text| Answer::Raw(200, text.into()))
            }
            ("binding", "create") if kind.table() == "pods" => self.bind(resource, &call.body),
            ("token", "create") if kind.table() == "serviceaccounts" => {
                self.issue(resource, call.body).map(|a| Answer::Raw(201, a))
            }
            ("finalize", "update") if kind.table() == "namespaces" => self.update(&kind, call),
            ("scale", _) => Err(ApiError::method("scale")),
            (sub, verb) => Err(ApiError::method(&format!("{verb} {sub}"))),
        }
    }

    fn create(&mut self, kind: &Arc<Kind>, call: Call<'_>) -> ApiResult<Answer> {
        let mut object = call.body;
        let (sent, wanted) = (text(&object, "/metadata/namespace"), &call.resource.namespace);
        if kind.namespaced && !sent.is_empty() && sent != wanted {
            return Err(ApiError::bad_request(OTHER_NAMESPACE));
        }
        check_type(kind, &object)?;
        if kind.namespaced {
            set(&mut object, "/metadata/namespace", wanted.clone());
        }
        let stored = self.insert(kind, object, options(call.query, call.user))?;
        Ok(Answer::Object(201, kind.clone(), stored))
    }

    fn update(&mut self, kind: &Arc<Kind>, call: Call<'_>) -> ApiResult<Answer> {
        let old = self.fetch(kind, call.resource)?;
        check_type(kind, &call.body)?;
        let name = text(&call.body, "/metadata/name");
        if name != call.resource.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.resource.name
            )));
        }
        let part = part(kind, &call.resource.sub)?;
        if kind.needs_version() && text(&call.body, "/metadata/resourceVersion").is_empty() {
            let why = "must be specified for an update";
            let cause = Cause::invalid("metadata.resourceVersion", &0.into(), why);
            return Err(ApiError::invalid(kind.table(), name, &[cause]));
        }
        let (sent, found) = (text(&call.body, "/metadata/uid"), text(&old, "/metadata/uid"));
        if !sent.is_empty() && sent != found {
            let why =
                format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {found}");
            return Err(ApiError::conflict(kind.table(), name, &why));
        }
        let stored = self.replace(kind, &old, call.body, part, options(call.query, call.user))?;
        Ok(Answer::Object(200, kind.clone(), stored))
    }

    fn patch(&mut self, kind: &Arc<Kind>, call: Call<'_>) -> ApiResult<Answer> {
        let style = Style::of(call.content_type)?;
        if style == Style::Apply && call.query.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid("PatchOptions.meta.k8s.io", "", &[cause]));
        }
        let part = part(kind, &call.resource.sub)?;
        let options = options(call.query, call.user);
        let old = match self.fetch(kind, call.resource) {
            Err(error) if error.code == 404 && style == Style::Apply && part == Part::Main => {
                self.demand(call.user, "create", call.resource, &call.resource.name)?;
                let mut object = call.body;
                set(&mut object, "/metadata/name", call.resource.name.clone());
                if kind.namespaced {
                    set(&mut object, "/metadata/namespace", call.resource.namespace.clone());
                }
                let stored = self.insert(kind, object, options)?;
                return Ok(Answer::Object(201, kind.clone(), stored));
            }
            found => found?,
        };
        let patched = patch::apply(kind, style, &old, &call.body)?;
        let shown = (style != Style::Apply).then(|| patched.to_string());
        let stored = self.replace(kind, &old, patched, part, options).map_err(|error| match shown {
            Some(object) => patch::unreadable(error, object),
            None => error,
        })?;
        Ok(Answer::Object(200, kind.clone(), stored))
    }

    fn remove(&mut self, kind: &Arc<Kind>, call: &Call<'_>) -> ApiResult<Answer> {
        let options = delete::Options::parse(&call.body, call.query)?;
        let key = Key::new(kind.table(), &call.resource.namespace, &call.resource.name);
        Ok(match self.delete(kind, &key, &options)? {
            Deleted::Pending(object) => Answer::Object(200, kind.clone(), object),
            Deleted::Gone(object) if kind.table() == "pods" => Answer::Object(200, kind.clone(), object),
            Deleted::Gone(object) => {
                let mut details = details(&key.name, kind.table());
                details["uid"] = text(&object, "/metadata/uid").into();
                Answer::Raw(
                    200,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
                )
            }
        })
    }

    fn remove_all(&mut self, kind: &Arc<Kind>, call: &Call<'_>) -> ApiResult<Answer> {
        let options = delete::Options::parse(&call.body, call.query)?;
        let listed = self.page(kind, call.resource, call.query)?;
        for object in &listed.items {
            let key =
                Key::new(kind.table(), text(object, "/metadata/namespace"), text(object, "/metadata/name"));
            self.delete(kind, &key, &options)?;
        }
        Ok(Answer::List(kind.clone(), listed))
    }

    /// What a scheduler does: names the pod's node.
    fn bind(&mut self, resource: &Resource, body: &Value) -> ApiResult<Answer> {
        let key = Key::new("pods", &resource.namespace, &resource.name);
        let pod = self.store.get(&key).ok_or_else(|| ApiError::not_found("pods", &resource.name))?;
        if !text(&pod, "/spec/nodeName").is_empty() {
            return Err(ApiError::conflict(
                "pods/binding",
                &resource.name,
                &format!(
                    "pod {} is already assigned to node \"{}\"",
                    resource.name,
                    text(&pod, "/spec/nodeName")
                ),
            ));
        }
        self.assign(&key, text(body, "/target/name"));
        Ok(Answer::Raw(
            201,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ))
    }
}

fn options<'a>(query: &Query, user: &'a User) -> Options<'a> {
    Options { dry_run: query.dry_run(), strict: query.get("fieldValidation") == "Strict", user: Some(user) }
}

fn part(kind: &Kind, sub: &str) -> ApiResult<Part> {
    match sub {
        "status" if kind.status => Ok(Part::Status),
        "status" => Err(ApiError::no_path()),
        _ => Ok(Part::Main),
    }
}

fn check_type(kind: &Kind, object: &Value) -> ApiResult<()> {
    let (version, name) = (text(object, "/apiVersion"), text(object, "/kind"));
    let fits =
        (version.is_empty() || version == kind.api_version()) && (name.is_empty() || name == kind.kind);
    if fits {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "{name} in version \"{version}\" cannot be handled as a {}",
        kind.kind
    )))
}

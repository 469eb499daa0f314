//! Counts what is asked of the API server, as a layer around the client: whoever asks, it passes here.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{Method, Request, Response};
use prometheus_client::{
    metrics::{counter::Counter, family::Family as Series},
    registry::Registry,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    exposition::{labelled, register},
    families::API_REQUESTS,
};

/// Codes that are counted each for itself; others are `other`.
const CODES: [(u16, &str); 14] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (409, "409"),
    (410, "410"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
];
const OTHER: &str = "other";
/// There was no answer.
const NONE: &str = "none";
/// Nothing is deleted but by name.
const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// By verb and code.
type Counters = Series<[(&'static str, &'static str); 2], Counter>;

/// Counts requests; a layer of the client. Without counters it counts nothing.
#[derive(Clone, Debug, Default)]
pub struct Requests(Option<Counters>);

impl Requests {
    /// All from 0.
    pub fn registered(registry: &mut Registry) -> Self {
        let counters = Counters::default();
        for verb in VERBS {
            for code in CODES.iter().map(|(_, code)| *code).chain([OTHER, NONE]) {
                let _ = counters.get_or_create(&labelled(&API_REQUESTS, [verb, code]));
            }
        }
        register(registry, &API_REQUESTS, counters.clone());
        Self(Some(counters))
    }

    fn count(&self, verb: &'static str, code: Option<u16>) {
        let Some(counters) = &self.0 else { return };
        let known = |code| CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, name)| *name);
        counters.get_or_create(&labelled(&API_REQUESTS, [verb, code.map_or(NONE, known)])).inc();
    }
}

/// The verb as roles know it.
fn verb(method: &Method, path: &str, query: &str) -> &'static str {
    let named = names_an_object(path);
    match *method {
        Method::GET if named => "get",
        Method::GET if query.split('&').any(|part| part == "watch=true" || part == "watch=1") => "watch",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "list",
    }
}

/// Whether a path leads to one object, and not to all of a kind.
fn names_an_object(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // `api/VERSION`, or `apis/GROUP/VERSION`; anything else is a page of the server.
    let version = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return true,
    };
    let rest: Vec<&str> = parts.skip(version).collect();
    match rest.as_slice() {
        ["namespaces", _] => true,
        ["namespaces", _, rest @ ..] | rest => rest.len() > 1,
    }
}

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, requests: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    requests: Requests,
}

impl<S, B, A> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let verb = verb(request.method(), uri.path(), uri.query().unwrap_or_default());
        let (answer, requests) = (self.inner.call(request), self.requests.clone());
        // One that is given up counts too: its future is dropped, and the guard with it.
        let mut guard = Unanswered { requests, verb, code: None };
        Box::pin(async move {
            let answer = answer.await;
            guard.answered(answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}

/// Counts a request when it is over, however that comes.
struct Unanswered {
    requests: Requests,
    verb: &'static str,
    code: Option<u16>,
}

impl Unanswered {
    fn answered(&mut self, code: Option<u16>) {
        self.code = code;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.requests.count(self.verb, self.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_verbs_that_roles_have() {
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/nodes", "limit=500", "list"),
            (Method::GET, "/api/v1/nodes", "resourceVersion=1&watch=true", "watch"),
            (Method::GET, "/api/v1/nodes/n1", "", "get"),
            (Method::GET, "/api/v1/namespaces", "", "list"),
            (Method::GET, "/api/v1/namespaces/ns", "", "get"),
            (Method::GET, "/api/v1/namespaces/ns/pods", "&watch=true", "watch"),
            (Method::GET, "/api/v1/namespaces/ns/pods/p", "", "get"),
            (Method::GET, "/apis/batch/v1/namespaces/ns/jobs", "", "list"),
            (Method::GET, "/version", "", "get"),
            (Method::POST, "/api/v1/namespaces/ns/pods/p/eviction", "", "create"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l", "", "update"),
            (Method::PATCH, "/apis/operator.kairos.io/v1alpha1/namespaces/ns/nodeops/o/status", "", "patch"),
            (Method::DELETE, "/apis/batch/v1/namespaces/ns/jobs/j", "", "delete"),
        ] {
            let told = verb(&method, path, query);
            assert_eq!(told, expected, "{method} {path}?{query}");
            assert!(VERBS.contains(&told));
        }
    }

    #[test]
    fn codes_without_bound_are_one_series() {
        let mut registry = Registry::default();
        let requests = Requests::registered(&mut registry);
        for code in 100..600 {
            requests.count("get", Some(code));
        }
        requests.count("get", None);
        let counters = requests.0.unwrap();
        let of = |code| counters.get_or_create(&labelled(&API_REQUESTS, ["get", code])).get();
        assert_eq!((of("200"), of(NONE), of(OTHER)), (1, 1, 500 - CODES.len() as u64));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series, VERBS.len() * (CODES.len() + 2));
    }
}

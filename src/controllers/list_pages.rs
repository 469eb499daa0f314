//! Pages of a list: a smaller one instead of one that is too large, and a later one that is asked for again
//! where the API server fails for a moment.
//!
//! kube's watcher begins a list anew when a page of it fails. Where pods are large they are read one at a
//! time, and of fifty pages in a row one fails each time where an API server fails one request in fifty: the
//! list would never come in, nor the drain of the node begin whose pods they are. The server's word for where
//! a list stands (`continue`) is good for minutes.

use std::time::Duration;

use hyper::{Request, Response, StatusCode, Uri};
use kube::{Client, client::Body};
use tokio::time::sleep;

/// Objects in a page, where a page of more of them is too large. Several steps: of middling objects each page
/// would else be read in vain before each single one of them.
const FEWER: [u32; 2] = [6, 1];
/// Before each further try.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Sends a request, a few times if it asks for a later page and that fails for a reason that passes.
pub async fn send(client: &Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    if !query.split('&').any(|part| part.starts_with("continue=")) {
        return client.send(request).await;
    }
    for pause in PAUSES {
        match client.send(same(&request)).await {
            Ok(answer) if !passes(answer.status()) => return Ok(answer),
            Ok(_) | Err(_) => sleep(pause).await,
        }
    }
    client.send(request).await
}

/// Whether the server may answer otherwise in a moment.
fn passes(code: StatusCode) -> bool {
    code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS
}

/// What is asked instead of a request for a page of several objects: for fewer and fewer, in the end for one
/// alone. The page that follows is again as large as whoever asks wants it: that is in his requests, and not
/// in where the list stands.
pub fn smaller(request: &Request<Body>) -> Vec<Request<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|part| part.strip_prefix("limit="));
    let Some(limit) = asked.and_then(|asked| asked.parse::<u32>().ok()) else { return Vec::new() };
    FEWER.into_iter().filter(|fewer| *fewer < limit).filter_map(|fewer| of(request, fewer)).collect()
}

/// What a request asks, for at most this number of objects.
fn of(request: &Request<Body>, limit: u32) -> Option<Request<Body>> {
    let query = request.uri().query()?.split('&');
    let part = |part: &str| if part.starts_with("limit=") { format!("limit={limit}") } else { part.into() };
    let path = format!("{}?{}", request.uri().path(), query.map(part).collect::<Vec<_>>().join("&"));
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    let mut request = same(request);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}

/// Copies a request: one for a page has no body.
fn same(request: &Request<Body>) -> Request<Body> {
    let mut same = Request::new(Body::empty());
    request.method().clone_into(same.method_mut());
    request.uri().clone_into(same.uri_mut());
    request.headers().clone_into(same.headers_mut());
    same
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use kube::{Api, api::ListParams};
    use serde_json::json;

    use crate::{act::tests::Server, api::pod::Pod, controllers::large_answers};

    /// Asks for a page of a server that fails so often before it answers; whether it came, and how often the
    /// server was asked.
    async fn page(fails: usize, code: u16, params: &ListParams) -> (bool, usize) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let client = Server::client(move |_| match count.fetch_add(1, Relaxed) < fails {
            true => (
                code,
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code}),
            ),
            false => (200, json!({"metadata": {}, "items": []})),
        });
        let pods = Api::<Pod>::all(large_answers::one_at_a_time(client));
        (pods.list(params).await.is_ok(), asked.load(Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_fails_for_a_moment_does_not_begin_its_list_anew() {
        let first = ListParams::default().limit(2);
        let later = first.clone().continue_token("t");
        for code in [429, 500, 503, 504] {
            assert_eq!(page(3, code, &later).await, (true, 4), "{code}");
        }
        assert_eq!(page(4, 503, &later).await, (false, 4), "that does not pass");
        assert_eq!(page(1, 410, &later).await, (false, 1), "the list is too old");
        assert_eq!(page(1, 503, &first).await, (false, 1), "whoever asks begins anew himself");
    }
}

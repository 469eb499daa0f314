//! Answers `GET` and `HEAD` over plain HTTP: the probes on one listener, the metrics on another.
//!
//! Anybody who reaches the pod's address can connect, and the whole operator has a few dozen megabytes. So a
//! listener has at most [`MAX_CONNECTIONS`], each with one small request and some seconds. With one too many
//! the oldest is closed and not the newest: the kubelet's probe is answered in a moment, whatever else is
//! left half open.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// Connections of a listener at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take, from its first byte to its last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's header, and of each buffer: the least that hyper takes.
const BUFFER: usize = 8192;
/// The pause after a connection that could not be accepted, as when file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(500);
/// The content type of a sentence.
pub const PLAIN: &str = "text/plain; charset=utf-8";

/// What a listener serves. As a trait object: the server is in the binary once.
pub trait Answer: Send + Sync + 'static {
    /// The answer to a `GET` of this path; `None`: there is no such page.
    fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Bytes>>;
}

/// An answer with a body of this type.
pub fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// `:8081` means every address, as in Go; `0` means none.
pub fn address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text == "0" || text.is_empty() {
        return Ok(None);
    }
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    let parsed = full.parse().with_context(|| {
        format!("{text:?} is not an address to bind to; write :8081, 127.0.0.1:8081, or 0 for none")
    })?;
    Ok(Some(parsed))
}

/// Binds, so that an address that is taken is an error at the start, and serves until the runtime ends.
/// Returns the address that was bound.
pub async fn serve(
    what: &'static str,
    address: SocketAddr,
    pages: Arc<dyn Answer>,
) -> anyhow::Result<SocketAddr> {
    let listener = match TcpListener::bind(address).await {
        // A kernel without IPv6 has no `[::]`.
        Err(_) if address.ip().is_unspecified() => TcpListener::bind(("0.0.0.0", address.port())).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("binding {address} for {what}"))?;
    let bound = listener.local_addr().with_context(|| format!("binding {address} for {what}"))?;
    info!(address = %bound, "serving {what}");
    tokio::spawn(accept(listener, what, pages));
    Ok(bound)
}

/// Accepts connections for ever: an error is of one connection, or passes.
async fn accept(listener: TcpListener, what: &'static str, pages: Arc<dyn Answer>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tokio::spawn(converse(stream, what, pages.clone())).abort_handle());
            }
            Err(error) => {
                warn!(%error, "a connection for {what} could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one request.
async fn converse(stream: TcpStream, what: &'static str, pages: Arc<dyn Answer>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = reply(&*pages, &request).map(Full::new);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    let connection =
        server.keep_alive(false).max_buf_size(BUFFER).serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for {what} broke"),
        Err(_) => debug!("a connection for {what} took too long"),
    }
}

/// The answer to a request. That to a `HEAD` is sent without its body.
fn reply(pages: &dyn Answer, request: &Request<Incoming>) -> Response<Bytes> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".into());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let page = pages.answer(request.uri().path(), request.headers());
    page.unwrap_or_else(|| answer(StatusCode::NOT_FOUND, PLAIN, "not found\n".into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Page;

    impl Answer for Page {
        fn answer(&self, path: &str, _: &HeaderMap) -> Option<Response<Bytes>> {
            (path == "/page").then(|| answer(StatusCode::OK, PLAIN, "a page\n".into()))
        }
    }

    async fn listener() -> SocketAddr {
        serve("a test", SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Page)).await.unwrap()
    }

    /// All that is answered.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn addresses_as_go_writes_them() {
        let of = |text: &str| address(text).map(|address| address.map(|a| a.to_string()));
        assert_eq!(of("0").ok(), Some(None));
        assert_eq!(of(":8081").ok(), Some(Some("[::]:8081".into())));
        assert_eq!(of("127.0.0.1:9").ok(), Some(Some("127.0.0.1:9".into())));
        assert!(of("8081").is_err() && of(":port").is_err());
    }

    #[tokio::test]
    async fn every_answer_has_a_type_a_head_has_no_body_and_nothing_else_is_allowed() {
        let address = listener().await;
        for (method, path, code, ends) in [
            ("GET", "/page", "200", "\r\n\r\na page\n"),
            ("GET", "/page?query", "200", "\r\n\r\na page\n"),
            ("HEAD", "/page", "200", "\r\n\r\n"),
            ("GET", "/", "404", "\r\n\r\nnot found\n"),
            ("HEAD", "/", "404", "\r\n\r\n"),
            ("POST", "/page", "405", "\r\n\r\nonly GET and HEAD\n"),
            ("DELETE", "/", "405", "\r\n\r\nonly GET and HEAD\n"),
        ] {
            let answer = ask(address, method, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {path}: {answer}");
            assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
            assert!(answer.ends_with(ends), "{method} {path}: {answer}");
            assert_eq!(answer.contains("allow: GET, HEAD\r\n"), code == "405", "{answer}");
        }
        assert!(ask(address, "HEAD", "/page").await.contains("content-length: 7\r\n"));
    }

    #[tokio::test]
    async fn connections_that_are_left_half_open_keep_no_probe_from_its_answer() {
        let address = listener().await;
        let mut half_open = Vec::new();
        for n in 0..MAX_CONNECTIONS * 3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /page HTTP/1.1\r\nX: ").await.unwrap();
            half_open.push(stream);
            if n % MAX_CONNECTIONS == 0 {
                assert!(ask(address, "GET", "/page").await.contains(" 200 "), "with {n} half open");
            }
        }
        assert!(ask(address, "GET", "/page").await.contains(" 200 "));
        // The oldest ones were closed for it.
        for stream in half_open.iter_mut().take(MAX_CONNECTIONS) {
            let mut byte = [0];
            assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        }
    }

    #[tokio::test]
    async fn a_header_without_an_end_is_refused() {
        let address = listener().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = format!("GET /page HTTP/1.1\r\nX: {}", "x".repeat(BUFFER * 2));
        // It may be closed before all of it is sent.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed_in_time() {
        let address = listener().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::time::pause();
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
    }
}

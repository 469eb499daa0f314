//! `/healthz` and `/readyz` on one listener, `/metrics` on another, over plain HTTP.
//!
//! Healthy is a process whose planner came round lately; ready one whose caches are filled. A standby is
//! both.
//!
//! Anybody who reaches the pod's address can connect, and the whole operator has a few dozen megabytes. So a
//! listener has at most [`MAX_CONNECTIONS`], each with one small request and some seconds. With one too many
//! the oldest is closed and not the newest: the kubelet's probe is answered in a moment, whatever else is
//! left half open.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::observe::Observer;

/// The planner comes round at least every five minutes; twice that without a sign of it is a fault.
const ALIVE_WITHIN: Duration = Duration::from_secs(600);
/// Connections of a listener at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take, from its first byte to its last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's header, and of each buffer: the least that hyper takes.
const BUFFER: usize = 8192;
/// The pause after a connection that could not be accepted, as when file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(500);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// `/healthz` and `/readyz`.
    Probes,
    /// `/metrics`.
    Metrics,
}

/// What the probes ask.
#[derive(Debug)]
pub struct Health {
    last: Mutex<Instant>,
    passes: AtomicU64,
    observer: Observer,
}

impl Health {
    pub fn new(observer: Observer) -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), passes: AtomicU64::new(0), observer })
    }

    /// The planner came round.
    pub fn planned(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    fn alive(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < ALIVE_WITHIN
    }

    fn answer(&self, routes: Routes, path: &str) -> (StatusCode, String) {
        let check = |fine: bool, what: &str| {
            if fine {
                (StatusCode::OK, "ok\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n"))
            }
        };
        match (routes, path) {
            (Routes::Probes, "/healthz") => check(self.alive(), "the planner stands still"),
            (Routes::Probes, "/readyz") => check(self.observer.ready(), "the first lists have not come in"),
            (Routes::Metrics, "/metrics") => (StatusCode::OK, self.metrics()),
            _ => (StatusCode::NOT_FOUND, "not found\n".into()),
        }
    }

    fn metrics(&self) -> String {
        let passes = self.passes.load(Ordering::Relaxed);
        format!(
            "# HELP kairos_operator_plans_total Plans made since the start.\n# TYPE kairos_operator_plans_total counter\n\
             kairos_operator_plans_total {passes}\n"
        )
    }
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
pub async fn serve(health: Arc<Health>, address: SocketAddr, routes: Routes) -> anyhow::Result<SocketAddr> {
    let listener = match TcpListener::bind(address).await {
        // A kernel without IPv6 has no `[::]`.
        Err(_) if address.ip().is_unspecified() => TcpListener::bind(("0.0.0.0", address.port())).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("binding {address} for {routes:?}"))?;
    let bound = listener.local_addr().with_context(|| format!("binding {address} for {routes:?}"))?;
    info!(address = %bound, "serving {routes:?}");
    tokio::spawn(accept(listener, health, routes));
    Ok(bound)
}

/// Accepts connections for ever: an error is of one connection, or passes.
async fn accept(listener: TcpListener, health: Arc<Health>, routes: Routes) {
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
                open.push_back(tokio::spawn(converse(stream, health.clone(), routes)).abort_handle());
            }
            Err(error) => {
                warn!(%error, "a connection for {routes:?} could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one request.
async fn converse(stream: TcpStream, health: Arc<Health>, routes: Routes) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (status, body) = health.answer(routes, request.uri().path());
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    let connection =
        server.keep_alive(false).max_buf_size(BUFFER).serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for {routes:?} broke"),
        Err(_) => debug!("a connection for {routes:?} took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listener(routes: Routes) -> SocketAddr {
        let health = Health::new(Observer::default());
        serve(health, SocketAddr::from(([127, 0, 0, 1], 0)), routes).await.unwrap()
    }

    /// The status line's code.
    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
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
    async fn each_listener_serves_what_it_is_for_and_nothing_else() {
        let (probes, metrics) = (listener(Routes::Probes).await, listener(Routes::Metrics).await);
        let mut codes = Vec::new();
        for path in ["/healthz", "/readyz", "/metrics", "/"] {
            codes.push((get(probes, path).await, get(metrics, path).await));
        }
        let codes: Vec<(&str, &str)> =
            codes.iter().map(|(probe, metric)| (probe.as_str(), metric.as_str())).collect();
        assert_eq!(codes, [("200", "404"), ("503", "404"), ("404", "200"), ("404", "404")]);
    }

    #[tokio::test]
    async fn connections_that_are_left_half_open_keep_no_probe_from_its_answer() {
        let address = listener(Routes::Probes).await;
        let mut half_open = Vec::new();
        for n in 0..MAX_CONNECTIONS * 3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
            half_open.push(stream);
            if n % MAX_CONNECTIONS == 0 {
                assert_eq!(get(address, "/healthz").await, "200", "with {n} half open");
            }
        }
        assert_eq!(get(address, "/healthz").await, "200");
        // The oldest ones were closed for it.
        for stream in half_open.iter_mut().take(MAX_CONNECTIONS) {
            let mut byte = [0];
            assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        }
    }

    #[tokio::test]
    async fn a_header_without_an_end_is_refused() {
        let address = listener(Routes::Probes).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(BUFFER * 2));
        // It may be closed before all of it is sent.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed_in_time() {
        let address = listener(Routes::Metrics).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::time::pause();
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
    }
}

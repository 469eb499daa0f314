//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP.
//!
//! Healthy is a process whose planner came round lately; ready one whose caches are filled. A standby is both.

use std::{
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
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::Instant};
use tracing::{debug, info};

use crate::observe::Observer;

/// The planner comes round at least every five minutes; twice that without a sign of it is a fault.
const ALIVE_WITHIN: Duration = Duration::from_secs(600);

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

    fn answer(&self, path: &str) -> (StatusCode, String) {
        let check = |fine: bool, what: &str| {
            if fine { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")) }
        };
        match path {
            "/healthz" => check(self.alive(), "the planner stands still"),
            "/readyz" => check(self.observer.ready(), "the first lists have not come in"),
            "/metrics" => (StatusCode::OK, self.metrics()),
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
    let parsed =
        full.parse().with_context(|| format!("{text:?} is not an address to bind to; write :8081, 127.0.0.1:8081, or 0 for none"))?;
    Ok(Some(parsed))
}

/// Binds, so that an address that is taken is an error at the start, and serves until the runtime ends.
pub async fn serve(health: Arc<Health>, address: SocketAddr, what: &str) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(address).await {
        // A kernel without IPv6 has no `[::]`.
        Err(_) if address.ip().is_unspecified() => TcpListener::bind(("0.0.0.0", address.port())).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("binding {address} for {what}"))?;
    info!(%address, "serving {what}");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let health = health.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, body) = health.answer(request.uri().path());
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status;
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "a probe's connection broke");
                }
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_go_writes_them() {
        let of = |text: &str| address(text).map(|address| address.map(|a| a.to_string()));
        assert_eq!(of("0").ok(), Some(None));
        assert_eq!(of(":8081").ok(), Some(Some("[::]:8081".into())));
        assert_eq!(of("127.0.0.1:9").ok(), Some(Some("127.0.0.1:9".into())));
        assert!(of("8081").is_err() && of(":port").is_err());
    }
}

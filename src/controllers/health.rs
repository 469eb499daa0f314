//! The probes: `/healthz` and `/readyz`.
//!
//! Healthy is a process whose planner came round lately; ready one whose caches are filled. A standby is
//! both.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{HeaderMap, Response, StatusCode, body::Bytes};
use tokio::time::Instant;

use super::http::{Answer, PLAIN, answer};
use crate::observe::Observer;

/// The planner comes round at least every five minutes; twice that without a sign of it is a fault.
const ALIVE_WITHIN: Duration = Duration::from_secs(600);

/// What the probes ask.
#[derive(Debug)]
pub struct Health {
    last: Mutex<Instant>,
    observer: Observer,
}

impl Health {
    pub fn new(observer: Observer) -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), observer })
    }

    /// The planner came round.
    pub fn planned(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn alive(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < ALIVE_WITHIN
    }
}

impl Answer for Health {
    fn answer(&self, path: &str, _: &HeaderMap) -> Option<Response<Bytes>> {
        let (fine, what) = match path {
            "/healthz" => (self.alive(), "the planner stands still".into()),
            "/readyz" => {
                let missing = self.observer.unlisted();
                (self.observer.ready(), format!("the first lists have not come in: {missing}"))
            }
            _ => return None,
        };
        Some(if fine {
            answer(StatusCode::OK, PLAIN, "ok\n".into())
        } else {
            answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{what}\n"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_healthy_while_its_planner_comes_round_and_ready_once_it_has_seen_the_cluster() {
        let health = Health::new(Observer::default());
        let code = |path| health.answer(path, &HeaderMap::new()).map(|answer| answer.status().as_u16());
        assert_eq!(["/healthz", "/readyz", "/metrics", "/"].map(code), [Some(200), Some(503), None, None]);
        tokio::time::advance(ALIVE_WITHIN).await;
        assert_eq!(code("/healthz"), Some(503));
        health.planned();
        assert_eq!(code("/healthz"), Some(200));
        let said = health.answer("/readyz", &HeaderMap::new()).unwrap().into_body();
        let missing = "the first lists have not come in: nodes, NodeOps, NodeOpUpgrades, facts pods\n";
        assert_eq!(said, missing);
    }
}

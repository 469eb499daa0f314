//! `/metrics`: what is measured, and how it is served.
//!
//! - `families`: every family with name, labels and meaning, in one table;
//! - `exposition`: the two text formats, and how a family gets into them;
//! - `operations`: gauges of operations and nodes, derived at each plan from the statuses;
//! - `progress`: what is counted and timed when a node goes on;
//! - `requests`: a layer of the client that counts requests.
//!
//! The planner knows nothing of it. A process that serves no metrics makes none of this, and does no work for
//! it. What an alert looks at is a gauge from `operations`: a counter begins anew with each process.

mod exposition;
pub mod families;
mod operations;
mod progress;
mod requests;

use std::{
    fmt::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{HeaderMap, Response, StatusCode, body::Bytes, header::ACCEPT};
use prometheus_client::{
    metrics::{counter::Counter, family::Family as Series, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use tracing::error;

use self::{
    exposition::{Format, labelled, register},
    families::{BLOCKED, BUILD, EVENTS_LOST, EVICTIONS, LEADER, PLAN_DURATION, PLANS},
    operations::{Gauges, Operations},
    progress::Counted,
    requests::Requests,
};
use super::http::{Answer, answer};
use crate::{
    api::nodeop::{NodeOp, NodeOpStatus},
    plan::model::{effects::Plan, snapshot::Snapshot},
};

/// Seconds: a plan for a few nodes takes less than a millisecond, one for thousands some dozens.
const PLAN_BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// What came of a try to evict a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionResult {
    Evicted,
    /// A PodDisruptionBudget has no room.
    Budget,
    /// Refused for another reason.
    Refused,
    /// It was gone, or on its way out.
    Gone,
    /// Another pod has its name by now, or it is on another node.
    Changed,
    /// No answer, or an error.
    Error,
}

impl EvictionResult {
    const ALL: [Self; 6] =
        [Self::Evicted, Self::Budget, Self::Refused, Self::Gone, Self::Changed, Self::Error];

    const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Budget => "budget",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Error => "error",
        }
    }
}

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    /// Served by every replica.
    process: Registry,
    /// Served by the one that leads.
    cluster: Registry,
    leader: Gauge,
    plans: Counter,
    plan_duration: Histogram,
    blocked: Gauge,
    events_lost: Counter,
    requests: Requests,
    evictions: Series<[(&'static str, &'static str); 1], Counter>,
    counted: Counted,
    operations: Arc<Mutex<Operations>>,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let (mut process, mut cluster) = (Registry::default(), Registry::default());
        register(&mut process, &BUILD, Info::new(labelled(&BUILD, [env!("CARGO_PKG_VERSION")])));
        let (leader, blocked, plans) = (Gauge::default(), Gauge::default(), Counter::default());
        let plan_duration = Histogram::new(PLAN_BUCKETS);
        register(&mut process, &LEADER, leader.clone());
        register(&mut process, &PLANS, plans.clone());
        register(&mut process, &PLAN_DURATION, plan_duration.clone());
        let requests = Requests::registered(&mut process);
        register(&mut process, &BLOCKED, blocked.clone());
        let events_lost = Counter::default();
        register(&mut process, &EVENTS_LOST, events_lost.clone());
        let operations = Arc::<Mutex<Operations>>::default();
        cluster.register_collector(Box::new(Gauges(operations.clone())));
        let counted = Counted::registered(&mut cluster);
        let evictions = Series::<_, Counter>::default();
        for result in EvictionResult::ALL {
            let _ = evictions.get_or_create(&labelled(&EVICTIONS, [result.name()]));
        }
        register(&mut cluster, &EVICTIONS, evictions.clone());
        Arc::new(Self {
            process,
            cluster,
            leader,
            plans,
            plan_duration,
            blocked,
            events_lost,
            requests,
            evictions,
            counted,
            operations,
        })
    }

    /// The layer of the client that counts its requests.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Whether this process leads. One that does not knows nothing of operations, and says nothing of them.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.blocked.set(0);
            *self.operations.lock().unwrap_or_else(PoisonError::into_inner) = Operations::default();
        }
    }

    /// A plan was computed.
    pub fn computed(&self, took: Duration) {
        self.plans.inc();
        self.plan_duration.observe(took.as_secs_f64());
    }

    /// A pass has its plan.
    pub fn planned(&self, snapshot: &Snapshot, plan: &Plan) {
        self.blocked.set(i64::from(!snapshot.failures.is_empty()));
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.planned(snapshot, plan, &self.counted);
    }

    /// A status was written in place of the one that stands in `op`.
    pub fn recorded(&self, op: &NodeOp, status: &NodeOpStatus) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.recorded(op, status, &self.counted);
    }

    /// A try to evict a pod has come to its end.
    pub fn evicted(&self, result: EvictionResult) {
        self.evictions.get_or_create(&labelled(&EVICTIONS, [result.name()])).inc();
    }

    /// Counts Events that were given up.
    pub fn events_lost(&self, events: usize) {
        self.events_lost.inc_by(events as u64);
    }

    fn text(&self, format: Format) -> Result<String, Error> {
        let registries = [&self.process, &self.cluster];
        format.text(if self.leader.get() == 1 { &registries } else { &registries[..1] })
    }
}

impl Answer for Metrics {
    fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        if path != "/metrics" {
            return None;
        }
        let accepted: Vec<&str> =
            headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let format = Format::wanted(&accepted.join(","));
        Some(match self.text(format) {
            Ok(text) => answer(StatusCode::OK, format.content_type(), text),
            Err(error) => {
                error!(%error, "the metrics could not be written");
                answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    super::http::PLAIN,
                    "the metrics could not be written\n".into(),
                )
            }
        })
    }
}

#[cfg(test)]
mod tests;

//! For how long each pass of the planner kept its thread, as the operator says in its log: to look at what is
//! there, to plan and to take results, and beside that for its requests.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{self, DefaultGuard},
};

/// Of what the operator logs.
const COMPUTED: &str = "computed_us";
const REQUESTS: &str = "requests_us";

/// The passes so far.
#[derive(Clone, Debug, Default)]
pub struct Passes(Arc<Mutex<Vec<Pass>>>);

/// What a pass took.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Without its requests.
    computed: Duration,
    requests: Duration,
}

impl Passes {
    /// Notes the passes of this thread, for as long as the guard lives.
    pub fn note() -> (Self, DefaultGuard) {
        let passes = Self::default();
        (passes.clone(), subscriber::set_default(passes))
    }

    /// Forgets the passes so far.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many there were, what they took, and what they took with their requests.
    pub fn summary(&self) -> Summary {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Summary {
            count: all.len(),
            computed: Spread::of(all.iter().map(|pass| pass.computed).collect()),
            with_requests: Spread::of(all.iter().map(|pass| pass.computed + pass.requests).collect()),
        }
    }
}

/// What passes took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub count: usize,
    pub computed: Spread,
    pub with_requests: Spread,
}

/// The median, the one that 99 of 100 do not exceed, and the longest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread([Duration; 3]);

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1))).copied();
        Self([50, 99, 100].map(|part| at(part).unwrap_or_default()))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99, longest] = self.0.map(|time| time.as_secs_f64() * 1e3);
        write!(f, "{median:.1} / {p99:.1} / {longest:.1}")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, computed, with_requests } = self;
        write!(f, "{count} | {computed} | {with_requests}")
    }
}

impl Visit for Pass {
    fn record_u128(&mut self, field: &Field, value: u128) {
        let took = Duration::from_micros(u64::try_from(value).unwrap_or(u64::MAX));
        match field.name() {
            COMPUTED => self.computed = took,
            REQUESTS => self.requests = took,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Subscriber for Passes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.fields().field(COMPUTED).is_some()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut pass = Pass::default();
        event.record(&mut pass);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pass);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

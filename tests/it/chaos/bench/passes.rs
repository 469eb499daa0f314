//! For how long each pass of the planner kept its thread, as the operator says in its log.

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

/// The passes so far.
#[derive(Clone, Debug, Default)]
pub struct Passes(Arc<Mutex<Vec<Duration>>>);

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

    /// How many there were, and of these the median, the one that 99 of 100 do not exceed, and the longest.
    pub fn summary(&self) -> Summary {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_unstable();
        let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1))).copied();
        let [median, p99, longest] = [50, 99, 100].map(|part| at(part).unwrap_or_default());
        Summary { count: all.len(), median, p99, longest }
    }
}

/// What passes took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub count: usize,
    pub median: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Self { count, median, p99, longest } = self;
        write!(f, "{count} | {:.1} / {:.1} / {:.1}", ms(*median), ms(*p99), ms(*longest))
    }
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
        struct Micros(Option<u128>);
        impl Visit for Micros {
            fn record_u128(&mut self, field: &Field, value: u128) {
                self.0 = (field.name() == COMPUTED).then_some(value).or(self.0);
            }

            fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
        }
        let mut micros = Micros(None);
        event.record(&mut micros);
        let took = micros.0.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(took);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

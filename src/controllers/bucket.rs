//! A token bucket, kept as one moment of a monotonic clock.

use std::time::Duration;

use tokio::time::Instant;

/// What was taken lately, as the moment until which it would have lasted, had it been taken one by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket(Option<Instant>);

impl Bucket {
    /// Takes a token; it is given back after `every`.
    pub fn take(&mut self, now: Instant, every: Duration) {
        self.0 = Some(self.0.map_or(now, |until| until.max(now)) + every);
    }

    /// From when the next one may be taken, of which `burst` may be at once; nothing if any time will do.
    pub fn due(&self, every: Duration, burst: u32) -> Option<Instant> {
        self.0?.checked_sub(every * (burst - 1))
    }

    /// Whether all have come back: it is as good as new.
    pub fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|until| until <= now)
    }
}

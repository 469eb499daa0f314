//! The clock that plans are made by, and that is written into objects: the wall clock of the start, and the
//! time that has passed since then.
//!
//! So it never jumps while a process lives. Deadlines that a leader sets and judges by it are those of a
//! monotonic clock, whatever somebody or NTP does to the machine's; a step of that one is seen by the next
//! process.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Timestamp,
    since: Instant,
}

impl Clock {
    /// Set by the machine's clock, now.
    pub fn system() -> Self {
        Self::set_to(Timestamp::now())
    }

    /// A clock that shows `now` at this moment, and goes on from there.
    pub fn set_to(now: Timestamp) -> Self {
        Self { start: now, since: Instant::now() }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.saturating_add(passed).unwrap_or(self.start)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_by_what_has_passed_and_by_nothing_else() {
        let clock = Clock::set_to(Timestamp::constant(1_000, 0));
        assert_eq!(clock.now(), Timestamp::constant(1_000, 0));
        // The machine's own clock has not gone on by a second here.
        tokio::time::advance(Duration::from_secs(7_200)).await;
        assert_eq!(clock.now(), Timestamp::constant(8_200, 0));
    }
}

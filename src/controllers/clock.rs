//! The clock that plans are made by, and that is written into objects: the wall clock of the start, and the
//! time that has passed since then.
//!
//! So it never jumps while a process lives. Deadlines that a leader sets and judges by it are those of a
//! monotonic clock, whatever somebody or NTP does to the machine's. But what is compared with a time that a
//! user set, `notAfter`, needs the right one: a board without a battery starts years behind, and a machine
//! that was suspended wakes up hours behind. So when the machine's clock has gone its own way, this process
//! is to end, and the next one starts with the right time (see [`Clock::differs`]).

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

/// How far the machine's clock may be from this one. NTP corrects less than that without a step, and no one
/// who sets `notAfter` means the minute.
const APART: SignedDuration = SignedDuration::from_secs(60);
/// How often they are compared.
const COMPARED_EVERY: Duration = Duration::from_secs(5);

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

    /// Waits until the machine's clock, which `wall` reads, shows another time than this one, and returns by
    /// how much it is ahead.
    pub async fn differs(&self, wall: impl Fn() -> Timestamp) -> SignedDuration {
        loop {
            let ahead = wall().duration_since(self.now());
            if ahead.abs() > APART {
                return ahead;
            }
            sleep(COMPARED_EVERY).await;
        }
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

/// What may lie between the readings of two clocks on a busy machine: a difference of less is no suspension.
const READING: Duration = Duration::from_secs(1);

/// A moment, from which what passes is counted also while the machine is suspended: others go on meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    at: Instant,
    asleep: Duration,
}

impl Moment {
    pub fn now() -> Self {
        Self { at: Instant::now(), asleep: asleep() }
    }

    pub fn elapsed(&self) -> Duration {
        self.elapsed_until(asleep())
    }

    /// `asleep` is what [`asleep`] is by now.
    fn elapsed_until(&self, asleep: Duration) -> Duration {
        let suspended = asleep.saturating_sub(self.asleep);
        self.at.elapsed() + if suspended < READING { Duration::ZERO } else { suspended }
    }
}

/// For how long this machine has been suspended since it booted: by that much is one of its clocks, which
/// goes on meanwhile, ahead of the other, by which an [`Instant`] is. Nothing where they cannot be read.
fn asleep() -> Duration {
    let clocks = [ClockId::CLOCK_BOOTTIME, ClockId::CLOCK_MONOTONIC].map(clock_gettime);
    let [Ok(boot), Ok(awake)] = clocks else { return Duration::ZERO };
    Duration::from(boot).saturating_sub(awake.into())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_by_what_has_passed_and_by_nothing_else() {
        let clock = Clock::set_to(Timestamp::constant(1_000, 0));
        assert_eq!(clock.now(), Timestamp::constant(1_000, 0));
        // The machine's own clock has not gone on by a second here.
        tokio::time::advance(Duration::from_secs(7_200)).await;
        assert_eq!(clock.now(), Timestamp::constant(8_200, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_while_the_machine_is_suspended_counts() {
        let before = Moment { at: Instant::now(), asleep: Duration::from_secs(100) };
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(before.elapsed_until(Duration::from_millis(100_900)), Duration::from_secs(3));
        assert_eq!(before.elapsed_until(Duration::from_secs(3_700)), Duration::from_secs(3_603));
        assert!(Moment::now().elapsed() < Duration::from_secs(1), "nothing was suspended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_whose_clock_was_set_is_told_from_one_whose_clock_drifts() {
        let at = |second| Timestamp::constant(second, 0);
        let day = Duration::from_secs(86_400);
        for (stepped, found) in [(0, None), (60, None), (-60, None), (61, Some(61)), (-61, Some(-61))] {
            let (clock, machine) = (Clock::set_to(at(1_000)), Clock::set_to(at(1_000)));
            let begun = Instant::now();
            // Set after a minute.
            let wall = || {
                let set = if begun.elapsed() > Duration::from_secs(60) { stepped } else { 0 };
                machine.now() + SignedDuration::from_secs(set)
            };
            let differs = timeout(day, clock.differs(wall)).await;
            assert_eq!(differs.ok().map(|ahead| ahead.as_secs()), found, "{stepped}");
            assert!(found.is_none() || begun.elapsed() <= Duration::from_secs(66), "it is seen soon");
        }
        // NTP set it before the first look: a process that started with the clock of a board without a
        // battery.
        assert!(Clock::set_to(at(0)).differs(|| at(1_800_000_000)).await > SignedDuration::ZERO);
    }
}

//! A moment that stands in a status.
//!
//! Whoever led then wrote it by a clock of its own, which may be hours or, on a board without a battery,
//! years away from ours. So no time is reckoned from a stamp as it stands: it counts from when we began to
//! lead, unless we wrote it ourselves. What has an end ends later so, never too early. That is why a
//! [`Stamp`] is no [`Timestamp`]: `Snapshot::begun_at` makes one of it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// A moment by the clock of whoever wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Timestamp);

impl Stamp {
    /// As it stands in the status, to be written there again, or shown.
    pub fn written(self) -> Timestamp {
        self.0
    }

    /// When it was, unless it lies ahead of our clock: then a clock that was wrong wrote it, and nothing is
    /// known of when it was, but that it is past.
    pub fn trusted(self, now: Timestamp) -> Option<Timestamp> {
        Some(self.0).filter(|at| *at <= now)
    }
}

impl From<&Time> for Stamp {
    fn from(time: &Time) -> Self {
        Self(time.0)
    }
}

impl From<Timestamp> for Stamp {
    fn from(now: Timestamp) -> Self {
        Self(now)
    }
}

//! Reckoning with times that a spec may push to their limits.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::plan::model::stamp::Stamp;

/// `now + span`, or the end of time: a spec may say 2 147 483 647 seconds.
pub fn later(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// `now - span`, or the beginning of time.
pub fn earlier(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// How often something is written at most, if nobody waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Pace(pub SignedDuration);

impl Pace {
    /// When the next write is due, if that is still to come; `last`: when the status was last written, as it
    /// says.
    pub fn waits(self, last: Option<&Time>, now: Timestamp) -> Option<Timestamp> {
        let due = later(Stamp::from(last?).trusted(now)?, self.0);
        (now < due).then_some(due)
    }
}

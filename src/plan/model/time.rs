//! Reckoning with times that a spec may push to their limits.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// `now + span`, or the end of time: a spec may say 2 147 483 647 seconds.
pub fn later(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// `now - span`, or the beginning of time.
pub fn earlier(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}

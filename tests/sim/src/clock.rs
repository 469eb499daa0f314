//! The wall clock of the server and its nodes: the real one, or one that a test on paused time sets and
//! moves.
//!
//! Everything that waits uses `tokio::time`, which a test can pause. What is written into objects comes from
//! here. The clock is the thread's own: a test on paused time has a runtime of one thread, and others beside
//! it theirs.

use std::cell::Cell;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

thread_local! {
    static SET: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// Sets the clock of this thread: `at` now, and as much later as tokio's time has gone on since.
pub fn set(at: Timestamp) {
    SET.set(Some((at, Instant::now())));
}

/// Moves the clock of this thread, as a correction of a machine's clock does. Without [`set`] nothing
/// happens.
pub fn jump(by: SignedDuration) {
    SET.set(SET.get().map(|(at, since)| (at.saturating_add(by).unwrap_or(at), since)));
}

/// The present time.
pub fn now() -> Timestamp {
    SET.get().map_or_else(Timestamp::now, |(at, since)| {
        let gone = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::ZERO);
        at.saturating_add(gone).unwrap_or(at)
    })
}

//! Lists and watches that fail, and when that is told.

use std::time::Duration;

use tokio::time::Instant;

use super::Cache;

/// How long a list, or a watch, may fail before somebody is told.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// How long after a failure another one is a new story: one is tried again within a minute.
const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

/// A list or a watch that fails.
#[derive(Debug)]
pub(super) struct Broken {
    since: Instant,
    last: Instant,
    why: String,
}

impl<V> Cache<V> {
    /// The watch broke. Whether there is something to be told of it: see [`Self::lasting_error`].
    pub fn broke(&mut self, why: String) -> bool {
        let last = Instant::now();
        let before =
            self.broken.take().filter(|broken| !self.ready || broken.last.elapsed() < FORGIVEN_AFTER);
        let since = before.map_or(last, |broken| broken.since);
        self.broken = Some(Broken { since, last, why });
        self.lasting_error().is_some()
    }

    /// Why what is here is not what there is, if that has gone on for a while: an API server that restarts is
    /// away for some seconds, and nobody has to know. A watch that is taken up again after that says nothing
    /// until something happens; so of one that was there the last failure counts, and [`Self::is_stale`].
    pub fn lasting_error(&self) -> Option<&str> {
        let lasts = |broken: &&Broken| {
            let until = if self.ready { broken.last } else { Instant::now() };
            until.duration_since(broken.since) >= TOLD_AFTER
        };
        self.broken.as_ref().filter(lasts).map(|broken| broken.why.as_str())
    }

    /// Whether another list is to tell what there is, and none is under way.
    pub fn is_stale(&self) -> bool {
        self.lists_anew && self.ready && self.listing.is_none() && self.lasting_error().is_some()
    }

    /// The watch delivers.
    pub fn heard(&mut self) {
        if self.listing.is_none() {
            self.broken = None;
        }
    }
}

//! When it was what a stamp says, see [`Stamp`].

use k8s_openapi::jiff::Timestamp;

use super::Snapshot;
use crate::plan::model::stamp::Stamp;

impl Snapshot {
    /// When something began of which a moment is recorded: no earlier than we began to lead.
    pub fn begun_at(&self, recorded: impl Into<Stamp>) -> Timestamp {
        let at = recorded.into().written();
        if at > self.now { self.leading_since } else { at.max(self.leading_since) }
    }

    /// When something began of which a moment may be recorded; now, if none is.
    pub fn begun_at_or_now(&self, recorded: Option<Stamp>) -> Timestamp {
        recorded.map_or(self.now, |at| self.begun_at(at))
    }

    /// Whether it was written since we began to lead, as far as its time says.
    pub fn is_of_our_time(&self, recorded: impl Into<Stamp>) -> bool {
        let at = recorded.into().written();
        (self.leading_since..=self.now).contains(&at)
    }
}

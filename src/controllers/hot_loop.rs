//! The same thing done again and again, each time with success: somebody undoes it, and would for ever at the
//! speed of the network. A human who uncordons a node in hand is one thing, a controller that does is
//! another.
//!
//! Each action may be repeated so often at once, and once a minute from then on. Beyond that a success is
//! taken for a failure: told, and tried with growing pauses, until it was wanted seldom enough for a while.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::plan::model::identity::Id;

/// Repetitions at once. Several NodeOps in a row on one node patch it a few times each.
const BURST: u32 = 60;
/// After so long one more is allowed.
const REFILL_EVERY: Duration = Duration::from_secs(60);

/// What is said of it.
pub const MESSAGE: &str =
    "it succeeds, and is undone again and again: another controller, or somebody's script, works against it";

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    at: Instant,
    exhausted: bool,
}

/// How often each action may still be repeated.
#[derive(Debug, Default)]
pub struct HotLoopLimiter {
    known: BTreeMap<Id, Bucket>,
}

impl HotLoopLimiter {
    /// Counts a success; whether it is one too many.
    pub fn too_often(&mut self, what: Id, now: Instant) -> bool {
        self.known.retain(|_, count| now.saturating_duration_since(count.at) < REFILL_EVERY * BURST);
        let count = self.known.entry(what).or_insert(Bucket { tokens: BURST, at: now, exhausted: false });
        let minutes = now.saturating_duration_since(count.at).as_secs() / REFILL_EVERY.as_secs();
        count.tokens = count.tokens.saturating_add(u32::try_from(minutes).unwrap_or(BURST)).min(BURST);
        count.at += REFILL_EVERY * u32::try_from(minutes).unwrap_or(0);
        count.exhausted = if count.exhausted { count.tokens < BURST / 4 } else { count.tokens == 0 };
        count.tokens = count.tokens.saturating_sub(1);
        count.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(does: &'static str) -> Id {
        Id::Action { does, to: "n1".into() }
    }

    #[test]
    fn a_burst_passes_a_war_does_not_and_peace_is_seen() {
        let (mut repeats, mut now) = (HotLoopLimiter::default(), Instant::now());
        let burst = (0..BURST).filter(|_| repeats.too_often(id("a"), now)).count();
        assert_eq!(burst, 0);
        assert!(repeats.too_often(id("a"), now) && !repeats.too_often(id("b"), now));
        now += REFILL_EVERY * 2;
        assert!(repeats.too_often(id("a"), now), "it is still at war after two minutes");
        now += REFILL_EVERY * 20;
        assert!(!repeats.too_often(id("a"), now));
        now += REFILL_EVERY * (BURST + 1);
        repeats.too_often(id("c"), now);
        assert_eq!(repeats.known.len(), 1, "what is over is forgotten");
    }
}

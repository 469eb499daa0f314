//! The same thing done again and again, each time with success: somebody undoes it, and would for ever at the speed of the
//! network. A human who uncordons a node in hand is one thing, a controller that does is another.
//!
//! Each action may be repeated so often at once, and once a minute from then on. Beyond that a success is taken for a
//! failure: told, and tried with growing pauses, until it was wanted seldom enough for a while.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::plan::model::identity::Id;

/// Repetitions at once. Several NodeOps in a row on one node patch it a few times each.
const AT_ONCE: u32 = 60;
/// After so long one more is allowed.
const EACH: Duration = Duration::from_secs(60);

/// What is said of it.
pub const WORDS: &str = "it succeeds, and is undone again and again: another controller, or somebody's script, works against it";

#[derive(Debug)]
struct Count {
    left: u32,
    at: Instant,
    fought: bool,
}

/// How often each action may still be repeated.
#[derive(Debug, Default)]
pub struct Repeats {
    known: BTreeMap<Id, Count>,
}

impl Repeats {
    /// Counts a success; whether it is one too many.
    pub fn too_often(&mut self, what: Id, now: Instant) -> bool {
        self.known.retain(|_, count| now.saturating_duration_since(count.at) < EACH * AT_ONCE);
        let count = self.known.entry(what).or_insert(Count { left: AT_ONCE, at: now, fought: false });
        let minutes = now.saturating_duration_since(count.at).as_secs() / EACH.as_secs();
        count.left = count.left.saturating_add(u32::try_from(minutes).unwrap_or(AT_ONCE)).min(AT_ONCE);
        count.at += EACH * u32::try_from(minutes).unwrap_or(0);
        count.fought = if count.fought { count.left < AT_ONCE / 4 } else { count.left == 0 };
        count.left = count.left.saturating_sub(1);
        count.fought
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
        let (mut repeats, mut now) = (Repeats::default(), Instant::now());
        let burst = (0..AT_ONCE).filter(|_| repeats.too_often(id("a"), now)).count();
        assert_eq!(burst, 0);
        assert!(repeats.too_often(id("a"), now) && !repeats.too_often(id("b"), now));
        now += EACH * 2;
        assert!(repeats.too_often(id("a"), now), "it is still at war after two minutes");
        now += EACH * 20;
        assert!(!repeats.too_often(id("a"), now));
        now += EACH * (AT_ONCE + 1);
        repeats.too_often(id("c"), now);
        assert_eq!(repeats.known.len(), 1, "what is over is forgotten");
    }
}

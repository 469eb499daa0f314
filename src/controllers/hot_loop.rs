//! The same thing done again and again, each time with success: somebody undoes it, and would for ever at the
//! speed of the network. A human who uncordons a node that is worked on is one thing, a controller that does
//! is another.
//!
//! Each action may be repeated [`BURST`] times at once, and once a minute from then on. Beyond that a success
//! is taken for a failure: told, and tried with growing pauses, until it was wanted seldom enough for a
//! while.
//!
//! What is done to a node is counted for one NodeOp after the other: a site may well run a hundred of them an
//! hour on one node, and each patches it a few times.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::plan::model::{action::Action, identity::Id};

/// How often an action may be repeated at once.
const BURST: u32 = 60;
/// How often an object may be made again at once. It has a name of its own: it is wanted again only where
/// somebody deleted it, as the garbage collector does at once to a pod of a Node that is gone, and that an
/// old view still shows. A Job is no such object: we make it again ourselves for as long as no pod of it can
/// start.
const BURST_OF_MAKING: u32 = 10;
/// The time after which one more is allowed.
const REFILL_EVERY: Duration = Duration::from_secs(60);

/// How often what is over is forgotten.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// What is said of it.
pub const MESSAGE: &str =
    "it succeeds, and is undone again and again: another controller, or somebody's script, works against it";

/// How often an action may be repeated at once; `None`: a status is written as often as there is something to
/// say.
fn burst(action: &Action) -> Option<u32> {
    match action {
        Action::PatchStatus { .. } | Action::PatchUpgradeStatus { .. } => None,
        Action::CreateChild { .. }
        | Action::CreateFactsPod { .. }
        | Action::CreatePreflightPod { .. }
        | Action::CreateWaiter { .. } => Some(BURST_OF_MAKING),
        _ => Some(BURST),
    }
}

/// UID of the NodeOp for which a node is claimed, or says something: it is another one's turn.
fn turn_of(action: &Action) -> Option<&str> {
    let op = match action {
        Action::PatchNode { change, .. } => change.claimed_by.as_ref()?.as_ref()?,
        Action::PatchNodeConditions { change, .. } => &change.set.first()?.1,
        _ => return None,
    };
    Some(&op.uid)
}

#[derive(Debug)]
struct Bucket {
    /// Whose turn it is, if the action is about a node.
    turn_of: Option<String>,
    burst: u32,
    tokens: u32,
    at: Instant,
    exhausted: bool,
}

/// How often each action may still be repeated.
#[derive(Debug, Default)]
pub struct HotLoopLimiter {
    known: BTreeMap<Id, Bucket>,
    /// When what is over was forgotten last.
    swept: Option<Instant>,
}

impl HotLoopLimiter {
    /// Counts a success of the action with this identity; whether it is one too many.
    pub fn too_often(&mut self, action: &Action, id: &Id, now: Instant) -> bool {
        burst(action).is_some_and(|burst| self.exceeds(id.clone(), turn_of(action), burst, now))
    }

    /// Counts a success of what may be repeated `burst` times at once, and as often again when the turn of
    /// another NodeOp begins; whether it is one too many.
    fn exceeds(&mut self, what: Id, turn_of: Option<&str>, burst: u32, now: Instant) -> bool {
        self.forget(now);
        let fresh = || Bucket {
            turn_of: turn_of.map(ToOwned::to_owned),
            burst,
            tokens: burst,
            at: now,
            exhausted: false,
        };
        let bucket = self.known.entry(what).or_insert_with(fresh);
        bucket.refill(now);
        if turn_of.is_some() && bucket.turn_of.as_deref() != turn_of {
            *bucket = fresh();
        }
        bucket.exhausted =
            if bucket.exhausted { bucket.tokens < bucket.burst / 4 } else { bucket.tokens == 0 };
        bucket.tokens = bucket.tokens.saturating_sub(1);
        bucket.exhausted
    }

    /// Forgets what may be repeated as often as ever, which is as good as new: most is done once, and
    /// forgotten a minute later. Not at each action: there are thousands of them in a minute.
    fn forget(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEPT_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.known.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < bucket.burst
        });
    }
}

impl Bucket {
    /// One more for each minute that has passed.
    fn refill(&mut self, now: Instant) {
        let minutes = now.saturating_duration_since(self.at).as_secs() / REFILL_EVERY.as_secs();
        let minutes = u32::try_from(minutes).unwrap_or(self.burst);
        self.tokens = self.tokens.saturating_add(minutes).min(self.burst);
        self.at += REFILL_EVERY * minutes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::{action::NodeChange, id::OpRef, identity::Identified};

    fn id(does: &'static str) -> Id {
        Id::Action { does, to: "n1".into() }
    }

    fn too_often(repeats: &mut HotLoopLimiter, action: &Action, now: Instant) -> bool {
        repeats.too_often(action, &action.id(), now)
    }

    /// Chaos, seed 9909: a node without room was said to be at war.
    #[test]
    fn a_job_that_is_made_again_while_its_node_has_no_room_is_no_war() {
        let op = std::sync::Arc::new(crate::api::nodeop::NodeOp::new("op", Default::default()));
        let make = Action::CreateJob { op, node: "n1".into(), locks: true, name: "op-n1-1".into() };
        let (mut repeats, start) = (HotLoopLimiter::default(), Instant::now());
        // With the pauses of `plan::node::job::remake`, for an hour.
        let mut passed = 0;
        while passed < 3600 {
            assert!(!too_often(&mut repeats, &make, start + Duration::from_secs(passed)), "after {passed} s");
            passed += (passed / 4).clamp(5, 120);
        }
    }

    #[test]
    fn what_is_made_and_deleted_again_and_again_is_told_sooner() {
        // Chaos, seed 354: a facts pod of a Node that was gone, 44 times in ten seconds.
        let make = Action::CreateFactsPod {
            node: "n1".into(),
            node_uid: "u".into(),
            name: "p".into(),
            attempt: 0,
            last_error: None,
            waited_for: false,
        };
        let (mut repeats, now) = (HotLoopLimiter::default(), Instant::now());
        let free = (0..BURST).take_while(|_| !too_often(&mut repeats, &make, now)).count();
        assert_eq!(free, usize::try_from(BURST_OF_MAKING).unwrap());
    }

    /// A node that boots again and again while it is asked has another preflight each time. Pods that are
    /// refused come with growing pauses (`plan::rollout::preflight::lost`).
    #[test]
    fn preflights_of_one_node_are_one_thing_done_again_and_those_with_pauses_no_war() {
        let op = std::sync::Arc::new(crate::api::nodeop::NodeOp::new("op", Default::default()));
        let make = |attempt: u64| Action::CreatePreflightPod {
            op: op.clone(),
            node: "n1".into(),
            name: format!("op-n1-{attempt}"),
        };
        let (mut repeats, start) = (HotLoopLimiter::default(), Instant::now());
        let free = (0..60).take_while(|attempt| !too_often(&mut repeats, &make(*attempt), start)).count();
        assert_eq!(free, usize::try_from(BURST_OF_MAKING).unwrap());
        let (mut repeats, mut passed) = (HotLoopLimiter::default(), 0);
        for attempt in 0..60 {
            let now = start + Duration::from_secs(passed);
            assert!(!too_often(&mut repeats, &make(attempt), now), "after {passed} s");
            passed += 5 * attempt.clamp(1, 12);
        }
    }

    #[test]
    fn a_burst_passes_a_war_does_not_and_peace_is_seen() {
        let (mut repeats, mut now) = (HotLoopLimiter::default(), Instant::now());
        let burst = (0..BURST).filter(|_| repeats.exceeds(id("a"), None, BURST, now)).count();
        assert_eq!(burst, 0);
        assert!(repeats.exceeds(id("a"), None, BURST, now) && !repeats.exceeds(id("b"), None, BURST, now));
        now += REFILL_EVERY * 2;
        assert!(repeats.exceeds(id("a"), None, BURST, now), "it is still at war after two minutes");
        now += REFILL_EVERY * 20;
        assert!(!repeats.exceeds(id("a"), None, BURST, now));
        now += REFILL_EVERY * (BURST + 1);
        repeats.exceeds(id("c"), None, BURST, now);
        assert_eq!(repeats.known.len(), 1, "what is over is forgotten");
        repeats.exceeds(id("d"), None, BURST, now + REFILL_EVERY);
        assert_eq!(repeats.known.len(), 1, "what was done once, a minute later");
    }

    /// Two hundred nodes in progress do a hundred things a second, and each would look at thousands.
    #[test]
    fn what_is_over_is_looked_for_once_a_second_and_not_at_each_action() {
        let (mut repeats, start) = (HotLoopLimiter::default(), Instant::now());
        let mut known = |what, millis| {
            repeats.exceeds(id(what), None, BURST, start + Duration::from_millis(millis));
            repeats.known.len()
        };
        assert_eq!(known("a", 0), 1);
        assert_eq!(known("b", 59_500), 2, "it is not over yet");
        assert_eq!(known("c", 60_200), 3, "it is, and that was looked for a moment ago");
        assert_eq!(known("d", 60_600), 3, "it is forgotten");
    }

    /// Measured: forty nodes, twenty NodeOps on each within minutes, and all of them stood still.
    #[test]
    fn one_nodeop_after_the_other_on_a_node_is_no_war() {
        let of = |claim: Option<usize>| Action::PatchNode {
            name: "n1".into(),
            resource_version: String::new(),
            change: NodeChange {
                claimed_by: Some(claim.map(|op| OpRef {
                    namespace: "ns".into(),
                    name: "op".into(),
                    uid: format!("u{op}"),
                })),
                ..NodeChange::default()
            },
        };
        let (mut repeats, now) = (HotLoopLimiter::default(), Instant::now());
        for op in 0..100 {
            for action in [of(Some(op)), of(None)] {
                assert!(!too_often(&mut repeats, &action, now), "{op}");
            }
        }
        let free = (0..BURST * 2).take_while(|_| !too_often(&mut repeats, &of(Some(7)), now)).count();
        assert_eq!(free, usize::try_from(BURST).unwrap(), "one that claims it again and again");
    }
}

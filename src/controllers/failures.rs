//! What this process fails at: when each of it may be tried again, and what there is to say about it.
//!
//! Pauses double from a quarter of a second to two minutes, so that a refusal that stays costs a request
//! every other minute. One failure is a hiccup; what failed three times in a row is told, in the status by
//! the planner (it is part of the snapshot) and once in an Event about the object that waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use tokio::time::Instant;

use super::clock::Clock;
use crate::plan::model::{identity::Id, snapshot::PersistentFailure};

/// The first pause after a failure; it doubles with each further one, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after a failure.
pub const MAX_PAUSE: Duration = Duration::from_secs(120);
/// Failures in a row from which on they are told.
const LASTING: u32 = 3;

/// Everything that failed and has not succeeded since.
#[derive(Debug, Default)]
pub struct Failures {
    clock: Clock,
    known: BTreeMap<Id, Entry>,
    /// The Events about objects for which something still fails.
    events: BTreeMap<String, Event>,
}

/// An Event about what fails for an object.
#[derive(Clone, Copy, Debug)]
enum Event {
    Written,
    /// It waits to be written. How often that has failed before.
    Queued {
        times: u32,
    },
    /// It could not be written: how often, and when it is tried again.
    Lost {
        times: u32,
        until: Instant,
    },
}

/// What has failed is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often it has failed in a row.
    pub times: u32,
    /// For how long it is left alone.
    pub pause: Duration,
}

/// What is said of a failure: what was tried, what came of it, and the object that waits for it.
#[derive(Clone, Debug)]
pub struct Said {
    pub what: String,
    pub message: String,
    pub about: Option<ObjectReference>,
}

#[derive(Debug)]
struct Entry {
    times: u32,
    since: Timestamp,
    /// When it may be tried again.
    until: Instant,
    said: Said,
    /// All objects that have waited for it. A patch of one Node may be planned by an operation and by the
    /// facts, one after the other: both objects get the Event.
    waiting: BTreeSet<String>,
}

impl Failures {
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Whether it is too early to try this again.
    pub fn paused(&self, what: &Id, now: Instant) -> bool {
        self.known.get(what).is_some_and(|entry| entry.until > now)
    }

    /// All that it is too early to try again.
    pub fn all_paused(&self, now: Instant) -> BTreeSet<Id> {
        self.known.keys().filter(|what| self.paused(what, now)).cloned().collect()
    }

    /// It failed; it is left alone for `longest` at most. What failed twice in one pass (two changes of one
    /// node) failed once.
    pub fn failed(&mut self, what: Id, said: Said, longest: Duration, now: Instant) -> Retry {
        let since = self.clock.now();
        let entry = self.known.entry(what).or_insert_with(|| Entry {
            times: 0,
            since,
            until: now,
            said: said.clone(),
            waiting: BTreeSet::new(),
        });
        entry.waiting.extend(said.about.as_ref().map(path));
        entry.said = said;
        if entry.until <= now {
            entry.until = now + pause_after(entry.times).min(longest);
            entry.times = entry.times.saturating_add(1);
        }
        Retry { times: entry.times, pause: entry.until - now }
    }

    /// It succeeded.
    pub fn succeeded(&mut self, what: &Id) {
        let Some(over) = self.known.remove(what) else { return };
        // Not all that fails is looked at: an outage ends for hundreds of things at once.
        for object in
            over.waiting.iter().filter(|object| self.events.contains_key(*object)).collect::<Vec<_>>()
        {
            if !self.known.values().any(|entry| entry.waiting.contains(object)) {
                self.events.remove(object);
            }
        }
    }

    /// What has not been tried again for long after it might have been, nobody wants any more.
    pub fn forget_old(&mut self, now: Instant) {
        self.known.retain(|_, entry| entry.until + MAX_PAUSE * 2 > now);
        self.forget_events();
    }

    fn forget_events(&mut self) {
        let failing: BTreeSet<&String> = self.known.values().flat_map(|entry| &entry.waiting).collect();
        self.events.retain(|object, _| failing.contains(object));
    }

    /// For how long something is left alone that failed.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let lost = self.events.values().filter_map(|event| match event {
            Event::Written | Event::Queued { .. } => None,
            Event::Lost { until, .. } => Some(*until),
        });
        let known = self.known.values().map(|entry| entry.until);
        known.chain(lost).filter(|until| *until > now).min().map(|until| until - now)
    }

    /// What the planner is to know.
    pub fn lasting(&self) -> BTreeMap<Id, PersistentFailure> {
        let lasting = self.known.iter().filter(|(_, entry)| entry.times >= LASTING);
        lasting
            .map(|(what, entry)| {
                (what.clone(), PersistentFailure { since: entry.since, message: entry.said.message.clone() })
            })
            .collect()
    }

    /// What is to be said now in an Event: the object, what fails, and the error. Once for each object,
    /// however much fails for it; and again where [`Self::wrote`] says that it was lost.
    pub fn unsaid(&self, now: Instant) -> Vec<(ObjectReference, String, String)> {
        let due = |object: &String| match self.events.get(object) {
            Some(Event::Written | Event::Queued { .. }) => false,
            Some(Event::Lost { until, .. }) => *until <= now,
            None => true,
        };
        let mut unsaid = BTreeMap::new();
        for Entry { said, .. } in self.known.values().filter(|entry| entry.times >= LASTING) {
            if let Some(about) = said.about.as_ref().filter(|about| due(&path(about))) {
                unsaid
                    .entry(path(about))
                    .or_insert_with(|| (about.clone(), said.what.clone(), said.message.clone()));
            }
        }
        unsaid.into_values().collect()
    }

    /// The Event about the object is on its way.
    pub fn queued(&mut self, about: &ObjectReference) {
        let object = path(about);
        let times = match self.events.get(&object) {
            Some(Event::Lost { times, .. } | Event::Queued { times }) => *times,
            Some(Event::Written) | None => 0,
        };
        self.events.insert(object, Event::Queued { times });
    }

    /// The Event about the object was written, or could not be.
    pub fn wrote(&mut self, about: &ObjectReference, written: bool, now: Instant) {
        let object = path(about);
        // Of a failure that is over by now the word comes too late, and says nothing about the next one.
        let Some(Event::Queued { times }) = self.events.get(&object) else { return };
        let times = *times;
        let lost = Event::Lost { times: times.saturating_add(1), until: now + pause_after(times) };
        self.events.insert(object, if written { Event::Written } else { lost });
    }
}

/// The pause after a failure that follows this number of others in a row.
fn pause_after(times: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(times.min(16))).min(MAX_PAUSE)
}

fn path(object: &ObjectReference) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    [&object.kind, &object.namespace, &object.name, &object.uid].map(part).join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn said(message: &str, node: &str) -> Said {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.into()),
            ..ObjectReference::default()
        };
        Said { what: "trying".into(), message: message.into(), about: Some(about) }
    }

    fn id(does: &'static str) -> Id {
        Id::Action { does, to: "n1".into() }
    }

    /// What is said, and written.
    fn say(failures: &mut Failures, now: Instant) -> Vec<(ObjectReference, String, String)> {
        let unsaid = failures.unsaid(now);
        for (about, ..) in &unsaid {
            failures.queued(about);
            failures.wrote(about, true, now);
        }
        unsaid
    }

    /// Fails as often as that, each time as soon as it may be tried again; returns the pauses in
    /// milliseconds.
    fn fail(
        failures: &mut Failures,
        what: &'static str,
        said: &Said,
        times: usize,
        longest: Duration,
        now: &mut Instant,
    ) -> Vec<u128> {
        let mut pauses = Vec::new();
        for _ in 0..times {
            let pause = failures.failed(id(what), said.clone(), longest, *now).pause;
            assert!(failures.all_paused(*now).contains(&id(what)));
            assert!(
                failures.paused(&id(what), *now) && failures.next(*now).is_some_and(|next| next <= pause)
            );
            *now += pause;
            pauses.push(pause.as_millis());
        }
        pauses
    }

    #[test]
    fn pauses_grow_to_two_minutes_and_end_with_a_success() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        let pauses = fail(&mut failures, "a", &said("no", "n1"), 12, LONG, &mut now);
        assert_eq!(
            pauses,
            [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 120_000, 120_000, 120_000]
        );
        assert!(!failures.paused(&id("a"), now), "it may be tried now");
        failures.succeeded(&id("a"));
        assert!(failures.next(now).is_none() && failures.lasting().is_empty());
        let pauses = fail(&mut failures, "a", &said("no", "n1"), 9, Duration::from_secs(5), &mut now);
        assert_eq!(pauses.last(), Some(&5000));
        failures.forget_old(now + MAX_PAUSE * 3);
        assert!(failures.lasting().is_empty(), "nobody wanted it any more");
    }

    /// A pod that is deleted for another reason now is the same pod, and its deletion fails as before.
    #[test]
    fn another_sentence_is_no_other_thing() {
        use crate::plan::{
            model::action::{Action, Target},
            model::identity::Identified,
        };
        let pod = Target { namespace: "ns".into(), name: "pod".into(), uid: "u".into() };
        let delete = |why: &'static str, uid: &str| Action::DeletePod {
            pod: Target { uid: uid.into(), ..pod.clone() },
            why,
        };
        let (mut failures, now) = (Failures::default(), Instant::now());
        failures.failed(delete("its reboot was cancelled", "u").id(), said("no", "n1"), LONG, now);
        assert!(failures.paused(&delete("its node is being released", "u").id(), now));
        assert!(!failures.paused(&delete("its reboot was cancelled", "another").id(), now));
    }

    /// One change of a node is wanted for two objects in turn, and something else succeeds meanwhile.
    #[test]
    fn an_object_is_told_once_whoever_else_waits_for_the_same() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        fail(&mut failures, "a", &said("no", "n1"), 3, LONG, &mut now);
        assert_eq!(say(&mut failures, now).len(), 1);
        fail(&mut failures, "a", &said("no", "n2"), 1, LONG, &mut now);
        assert_eq!(say(&mut failures, now).len(), 1, "who else waits is told, too");
        failures.failed(id("b"), said("no", "n3"), LONG, now);
        failures.succeeded(&id("b"));
        fail(&mut failures, "a", &said("no", "n1"), 1, LONG, &mut now);
        assert_eq!(say(&mut failures, now).len(), 0, "it was told");
        failures.succeeded(&id("a"));
        fail(&mut failures, "a", &said("no", "n1"), 3, LONG, &mut now);
        assert_eq!(say(&mut failures, now).len(), 1, "it is over, and fails anew");
    }

    /// The API server refuses the Event, or answers too late, as it does what the Event is about.
    #[test]
    fn an_event_that_was_lost_is_written_again_with_pauses() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        fail(&mut failures, "a", &said("no", "n1"), 12, LONG, &mut now);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let unsaid = failures.unsaid(now);
            assert_eq!(unsaid.len(), 1);
            failures.queued(&unsaid[0].0);
            assert!(failures.unsaid(now + LONG).is_empty(), "it is said once, however long that takes");
            failures.wrote(&unsaid[0].0, false, now);
            assert!(failures.unsaid(now).is_empty(), "not at once");
            let pause = failures.next(now).unwrap();
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [250, 500, 1000]);
        assert_eq!(say(&mut failures, now).len(), 1);
        assert!(failures.unsaid(now + LONG).is_empty() && failures.next(now + LONG).is_none());
    }

    #[test]
    fn what_fails_twice_in_one_pass_failed_once() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for _ in 0..5 {
            let again = failures.failed(id("a"), said("no", "n1"), LONG, now);
            assert_eq!((again.times, again.pause), (1, FIRST_PAUSE));
        }
    }

    #[test]
    fn what_fails_three_times_is_told_and_said_once_for_each_object() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        for what in ["a", "b"] {
            fail(&mut failures, what, &said("no", "n1"), 2, LONG, &mut now);
        }
        assert!(failures.lasting().is_empty() && failures.unsaid(now).is_empty(), "a hiccup");
        for what in ["a", "b"] {
            fail(&mut failures, what, &said("never", "n1"), 1, LONG, &mut now);
        }
        assert_eq!(failures.lasting()[&id("a")].message, "never");
        let told: Vec<String> = say(&mut failures, now)
            .into_iter()
            .map(|(about, what, message)| format!("{:?} {what} {message}", about.name))
            .collect();
        assert_eq!(told, ["Some(\"n1\") trying never"]);
        fail(&mut failures, "a", &said("never", "n1"), 5, LONG, &mut now);
        failures.succeeded(&id("a"));
        assert!(say(&mut failures, now).is_empty(), "something still fails for it");
        failures.succeeded(&id("b"));
        fail(&mut failures, "a", &said("again", "n1"), 3, LONG, &mut now);
        assert_eq!(say(&mut failures, now).len(), 1, "it had been well meanwhile");
    }
    /// An Event may be written long after it was wanted.
    #[test]
    fn what_is_heard_of_an_event_says_nothing_about_a_later_failure() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        fail(&mut failures, "a", &said("no", "n1"), 3, LONG, &mut now);
        let about = failures.unsaid(now)[0].0.clone();
        failures.queued(&about);
        failures.succeeded(&id("a"));
        fail(&mut failures, "a", &said("again", "n1"), 3, LONG, &mut now);
        failures.wrote(&about, true, now);
        assert_eq!(say(&mut failures, now).len(), 1, "of this one nothing was said");
    }
}

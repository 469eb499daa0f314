//! How often the same is asked. Plans are made at each event, and one that needs an answer asks: where what
//! would follow is refused (a webhook is down, a policy forbids it), each plan asks again, and much may go on
//! elsewhere meanwhile.
//!
//! A question may be asked [`BURST`] times at once, and in the long run once a second; whoever waits for it
//! waits for no longer than that.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::bucket::Bucket;
use crate::plan::model::question::Question;

/// In the long run.
const EVERY: Duration = Duration::from_secs(1);
/// At once: what a rollout asks while it is taken through its steps.
const BURST: u32 = 20;

/// What was asked lately.
#[derive(Debug, Default)]
pub struct QuestionPace {
    /// How often each may still be asked.
    asked: BTreeMap<Question, Bucket>,
    /// When the first of those that were too early may be asked.
    due: Option<Instant>,
}

impl QuestionPace {
    /// A pass begins.
    pub fn begin(&mut self, now: Instant) {
        self.asked.retain(|_, bucket| !bucket.is_full(now));
        self.due = None;
    }

    /// Whether it may be asked now, which counts then.
    pub fn allows(&mut self, question: &Question, now: Instant) -> bool {
        match self.asked.get(question).and_then(|asked| asked.due(now, EVERY, BURST)) {
            Some(due) => {
                self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
                false
            }
            None => {
                self.asked.entry(question.clone()).or_default().take(now, EVERY);
                true
            }
        }
    }

    /// How long to wait for the first that was too early.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_asked_once_a_second_after_a_burst_and_something_else_at_once() {
        let mut pace = QuestionPace::default();
        let (one, other) = (Question::Node("n1".into()), Question::Node("n2".into()));
        let start = Instant::now();
        let times = |pace: &mut QuestionPace, question: &Question, now: Instant| {
            pace.begin(now);
            (0..100).filter(|_| pace.allows(question, now)).count()
        };
        assert_eq!(times(&mut pace, &one, start), BURST as usize);
        assert_eq!(pace.next(start), Some(EVERY), "it is planned again then");
        assert_eq!(times(&mut pace, &other, start), BURST as usize, "whatever else was asked");
        for second in 1..5 {
            assert_eq!(times(&mut pace, &one, start + EVERY * second), 1);
        }
        let late = start + EVERY * 100;
        pace.begin(late);
        assert!(pace.asked.is_empty() && pace.next(late).is_none(), "nothing is kept");
        assert_eq!(times(&mut pace, &one, late), BURST as usize);
    }
}

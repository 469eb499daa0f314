//! How often the same is asked. Plans are made at each event, and one that needs an answer asks: where what
//! would follow is refused (a webhook is down, a policy forbids it), each plan asks again, and much may go on
//! elsewhere meanwhile.
//!
//! A question may be asked [`BURST`] times at once, and in the long run once a second. All are due again at
//! the same moments: what a decision needs to know together must be asked in one plan, and two questions that
//! were due half a second after each other would never be.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::bucket::Bucket;
use crate::plan::model::question::Question;

/// How often the same question is asked in the long run.
const EVERY: Duration = Duration::from_secs(1);
/// How often the same question is asked at once: as a rollout does while it is taken through its steps.
const BURST: u32 = 20;

/// For how long one pass begins dry runs, which are dear. One that was begun has its time.
const DRY_RUNS: Duration = Duration::from_secs(10);

/// What was asked lately.
#[derive(Debug, Default)]
pub struct QuestionPace {
    /// How often each may still be asked.
    asked: BTreeMap<Question, Bucket>,
    /// When the first of those that were too early may be asked.
    due: Option<Instant>,
    /// The moments at which questions are due again are whole intervals after this one.
    epoch: Option<Instant>,
    dry_runs_until: Option<Instant>,
}

impl QuestionPace {
    /// A pass begins.
    pub fn begin(&mut self, now: Instant) {
        self.asked.retain(|_, bucket| !bucket.is_full(now));
        self.due = None;
        self.dry_runs_until = Some(now + DRY_RUNS);
    }

    /// Until when this pass begins dry runs.
    pub fn dry_runs_until(&self, now: Instant) -> Instant {
        self.dry_runs_until.unwrap_or(now)
    }

    /// Whether it may be asked now, which counts then.
    pub fn allows(&mut self, question: &Question, now: Instant) -> bool {
        let due = self.asked.get(question).and_then(|asked| asked.due(EVERY, BURST));
        match due.map(|due| self.next_tick(due, now)).filter(|due| *due > now) {
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

    /// The first of the moments that all questions share, at or after this one.
    fn next_tick(&mut self, due: Instant, now: Instant) -> Instant {
        let epoch = *self.epoch.get_or_insert(now);
        let ticks = due.saturating_duration_since(epoch).as_nanos().div_ceil(EVERY.as_nanos());
        u32::try_from(ticks).map_or(due, |ticks| epoch + EVERY * ticks)
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
    /// One that was used up at another moment is due at the same ones.
    #[test]
    fn questions_that_go_together_are_due_together() {
        let mut pace = QuestionPace::default();
        let (one, other) = (Question::Node("n1".into()), Question::Node("n2".into()));
        let start = Instant::now();
        let mut together = 0;
        for pass in 0..400 {
            // Passes as they come, and the one that the pace asks for.
            let now = start + Duration::from_millis(70) * pass;
            pace.begin(now);
            let first = pace.allows(&one, now);
            let second = pass > 25 && pace.allows(&other, now);
            together += u32::from(pass > 200 && first && second);
            if let Some(wait) = pace.next(now).filter(|wait| *wait < Duration::from_millis(70)) {
                let now = now + wait;
                pace.begin(now);
                let both = [pace.allows(&one, now), pace.allows(&other, now)];
                together += u32::from(pass > 200 && both == [true, true]);
                assert!(pass <= 200 || both == [true, true], "pass {pass}: {both:?}");
            }
        }
        assert!(together >= 13, "in 14 seconds: {together}");
    }
}

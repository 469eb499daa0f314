//! Answers that are remembered: what came of dry runs, and of looks at Events and at the control plane's pods. A dry run is several writes
//! that change nothing, a list of Events is read from all of a namespace, and either is asked for whenever a
//! plan wonders why a Job has no pod, or a pod no container: so an answer stands for a while, one that says
//! what is wrong, or goes on, ever longer.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::plan::model::question::{Answer, Question, Regarding};

/// For how long an answer stands; one that says again what is wrong, that an image is being pulled,
/// or that a Job's pod would be admitted, twice as long each time, up to [`MAX_STANDS`].
const MIN_STANDS: Duration = Duration::from_secs(10);
const MAX_STANDS: Duration = Duration::from_secs(120);

/// The answers that stand.
#[derive(Debug, Default)]
pub struct RememberedAnswers {
    known: BTreeMap<Question, Known>,
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    until: Instant,
    stands: Duration,
}

impl RememberedAnswers {
    /// The answer, if it still stands.
    pub fn standing(&self, question: &Question, now: Instant) -> Option<Answer> {
        self.known.get(question).filter(|known| known.until > now).map(|known| known.answer.clone())
    }

    /// When one that passes by itself may be asked for again.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let passing = self
            .known
            .values()
            .filter(|known| matches!(known.answer, Answer::NotYet(_)) && known.until > now);
        passing.map(|known| known.until - now).min()
    }

    /// Remembers an answer to such a question; others are good for one plan only.
    pub fn learn(&mut self, question: &Question, answer: &Answer, now: Instant) {
        let stands = match question {
            Question::Admission(..) | Question::Events { .. } => true,
            // That all of a member's pods are Ready lets the next node go away, and is always asked anew.
            Question::ControlPlanePods(_) => matches!(answer, Answer::NotFound | Answer::NotReady(_)),
            _ => false,
        };
        if !stands {
            return;
        }
        self.known.retain(|_, known| known.until + MAX_STANDS > now);
        let lasts = |answer: &Answer| {
            matches!(answer, Answer::Refused(_) | Answer::NotYet(_) | Answer::Said(_) | Answer::Pulls { .. })
        };
        // That a Job's pod would be admitted, and is not made, is as long as its controller is away, and then
        // that one says nothing either.
        let about_job =
            matches!(question, Question::Admission(..) | Question::Events { of: Regarding::Job, .. });
        let admitted = |answer: &Answer| about_job && *answer == Answer::Found;
        let before = self
            .known
            .get(question)
            .filter(|known| lasts(answer) || (admitted(answer) && admitted(&known.answer)));
        let stands = before.map_or(MIN_STANDS, |known| (known.stands * 2).min(MAX_STANDS));
        self.known.insert(question.clone(), Known { answer: answer.clone(), until: now + stands, stands });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::id::OpRef;

    #[test]
    fn a_refusal_stands_ever_longer_and_an_old_one_is_forgotten() {
        let op = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let question = Question::Admission(op, "n1".into());
        let (mut answers, mut now) = (RememberedAnswers::default(), Instant::now());
        let refused = Answer::Refused("quota".into());
        let mut stood = Vec::new();
        for _ in 0..6 {
            answers.learn(&question, &refused, now);
            let mut seconds = 0;
            while answers.standing(&question, now).is_some() {
                (seconds, now) = (seconds + 1, now + Duration::from_secs(1));
            }
            stood.push(seconds);
        }
        assert_eq!(stood, [10, 20, 40, 80, 120, 120]);
        assert_eq!(answers.next(now), None, "what is refused for good need not be asked again");
        answers.learn(&question, &Answer::NotYet("quota".into()), now);
        assert_eq!(answers.next(now), Some(MAX_STANDS));
        answers.learn(&question, &Answer::Found, now);
        assert_eq!(answers.known[&question].stands, MIN_STANDS, "another answer");
        answers.learn(&question, &Answer::Found, now);
        assert_eq!(answers.known[&question].stands, MIN_STANDS * 2);
        answers.learn(&Question::AllNodeOps, &Answer::Found, now + MAX_STANDS * 2);
        assert_eq!(answers.known.len(), 1, "only what is dear is remembered");
        let other = Question::Admission(
            OpRef { namespace: "ns".into(), name: "op".into(), uid: "v".into() },
            "n1".into(),
        );
        answers.learn(&other, &Answer::Found, now + MAX_STANDS * 2);
        assert_eq!(answers.known.len(), 1, "the old one is gone");
    }

    #[test]
    fn events_of_one_pod_are_read_every_ten_seconds_at_most_and_those_of_another_at_once() {
        let question = |uid: &str| Question::Events {
            of: Regarding::Pod,
            namespace: "ns".into(),
            name: "p".into(),
            uid: uid.into(),
        };
        let (mut answers, now) = (RememberedAnswers::default(), Instant::now());
        answers.learn(&question("u"), &Answer::Said("FailedMount: no such device".into()), now);
        assert!(answers.standing(&question("u"), now + MIN_STANDS - Duration::from_millis(1)).is_some());
        assert!(answers.standing(&question("u"), now + MIN_STANDS).is_none());
        assert!(answers.standing(&question("v"), now).is_none());
    }
}

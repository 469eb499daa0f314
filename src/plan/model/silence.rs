//! Pods of which the kubelet says nothing in their status: no sandbox, no address, a mount that fails, a
//! device that is missing. The reason stands in Events alone, which are read when such a pod has had no
//! container for ten seconds.

use k8s_openapi::jiff::SignedDuration;

use crate::plan::model::{
    action::Plan,
    failing,
    question::{Answer, Question},
    snapshot::{PodView, Snapshot},
    time::later,
};

/// How long a node may take to make a pod's first container before the pod's Events are read, and between two
/// readings.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Pods whose Events one plan asks for: a list of Events is dear, and a broken network keeps all nodes at
/// once.
const AT_ONCE: usize = 8;

/// What is said of a pod that has been silent for too long; asks for it.
pub fn event_message(snapshot: &Snapshot, pod: &PodView, plan: &mut Plan) -> Option<String> {
    let due = later(snapshot.silent_since(pod)?, SILENT_AFTER);
    if snapshot.now < due {
        plan.wake(due);
        return None;
    }
    plan.wake(later(snapshot.now, SILENT_AFTER));
    let question = Question::PodEvents {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    match snapshot.answer(&question) {
        Some(Answer::Said(message)) => Some(message.clone()),
        Some(
            Answer::NotFound
            | Answer::Found
            | Answer::Pending
            | Answer::Attached(_)
            | Answer::Refused(_)
            | Answer::NotYet(_)
            | Answer::NotReady(_),
        ) => None,
        None => {
            let asked = plan.questions.iter().filter(|asked| {
                matches!(asked, Question::PodEvents { .. }) && snapshot.answer(asked).is_none()
            });
            if asked.count() < AT_ONCE {
                plan.questions.insert(question);
            }
            None
        }
    }
}

/// Whether the pod's Events are just being read: their answer comes with the next plan, which is made at
/// once. It is not waited for if reading them keeps failing.
pub fn is_asked(snapshot: &Snapshot, pod: &PodView, plan: &Plan) -> bool {
    let question = Question::PodEvents {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    plan.questions.contains(&question)
        && snapshot.answer(&question).is_none()
        && failing::of(snapshot, &question).is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{Owner, PodPhase, Role, Sightings},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_pod_without_a_container_for_ten_seconds_is_asked_about_and_its_events_are_told() {
        let silent = PodView {
            phase: PodPhase::Pending,
            ..fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), "n1")
        };
        let mut snapshot = Snapshot { now: at(0), ..Snapshot::default() };
        snapshot.pods = [(("ns".to_owned(), "w".to_owned()), Arc::new(silent.clone()))].into();
        let mut sightings = Sightings::default();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        let mut look = |second: i64, answer: Option<&str>| {
            snapshot.now = at(second);
            let question = Question::PodEvents { namespace: "ns".into(), name: "w".into(), uid: "w".into() };
            snapshot.answers =
                answer.map(|message| (question, Answer::Said(message.into()))).into_iter().collect();
            let mut plan = Plan::default();
            (event_message(&snapshot, &silent, &mut plan), plan.questions.len(), plan.wake_at)
        };
        assert_eq!(look(9, None), (None, 0, Some(at(10))), "a node may take that long");
        assert_eq!(look(10, None), (None, 1, Some(at(20))));
        let why = "FailedCreatePodSandBox: no more addresses";
        assert_eq!(look(10, Some(why)), (Some(why.into()), 0, Some(at(20))));
    }

    #[test]
    fn one_plan_asks_about_a_few_pods() {
        let snapshot = Snapshot { now: at(0), ..Snapshot::default() };
        let mut plan = Plan::default();
        for number in 0..50 {
            let uid = format!("w{number}");
            let pod = PodView {
                phase: PodPhase::Pending,
                ..fixtures::pod(Role::Waiter, &uid, Owner::nodeop("op", "u"), "n1")
            };
            let mut seen =
                Snapshot { pods: [((String::new(), uid), Arc::new(pod.clone()))].into(), ..snapshot.clone() };
            let mut sightings = Sightings::default();
            sightings.note(&seen);
            (seen.sightings, seen.now) = (Arc::new(sightings), at(60));
            assert_eq!(event_message(&seen, &pod, &mut plan), None);
        }
        assert_eq!(plan.questions.len(), AT_ONCE);
    }
}

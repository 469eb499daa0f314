//! Pods of which the kubelet says nothing in their status: no sandbox, no address, a mount that fails, a
//! device that is missing. The reason stands in Events alone, which are read when such a pod has had no
//! container for ten seconds. Or somebody else's containers run in it, and ours do not.

use k8s_openapi::jiff::SignedDuration;

use crate::plan::model::{
    effects::{Effects, Planned},
    failing,
    question::{Answer, Question},
    snapshot::{ContainerView, PodView, Snapshot, brief},
    time::later,
};

/// How long a node may take to make a pod's first container before the pod's Events are read, and between two
/// readings.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// What is said of a pod that has been silent for too long; asks for it.
pub fn event_message(snapshot: &Snapshot, pod: &PodView) -> Planned<Option<String>> {
    let Some(due) = snapshot.silent_since(pod).map(|since| later(since, SILENT_AFTER)) else {
        return others_alone(snapshot, pod);
    };
    if snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let question = question(pod);
    let (told, open) = match snapshot.answer(&question) {
        Some(Answer::Said(message)) => (Some(message.clone()), None),
        Some(
            Answer::NotFound
            | Answer::Found
            | Answer::Pending
            | Answer::Attached(_)
            | Answer::Refused(_)
            | Answer::NotYet(_)
            | Answer::NotReady(_),
        ) => (None, None),
        None => (None, Some(question)),
    };
    let again = Effects::wake_at(later(snapshot.now, SILENT_AFTER));
    Planned::from(told).with(again).with(Effects::ask(open))
}

/// Names the containers of somebody else that have run for a while in a pod in which ours wait.
fn others_alone(snapshot: &Snapshot, pod: &PodView) -> Planned<Option<String>> {
    if pod.obstacle().is_some() {
        return None.into();
    }
    let since = |it: &ContainerView| snapshot.running_since(pod, &it.name).unwrap_or(snapshot.now);
    let Some(last) = pod.runs_others_alone().map(since).max() else { return None.into() };
    let due = later(last, SILENT_AFTER);
    if snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let names: Vec<&str> = pod.runs_others_alone().map(|it| &*it.name).collect();
    let names = brief(&names.join(", "));
    Some(format!("container {names}, which is not ours, runs in it, and ours has not started yet")).into()
}

/// Whether the pod's Events are just being read: their answer comes with the next plan, which is made at
/// once. It is not waited for if reading them keeps failing.
pub fn is_asked(snapshot: &Snapshot, pod: &PodView, effects: &Effects) -> bool {
    let question = question(pod);
    effects.questions.contains(&question) && failing::of(snapshot, &question).is_none()
}

fn question(pod: &PodView) -> Question {
    Question::PodEvents { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
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
            let Planned { value, effects } = event_message(&snapshot, &silent);
            (value, effects.questions.len(), effects.wake_at)
        };
        assert_eq!(look(9, None), (None, 0, Some(at(10))), "a node may take that long");
        assert_eq!(look(10, None), (None, 1, Some(at(20))));
        let why = "FailedCreatePodSandBox: no more addresses";
        assert_eq!(look(10, Some(why)), (Some(why.into()), 0, Some(at(20))));
    }
}

//! Pods of which the kubelet says nothing in their status: no sandbox, no address, a mount that fails, a
//! device that is missing, an image that is being pulled. The reason stands in Events alone, which are read
//! when such a pod has stood still for ten seconds. Or somebody else's containers run in it, and ours do not.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::model::{
    effects::{Effects, Planned},
    failing,
    question::{Question, Regarding},
    snapshot::{ContainerView, News, PodView, Snapshot, brief},
    time::later,
};

/// How long a node may take to make a pod's next container before the pod's Events are read, and between two
/// readings.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// What is known of a pod that has been silent for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNews {
    /// Something keeps it from its start.
    Obstacle(String),
    /// Nothing does: an image takes its time.
    Pulling { since: Option<Timestamp> },
}

impl fmt::Display for PodNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obstacle(why) => f.write_str(why),
            Self::Pulling { since: Some(since) } => write!(f, "its image is being pulled since {since:.0}"),
            Self::Pulling { since: None } => f.write_str("its image is being pulled"),
        }
    }
}

/// What is said of a pod that has been silent for too long; asks for it. What its newest Event says is so
/// now: a warning that another Event follows has passed.
pub fn event_message(snapshot: &Snapshot, pod: &PodView) -> Planned<Option<PodNews>> {
    let Some(due) = snapshot.silent_since(pod).map(|since| later(since, SILENT_AFTER)) else {
        return None.into();
    };
    if snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let mut effects = Effects::wake_at(later(snapshot.now, SILENT_AFTER));
    let mut others = || effects.absorb(others_alone(snapshot, pod));
    let question = question(pod);
    let (told, open) = match snapshot.news(&question) {
        Some(News::Warns(message)) => {
            let said: Vec<String> = others().into_iter().chain([message.to_owned()]).collect();
            (Some(PodNews::Obstacle(said.join("; "))), None)
        }
        Some(News::Pulls(since)) => {
            (Some(others().map_or(PodNews::Pulling { since }, PodNews::Obstacle)), None)
        }
        Some(News::Nothing) => (others().map(PodNews::Obstacle), None),
        // Where they cannot be read, what the status shows is all that is known.
        None if failing::of(snapshot, &question).is_some() => {
            (others().map(PodNews::Obstacle), Some(question))
        }
        None => (None, Some(question)),
    };
    Planned { value: told, effects }.with(Effects::ask(open))
}

/// Names the containers of somebody else that have run for a while in a pod in which ours wait.
fn others_alone(snapshot: &Snapshot, pod: &PodView) -> Planned<Option<String>> {
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
    let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
    Question::Events { of: Regarding::Pod, namespace, name, uid }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{
        fixtures::{self, at},
        model::{
            question::Answer,
            snapshot::{Owner, PodPhase, Role, Sightings},
        },
    };

    #[test]
    fn a_pod_that_stands_still_for_ten_seconds_is_asked_about_and_its_newest_event_is_told() {
        let silent = PodView {
            phase: PodPhase::Pending,
            ..fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), "n1")
        };
        let mut snapshot = Snapshot { now: at(0), ..Snapshot::default() };
        snapshot.pods = [(("ns".to_owned(), "w".to_owned()), Arc::new(silent.clone()))].into();
        let mut sightings = Sightings::default();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        let mut look = |second: i64, answer: Option<Answer>| {
            snapshot.now = at(second);
            let question = question(&silent);
            snapshot.answers = answer.map(|answer| (question, answer)).into_iter().collect();
            let Planned { value, effects } = event_message(&snapshot, &silent);
            (value.map(|told| told.to_string()), effects.questions.len(), effects.wake_at)
        };
        assert_eq!(look(9, None), (None, 0, Some(at(10))), "a node may take that long");
        assert_eq!(look(10, None), (None, 1, Some(at(20))));
        let why = "FailedCreatePodSandBox: no more addresses";
        assert_eq!(look(10, Some(Answer::Said(why.into()))), (Some(why.into()), 0, Some(at(20))));
        let pulls = "its image is being pulled since 1970-01-12T13:46:43Z";
        assert_eq!(
            look(10, Some(Answer::Pulls { since: Some(at(3)) })),
            (Some(pulls.into()), 0, Some(at(20)))
        );
        assert_eq!(look(10, Some(Answer::Found)), (None, 0, Some(at(20))), "what it warned of has passed");
    }
}

//! What a Job's pods said: the words that end up in a node's message.

use crate::{
    api::names::container,
    plan::{
        model::snapshot::{ContainerState, JobView, PodPhase, PodView},
        node::turn::Turn,
    },
};

/// The Job goes on, and nothing complains.
pub const RUNNING: &str = "Job is running";

/// What is said of a Job that goes on: that it does, and what its last try failed of, if one did.
pub fn tries(turn: &Turn<'_>, job: &JobView) -> String {
    let failed = turn.job_pods(&job.uid).filter(|pod| pod.phase == PodPhase::Failed).count();
    let last = turn.job_pods(&job.uid).filter(|pod| pod.phase == PodPhase::Failed).max_by_key(|pod| (pod.created, &pod.name));
    match last.and_then(|pod| words_of(pod)) {
        Some(words) if failed == 1 => format!("{RUNNING}; one try failed with {words}"),
        Some(words) => format!("{RUNNING}; {failed} tries failed, the last one with {words}"),
        None => RUNNING.into(),
    }
}

/// What the operation's container said last in the Job's newest pod.
pub fn last_words(turn: &Turn<'_>, job: &JobView) -> Option<String> {
    words_of(turn.job_pods(&job.uid).max_by_key(|pod| (pod.created, &pod.name))?)
}

/// What the operation's container said last in a pod, on one line, in at most 300 characters.
fn words_of(pod: &PodView) -> Option<String> {
    let ended = pod.containers.iter().find(|c| c.name == container::NODEOP && matches!(c.state, ContainerState::Ended { .. }))?;
    let ContainerState::Ended { code, reason, message } = &ended.state else {
        return None;
    };
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().take(300).collect();
    match (code, line.is_empty()) {
        (0, true) => None,
        (0, false) => Some(line),
        (code, true) => Some(format!("exit code {code}, {reason}")),
        (code, false) => Some(format!("exit code {code}: {line}")),
    }
}

//! The operator's own pod, if it is on the node that is drained.
//!
//! Evicting it ends this very drain, so it goes last, and only if another replica is Ready elsewhere to go on with it. Else
//! it stays, and goes down with the node.

use k8s_openapi::jiff::Timestamp;

use super::super::{
    intent::Drain,
    question::{Answer, Question},
    snapshot::{Resident, Snapshot},
    step::Turn,
};

/// Why it is left at first.
pub const WHY: &str = "it is the operator itself, which goes last";

/// Whether this is our own pod.
pub fn is(s: &Snapshot, pod: &Resident) -> bool {
    s.settings.own_pod.as_ref().is_some_and(|(namespace, name)| *namespace == pod.namespace && *name == pod.name)
}

/// Evicts our own pod, if another replica can go on; says what is waited for.
pub fn evict(turn: &mut Turn<'_>, options: &Drain, started: Timestamp) -> Option<String> {
    let pods = turn.s.residents.get(&turn.node.name)?;
    let pod = pods.iter().find(|pod| is(turn.s, pod))?.clone();
    if pod.deleting_since.is_some() {
        return Some("draining: the operator itself is about to move".into());
    }
    let question = Question::Successor(turn.node.name.clone());
    match turn.s.answer(&question) {
        None => {
            turn.ask(question);
            Some("draining: looking for another replica of the operator".into())
        }
        Some(Answer::Seen) => {
            let blocked = super::evict(turn, options, started, &pod);
            Some(blocked.unwrap_or_else(|| "draining: the operator itself moves to another node".into()))
        }
        Some(_) => None,
    }
}

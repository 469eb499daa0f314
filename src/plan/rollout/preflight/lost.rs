//! Preflight pods that said nothing: refused by the kubelet, evicted, shut down with their node, deleted.
//! Each is followed by another one, after a pause that grows, for as long as a node may take to pull an
//! image.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::nodeop::NodeStatus,
    plan::{
        model::{
            effects::{Effects, Planned},
            snapshot::{Ended, PodView, brief},
            time::later,
        },
        node::context::{Next, Op},
    },
};

/// Before the second pod; it grows by as much with each …
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// … at most so often.
const GROWS: i32 = 12;

/// What a kubelet says of a container that it finds ended, or not at all, after its node was rebooted.
const NOT_ITS_OWN_END: [&str; 2] = ["ContainerStatusUnknown", "Unknown"];

/// Whether the container was ended with its pod or its node, so that its exit code is not the command's.
pub fn says_nothing(pod: &PodView, ended: &Ended) -> bool {
    !pod.reason.is_empty() || pod.deleting || NOT_ITS_OWN_END.contains(&ended.reason.as_str())
}

/// Why the pod was lost.
pub fn reason(pod: &PodView) -> String {
    let said = pod
        .obstacle()
        .map(|obstacle| obstacle.text)
        .or_else(|| (!pod.reason.is_empty()).then(|| brief(&pod.reason)));
    said.unwrap_or_else(|| {
        if pod.deleting { "it was deleted".into() } else { "it ended, and does not say why".into() }
    })
}

/// When the next pod is made, after the last one was lost. The last try is made when the time is over.
fn next_try(op: &Op, lost: Timestamp, status: &NodeStatus) -> Timestamp {
    let pause = PAUSE * status.attempt.unwrap_or(0).clamp(1, GROWS);
    let end = status.last_updated.as_ref().map_or(lost, |first| later(first.0, op.intent.pull_timeout));
    later(lost, pause).min(end).max(later(lost, PAUSE))
}

/// Waits with the next pod, if it is too early. A moment that lies in the future is of another leader's clock,
/// and past.
pub fn pause(now: Timestamp, op: &Op, status: &NodeStatus) -> Option<Planned<Next>> {
    let lost = status.since.as_ref().map(|since| since.0).filter(|lost| *lost <= now)?;
    let at = next_try(op, lost, status);
    let message = status.message.clone().filter(|_| now < at)?;
    Some(Planned::from(Next::Wait(message)).with(Effects::wake_at(at)))
}

/// The next attempt, in a while; or the end, if pods have been lost for too long.
pub fn again(now: Timestamp, op: &Op, status: &NodeStatus, why: &str) -> Next {
    let first = status.last_updated.as_ref().map(|time| time.0).filter(|first| *first <= now).unwrap_or(now);
    let limit = op.intent.pull_timeout;
    if now >= later(first, limit) {
        return super::fail(
            now,
            status,
            &format!("no try came to its end in {} s, the last one because: {why}", limit.as_secs()),
        );
    }
    try_again(now, op, status, first, why)
}

/// Somebody else's pod has the name: that name is given up, and nothing else. Whoever takes one name after
/// the other holds the node up, and cannot fail it.
pub fn foreign(now: Timestamp, op: &Op, status: &NodeStatus, pod: &PodView) -> Next {
    try_again(
        now,
        op,
        status,
        now,
        &format!("the name of pod {}/{} is taken by somebody else's", pod.namespace, pod.name),
    )
}

fn try_again(now: Timestamp, op: &Op, status: &NodeStatus, first: Timestamp, why: &str) -> Next {
    let attempt = Some(status.attempt.unwrap_or(0).saturating_add(1));
    let mut next =
        NodeStatus { attempt, since: Some(Time(now)), last_updated: Some(Time(first)), ..status.clone() };
    let at = next_try(op, now, &next);
    next.message = Some(format!("Preflight is to be tried again: {why}; the next try is made at {at:.0}"));
    Next::Become(Box::new(next))
}

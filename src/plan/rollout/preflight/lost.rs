//! Preflight pods that said nothing: refused by the kubelet, not started by the container runtime, evicted,
//! shut down with their node, deleted. Each is followed by another one, after a pause that grows, for as long
//! as a node may take to pull an image.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    PreflightContext, PreflightFailure,
    reason::{Asking, Lost, tried_again},
};
use crate::plan::{
    model::{
        effects::{Effects, Planned},
        snapshot::{Ended, NodeView, PodView, brief},
        time::later,
    },
    node::{
        context::EntryPlan,
        state::{Entry, Preflight, State},
    },
};

/// The pause before the second preflight pod. Each further pod adds as much, up to [`MAX_GROWTH`] times: a
/// kubelet that refuses pods must not be fed with them.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// How many times the pause grows.
const MAX_GROWTH: i32 = 12;

/// What a kubelet says of a container that it finds ended, or not at all, after its node was rebooted.
const NOT_ITS_OWN_END: [&str; 2] = ["ContainerStatusUnknown", "Unknown"];

/// Whether the container was ended with its pod or its node, or was not started at all, so that its exit code
/// is not the command's.
pub fn says_nothing(pod: &PodView, ended: &Ended) -> bool {
    !pod.reason.is_empty()
        || pod.deleting
        || NOT_ITS_OWN_END.contains(&ended.reason.as_str())
        || ended.failed_to_start()
}

/// Why the pod was lost.
pub fn reason(pod: &PodView) -> Lost {
    if pod.had_no_room() {
        return Lost::NoRoom(brief(&pod.reason));
    }
    let said = pod
        .obstacle()
        .map(|obstacle| obstacle.text)
        .or_else(|| (!pod.reason.is_empty()).then(|| brief(&pod.reason)));
    said.map_or(if pod.deleting { Lost::Deleted } else { Lost::Silent }, Lost::Said)
}

impl PreflightContext<'_> {
    /// When the next pod is made, after the last one was lost, as `attempt` before it. The last try is made
    /// when the time is over.
    fn next_try(&self, lost: Timestamp, attempt: i32, first: Option<Timestamp>) -> Timestamp {
        let pause = PAUSE * attempt.clamp(1, MAX_GROWTH);
        let end = first.map_or(lost, |first| later(first, self.op.intent.pull_timeout));
        later(lost, pause).min(end).max(later(lost, PAUSE))
    }

    /// Since when it is tried.
    fn first(&self) -> Option<Timestamp> {
        self.entry.since.map(|first| self.snapshot.begun_at(first))
    }

    /// Waits with the next pod, if it is too early.
    pub(super) fn pause(&self) -> Option<Planned<EntryPlan>> {
        let now = self.snapshot.now;
        let lost = self.snapshot.begun_at(self.record.lost_at?);
        let at = self.next_try(lost, self.record.attempt.unwrap_or(0), self.first());
        let message = self.entry.message.clone().filter(|_| now < at)?;
        Some(Planned::from(EntryPlan::Wait(Asking::AsTold(message).into())).with(Effects::wake_at(at)))
    }

    /// The next attempt, in a while; or the end, if pods have been lost for too long.
    pub(super) fn again(&self, why: Lost) -> EntryPlan {
        let (now, limit) = (self.snapshot.now, self.op.intent.pull_timeout);
        let first = self.first().unwrap_or(now);
        if now >= later(first, limit) {
            return self.fail(PreflightFailure::NoneEndedIn { limit, last: why });
        }
        self.try_again(first, &why)
    }

    /// The next attempt, in the boot in which the node is now, or the end of a node that boots for ever. A
    /// check may run for longer than pods may be lost, so the time counts from the first loss.
    pub(super) fn rebooted(&self, node: &NodeView) -> EntryPlan {
        let record = Preflight { begun_in: Some(node.boot_id.clone()), ..self.record.clone() };
        let since = self.entry.since.filter(|_| record.lost_at.is_some());
        let entry = Entry { since: since.or_else(|| Some(self.snapshot.now.into())), ..self.entry.clone() };
        PreflightContext { entry: &entry, record: &record, ..*self }.again(Lost::Rebooted)
    }

    /// Somebody else's pod has the name: that name is given up, and nothing else. Whoever takes one name
    /// after the other holds the node up, and cannot fail it.
    pub(super) fn foreign(&self, pod: &PodView) -> EntryPlan {
        let why = Lost::NameTaken((pod.namespace.clone(), pod.name.clone()));
        self.try_again(self.snapshot.now, &why)
    }

    fn try_again(&self, first: Timestamp, why: &Lost) -> EntryPlan {
        let now = self.snapshot.now;
        let attempt = self.record.attempt.unwrap_or(0).saturating_add(1);
        let at = self.next_try(now, attempt, Some(first));
        let record = Preflight { attempt: Some(attempt), lost_at: Some(now.into()), ..self.record.clone() };
        let (message, since, state) =
            (Some(tried_again(why, at)), Some(first.into()), State::Preflight(record));
        EntryPlan::Record(Box::new(Entry { message, since, state, ..self.entry.clone() }))
    }
}

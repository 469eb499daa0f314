//! One pass of a drain: evicts the pods whose time has come, and says where the drain stands.
//!
//! kubectl's filters ([`filter`]), with one difference that the Go operator's users rely on: a pod that
//! kubectl would refuse to evict (`force: false`, `deleteEmptyDirData: false`) is left where it is, and
//! named; `strict: true` refuses as kubectl does.
//!
//! kubectl lists once. A pod that comes after our first list has to go as well, since the scheduler may have
//! chosen the node before the cordon and bind the pod a minute later, when its volume is there. Only what
//! would come back for ever is left, and named: pods that tolerate the cordon, and those that a controller
//! pins to the cordoned node (see [`PodArrival`]), or the drain would be endless. A new leader lists anew,
//! and may so evict such a replacement once more; if the drain was over when it came, all that is there came
//! late. What comes late is never a reason to refuse the drain: it has begun.
//!
//! When the pods are gone, their volumes are waited for ([`volumes`]), and our own pod goes last ([`own`]).

mod budget;
mod filter;
mod late;
mod own;
mod volumes;

use k8s_openapi::jiff::SignedDuration;

pub use self::{
    filter::{EvictionDecision, decide},
    late::keep_clear,
};
use crate::plan::{
    model::{
        action::{Action, Notice, Target},
        effects::{Effects, Planned},
        intent::DrainIntent,
        snapshot::{NodePod, PodArrival, Refusal, Snapshot},
        stamp::Stamp,
        time::later,
    },
    node::{
        context::{Decision, NodeContext},
        failure::Failure,
        state::{self, At, Entry, State, Working},
        waiting::{Draining, PodsToGo, list},
    },
};

/// Between two tries on a blocked pod, plus up to a tenth of it by the pod's UID: many blocked drains must
/// not ask in step.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// Between two tries where only somebody's help helps. A server that asks for a longer pause is not heard: a
/// webhook may ask for a day, and the pod be free a minute later.
const RETRY_SLOWLY: SignedDuration = SignedDuration::from_secs(60);

/// Where a drain stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The pods are gone, but for these, which the options leave where they are.
    Done(Vec<String>),
    Going(Draining),
    /// It cannot be done, and nothing was evicted for it; or something is to be recorded first.
    Decided(Decision),
}

/// One pass over the pods of the node.
pub fn advance(
    ctx: &NodeContext<'_>,
    options: &DrainIntent,
    record: &state::DrainRecord,
) -> Planned<Progress> {
    let stale = ctx.snapshot.unlisted.get(&ctx.node.name).cloned();
    let Some(pods) = ctx.snapshot.drained_pods.get(&ctx.node.name) else {
        return Progress::Going(Draining::Listing(stale)).into();
    };
    let mut effects = Effects::default();
    let lenient = DrainIntent { strict: false, ..options.clone() };
    let decide = |pod: &NodePod| match arrival(ctx, pod) {
        _ if own::is(ctx.snapshot, pod) => EvictionDecision::Skip(own::WHY),
        PodArrival::Listed => judge(ctx, pod, options),
        PodArrival::Late | PodArrival::Back => judge(ctx, pod, &lenient),
    };
    let decisions: Vec<(&NodePod, EvictionDecision)> =
        pods.iter().map(|pod| (pod.as_ref(), decide(pod))).collect();
    let refused: Vec<String> = decisions
        .iter()
        .filter_map(|(pod, decision)| decision.refusal().map(|why| format!("{}: {why}", pod.path())))
        .collect();
    let is_over = |decision: &EvictionDecision| {
        !matches!(decision, EvictionDecision::Evict | EvictionDecision::AwaitDeletion)
    };
    // An old view ends no drain, neither well nor badly: pods may have come or gone since.
    if let Some(why) = &stale
        && (!refused.is_empty() || decisions.iter().all(|(_, decision)| is_over(decision)))
    {
        return Progress::Going(Draining::Listing(Some(why.clone()))).into();
    }
    if !refused.is_empty() {
        let pods = list(&refused);
        let untouched = ctx.snapshot.is_of_our_time(record.started);
        return Progress::Decided(Failure::DrainRefused { pods, untouched }.gives_up()).into();
    }
    let strict = DrainIntent { strict: true, ..options.clone() };
    let left = left(&decisions, |pod| judge(ctx, pod, &strict));
    let count = decisions.iter().filter(|(_, decision)| !is_over(decision)).count();
    if count == 0 {
        return after_pods(ctx, options, record, left).with(effects);
    }
    let which = |wanted: EvictionDecision| {
        decisions.iter().filter(move |(_, decision)| *decision == wanted).map(|(pod, _)| *pod)
    };
    let mut hint = which(EvictionDecision::Evict).find_map(|pod| budget::hint(ctx, pod).zip(Some(pod)));
    let blocked: Vec<String> = which(EvictionDecision::Evict)
        .filter_map(|pod| {
            let why = effects.absorb(evict(ctx, options, record.started, pod))?;
            let hint = hint.take_if(|(_, about)| about.uid == pod.uid).map_or("", |(hint, _)| hint);
            Some(format!("{why}{hint}"))
        })
        .collect();
    let untried = which(EvictionDecision::Evict).any(|pod| is_untried(ctx, pod));
    if let Some(next) = effects.absorb(say_blocked(ctx, record, &blocked, untried)) {
        return Planned { value: Progress::Decided(next), effects };
    }
    let stays_away = |pod: &NodePod| arrival(ctx, pod) != PodArrival::Back;
    let goes = |wanted| which(wanted).any(stays_away);
    if record.detaching_since.is_some()
        && (goes(EvictionDecision::Evict) || goes(EvictionDecision::AwaitDeletion))
    {
        // The volumes of those have the whole time to be detached.
        let next = state::DrainRecord { detaching_since: None, ..record.clone() };
        let next = ctx.record(|work| work.at = At::Drain(next));
        return Planned { value: Progress::Decided(next), effects };
    }
    let going = Draining::Pods(PodsToGo {
        count,
        blocked,
        ending: which(EvictionDecision::AwaitDeletion).map(until_gone).collect(),
        unconfirmed: !ctx.node.ready,
        evicted: which(EvictionDecision::Evict).map(NodePod::path).collect(),
        left,
        stale,
    });
    Planned { value: Progress::Going(going), effects }
}

fn arrival(ctx: &NodeContext<'_>, pod: &NodePod) -> PodArrival {
    ctx.snapshot.pod_arrival(&ctx.op.id, &ctx.node.name, pod)
}

/// What the options say of a pod.
fn judge(ctx: &NodeContext<'_>, pod: &NodePod, options: &DrainIntent) -> EvictionDecision {
    let stays_away = arrival(ctx, pod) != PodArrival::Back;
    let ours = is_ours(ctx.snapshot, &ctx.node.name, pod);
    // By our own clock: the server's may be ahead or behind, and a pod that has just been asked to end must
    // not be passed by.
    let ends_by = pod.ends_by.map(|_| ctx.snapshot.ending_until(pod));
    decide((pod, ends_by), options, ours, stays_away, ctx.snapshot.now)
}

/// The pods that only a `strict` drain would refuse to leave, and those that come back, each with why.
fn left(
    decisions: &[(&NodePod, EvictionDecision)],
    strictly: impl Fn(&NodePod) -> EvictionDecision,
) -> Vec<String> {
    let kept = decisions.iter().filter(|(_, decision)| matches!(decision, EvictionDecision::Skip(_)));
    let why = |pod: &NodePod| match strictly(pod) {
        EvictionDecision::Refuse(why) | EvictionDecision::Skip(why @ filter::COMES_BACK) => Some(why),
        EvictionDecision::Evict | EvictionDecision::AwaitDeletion | EvictionDecision::Skip(_) => None,
    };
    kept.filter_map(|(pod, _)| why(pod).map(|why| format!("{}: {why}", pod.path()))).collect()
}

/// Whether the pod belongs to a NodeOp, known to us or not, or to the Job of one. A label proves nothing:
/// anybody can set one.
fn is_ours(snapshot: &Snapshot, node: &str, pod: &NodePod) -> bool {
    let owner = pod.controller.as_ref();
    owner.is_some_and(|owner| {
        owner.is_nodeop() || snapshot.operation_of_job(&pod.namespace, owner, node).is_some()
    })
}

/// What evictions bring with them: volumes to detach; and our own pod, which goes when all others have.
fn after_pods(
    ctx: &NodeContext<'_>,
    options: &DrainIntent,
    record: &state::DrainRecord,
    left: Vec<String>,
) -> Planned<Progress> {
    volumes::wait(ctx, record)
        .or_else(|| own::evict(ctx, options, record.started).map(|going| going.map(Progress::Going)))
        .map(|progress| progress.unwrap_or(Progress::Done(left)))
}

/// Says which pods stay on the node while the operation runs.
pub fn say_left(ctx: &NodeContext<'_>, left: &[String]) -> Option<Notice> {
    let name = ctx.node.name.clone();
    let message = format!("node {name}: drained, but these pods were left where they are: {}", list(left));
    (!left.is_empty()).then_some(Notice { warning: true, reason: "PodsLeft", message, node: Some(name) })
}

/// Whether no try of this process on the pod has had an answer yet.
fn is_untried(ctx: &NodeContext<'_>, pod: &NodePod) -> bool {
    let last = ctx.snapshot.last_eviction(&ctx.node.name, pod);
    last.is_none_or(|last| last.under_way && last.refusal.is_none())
}

/// Records since when the drain is blocked, once, and says it in an Event; and that it goes on. What an
/// earlier leader recorded stands for as long as we have not tried ourselves.
fn say_blocked(
    ctx: &NodeContext<'_>,
    record: &state::DrainRecord,
    blocked: &[String],
    untried: bool,
) -> Planned<Option<Decision>> {
    if record.blocked_since.is_some() != blocked.is_empty() || (blocked.is_empty() && untried) {
        return None.into();
    }
    let since = (!blocked.is_empty()).then(|| ctx.snapshot.now.into());
    let next = state::DrainRecord { blocked_since: since, ..record.clone() };
    let work = Working { at: At::Drain(next), ..ctx.work.clone() };
    let mut entry = Entry { state: State::Working(work.into()), ..ctx.entry.clone() };
    if blocked.is_empty() {
        return Some(Decision::Record(entry.into())).into();
    }
    entry.message = Some(format!("draining: blocked: {}", list(blocked)));
    let name = ctx.node.name.clone();
    let message = format!("node {name}: the drain is blocked: {}", list(blocked));
    let notice = Notice { warning: true, reason: "DrainBlocked", message, node: Some(name) };
    Planned::from(Some(Decision::Record(entry.into()))).with(notice)
}

/// A pod that ends: since when, until when it may, and what holds it then.
fn until_gone(pod: &NodePod) -> String {
    let Some(until) = pod.ends_by else { return pod.path() };
    let since = until.checked_sub(SignedDuration::from_secs(pod.grace_seconds)).unwrap_or(until);
    let held = if pod.finalizers.is_empty() {
        String::new()
    } else {
        format!(", held by finalizers {}", pod.finalizers.join(", "))
    };
    format!("{} (since {since:.0}, has until {until:.0}{held})", pod.path())
}

/// Evicts the pod if it is time to, and returns what blocks it.
fn evict(
    ctx: &NodeContext<'_>,
    options: &DrainIntent,
    started: Stamp,
    pod: &NodePod,
) -> Planned<Option<String>> {
    let (now, leading_since) = (ctx.snapshot.now, ctx.snapshot.leading_since);
    let last = ctx.snapshot.last_eviction(&ctx.node.name, pod);
    let refusal = last.and_then(|last| last.refusal.as_ref());
    let blocked =
        refusal.map(|refusal| format!("{} since {:.0}: {}", pod.path(), refusal.since, refusal.message));
    if last.is_some_and(|last| last.under_way) {
        return blocked.into();
    }
    let due = match last {
        // What an earlier leader tried is not known here: with its last try up to now, ours comes one
        // interval later.
        None if !ctx.snapshot.is_of_our_time(started) => later(leading_since, interval(pod)),
        None => now,
        Some(last) => later(last.at, refusal.map_or_else(|| interval(pod), |refusal| pause(pod, refusal))),
    };
    if now < due {
        return Planned::from(blocked).with(Effects::wake_at(due));
    }
    let target = Target { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() };
    let (node, grace_period_seconds) = (ctx.node.name.clone(), options.grace_period_seconds);
    Planned::from(blocked).with(Action::Evict { node, pod: target, grace_period_seconds })
}

/// How long to stay away after a refusal. What only a human can repair (two budgets over one pod) is asked
/// again, slowly.
fn pause(pod: &NodePod, refusal: &Refusal) -> SignedDuration {
    if refusal.permanent {
        return RETRY_SLOWLY;
    }
    let asked = SignedDuration::from_secs(refusal.retry_after.unwrap_or(0));
    interval(pod).max(asked.min(RETRY_SLOWLY))
}

/// The retry interval of one pod: [`RETRY`] and up to a tenth of it more, by its UID.
fn interval(pod: &NodePod) -> SignedDuration {
    let spread: u64 =
        pod.uid.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) % 500;
    RETRY + SignedDuration::from_millis(i64::try_from(spread).unwrap_or(0))
}

#[cfg(test)]
mod tests;

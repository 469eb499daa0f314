//! Which pods of a node are evicted, which are waited for, which are left, and when the drain is done.
//!
//! kubectl's filters in kubectl's order, with one difference that the Go operator's users rely on: a pod that kubectl
//! would refuse to evict (`force: false`, `deleteEmptyDirData: false`) is left where it is, and named; `strict: true`
//! refuses as kubectl does. Pods made after the drain started are left too, as kubectl does by listing once: a controller
//! that pins its pods to the node would otherwise make it endless.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    action::{Action, Plan, Target},
    intent::Drain,
    selector,
    snapshot::{NodeView, Refusal, Resident, Snapshot},
    step::later,
};

/// Between two tries on a blocked pod, plus up to a fifth of it by the pod's UID: many blocked drains must not ask in step.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// At most so many blocked pods are named in a message.
const NAMED: usize = 10;

/// What is done with a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Evict,
    /// It is ending already.
    WaitFor,
    /// It stays where it is.
    Leave(&'static str),
    /// kubectl would not drain the node while this pod is there.
    Refuse(&'static str),
}

/// Where a drain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    Going(String),
    /// It cannot be done; nothing was evicted for it.
    Refused(String),
}

/// Decides about one pod. `ours` holds the UIDs of our NodeOps and Jobs; `started` is the drain's start.
pub fn fate(pod: &Resident, options: &Drain, ours: &BTreeSet<&str>, started: Timestamp, now: Timestamp) -> Fate {
    let controller = pod.controller.as_ref();
    if controller.is_some_and(|(_, uid)| ours.contains(uid.as_str())) {
        return Fate::Leave("it belongs to a NodeOp");
    }
    if let Some(since) = pod.deleting_since {
        return match options.skip_wait_for_delete {
            Some(limit) if now >= later(since, limit) => Fate::Leave("it is being deleted for too long to be waited for"),
            _ => Fate::WaitFor,
        };
    }
    if pod.created > started {
        return Fate::Leave("it was made after the drain had started");
    }
    if options.options.pod_selector.as_ref().is_some_and(|selector| !selector::matches(selector, &pod.labels)) {
        return Fate::Leave("podSelector does not match it");
    }
    if options.options.skip.as_ref().is_some_and(|selector| selector::matches(selector, &pod.labels)) {
        return Fate::Leave("skip matches it");
    }
    let refuse = |why| if options.strict { Fate::Refuse(why) } else { Fate::Leave(why) };
    if !pod.finished && controller.is_some_and(|(kind, _)| kind == "DaemonSet") {
        return match (options.ignore_daemon_sets, options.strict) {
            (true, _) => Fate::Leave("a DaemonSet would make it again at once"),
            (false, true) => Fate::Refuse("it belongs to a DaemonSet (ignoreDaemonSets is false)"),
            (false, false) => Fate::Evict,
        };
    }
    if pod.mirror {
        return Fate::Leave("it is a static pod");
    }
    if !pod.finished && pod.local_storage && !options.delete_empty_dir_data {
        return refuse("it has emptyDir data (deleteEmptyDirData is false)");
    }
    if !pod.finished && controller.is_none() && !options.force {
        return refuse("no controller would make it again (force is false)");
    }
    Fate::Evict
}

/// One pass over the pods of a node: evicts those whose time has come, and says where the drain stands.
pub fn advance(s: &Snapshot, options: &Drain, node: &NodeView, started: Timestamp, plan: &mut Plan) -> Progress {
    plan.drains.insert(node.name.clone());
    let Some(pods) = s.residents.get(&node.name) else {
        return Progress::Going("draining: listing the node's pods".into());
    };
    let ours: BTreeSet<&str> = s
        .ops
        .values()
        .filter_map(|op| op.metadata.uid.as_deref())
        .chain(
            s.jobs
                .values()
                .filter(|job| s.ops.values().any(|op| op.metadata.uid.as_deref() == Some(&job.owner_uid)))
                .map(|job| job.uid.as_str()),
        )
        .collect();
    let fates: Vec<(&Resident, Fate)> =
        pods.iter().map(|pod| (pod.as_ref(), own_pod(s, pod).unwrap_or_else(|| fate(pod, options, &ours, started, s.now)))).collect();
    let refused: Vec<String> = fates
        .iter()
        .filter_map(|(pod, fate)| if let Fate::Refuse(why) = fate { Some(format!("{}: {why}", pod.path())) } else { None })
        .collect();
    if !refused.is_empty() {
        return Progress::Refused(format!("drain refused, no pod was evicted: {}", list(&refused)));
    }
    let mut blocked = Vec::new();
    let mut left = 0;
    for (pod, fate) in &fates {
        match fate {
            Fate::Evict => {
                left += 1;
                blocked.extend(evict(s, options, node, started, pod, plan));
            }
            Fate::WaitFor => left += 1,
            Fate::Leave(_) | Fate::Refuse(_) => {}
        }
    }
    if left == 0 {
        return Progress::Done;
    }
    if blocked.is_empty() {
        let held: Vec<String> =
            fates.iter().filter(|(pod, fate)| *fate == Fate::WaitFor && !pod.finalizers.is_empty()).map(|(pod, _)| pod.path()).collect();
        let held = if held.is_empty() { String::new() } else { format!("; finalizers hold {}", list(&held)) };
        return Progress::Going(format!("draining: {left} pods to go{held}"));
    }
    Progress::Going(format!("draining: {left} pods to go, {} blocked: {}", blocked.len(), list(&blocked)))
}

/// The operator's own pod stays: evicting it would end the drain in the middle.
fn own_pod(s: &Snapshot, pod: &Resident) -> Option<Fate> {
    let (namespace, name) = s.settings.own_pod.as_ref()?;
    (*namespace == pod.namespace && *name == pod.name).then_some(Fate::Leave("it is the operator itself"))
}

fn list(items: &[String]) -> String {
    let more = items.len().saturating_sub(NAMED);
    let shown = items.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// Evicts the pod if it is time to, and returns what blocks it.
fn evict(s: &Snapshot, options: &Drain, node: &NodeView, started: Timestamp, pod: &Resident, plan: &mut Plan) -> Option<String> {
    let last = s.evictions.get(&pod.uid);
    let refusal = last.and_then(|last| last.refusal.as_ref());
    let blocked = refusal.map(|refusal| format!("{} since {:.0}: {}", pod.path(), refusal.since, refusal.words));
    if last.is_some_and(|last| last.under_way) {
        return blocked;
    }
    let due = match last {
        // What an earlier leader tried is not known here: with its last try up to now, ours comes one interval later.
        None if started < s.leading_since => later(s.leading_since, interval(pod)),
        None => s.now,
        Some(last) => later(last.at, refusal.map_or_else(|| interval(pod), |refusal| pause(pod, refusal))),
    };
    if s.now >= due {
        let target = Target { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() };
        plan.actions.push(Action::Evict { node: node.name.clone(), pod: target, grace_period_seconds: options.grace_period_seconds });
    } else {
        plan.wake(due);
    }
    blocked
}

/// How long to stay away after a refusal. What only a human mends (two budgets over one pod) is asked again, slowly.
fn pause(pod: &Resident, refusal: &Refusal) -> SignedDuration {
    if refusal.permanent {
        return RETRY * 12;
    }
    interval(pod).max(SignedDuration::from_secs(refusal.retry_after.unwrap_or(0)))
}

/// The retry interval of one pod: [`RETRY`] and up to a fifth of it more, by its UID.
fn interval(pod: &Resident) -> SignedDuration {
    let spread: u64 = pod.uid.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) % 1000;
    RETRY + SignedDuration::from_millis(i64::try_from(spread).unwrap_or(0))
}

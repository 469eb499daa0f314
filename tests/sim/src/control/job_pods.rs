//! The pods of Jobs: made, counted once, and let go.
//!
//! Each has a finalizer, so that no pod is gone before it was counted.

use serde_json::{Value, json};

use super::{Timers, job_verdict as verdict};
use crate::{
    json::{flag, int, list, map, set, text},
    server::{State, delete, evict::is_ready, write::Options},
    store::{Change, ChangeKind, Key, Object},
};

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// The Job of a pod that changed. A pod whose Job is gone is let go.
pub fn owner(state: &mut State, change: &Change) -> Option<Key> {
    let owner = list(&change.object, "/metadata/ownerReferences")
        .iter()
        .find(|r| text(r, "/kind") == "Job" && flag(r, "/controller"));
    let key =
        owner.map(|o| (Key::new("jobs.batch", &change.key.namespace, text(o, "/name")), text(o, "/uid")));
    let living =
        key.filter(|(key, uid)| state.store.get(key).is_some_and(|j| text(&j, "/metadata/uid") == *uid));
    if living.is_none() && change.kind != ChangeKind::Deleted && is_tracked(&change.object) {
        untrack(state, &change.key);
    }
    living.map(|(key, _)| key)
}

/// The pods of a Job that are not over.
#[derive(Debug, Default)]
pub struct Pods {
    /// Running, or on their way to it.
    pub active: Vec<Object>,
    /// Being deleted.
    pub terminating: Vec<Object>,
}

impl Pods {
    /// The pods that a Job has now.
    pub fn of(state: &State, job: &Value) -> Self {
        let mut pods = Self::default();
        for pod in all(state, job).into_iter().filter(|pod| !is_over(pod)) {
            if pod.pointer("/metadata/deletionTimestamp").is_some() {
                pods.terminating.push(pod)
            } else {
                pods.active.push(pod)
            }
        }
        pods
    }
}

/// What a look at a Job's pods found.
#[derive(Debug, Default)]
pub struct Counts {
    pub newly_succeeded: i64,
    pub newly_failed: i64,
    pub active: i64,
    pub ready: i64,
    pub terminating: i64,
    /// Why a failure must not be tried again.
    pub fatal: Option<String>,
}

/// The pods in the Job's own namespace that say that a Job of this UID controls them. One elsewhere that says
/// so is nobody's.
fn all(state: &State, job: &Value) -> Vec<Object> {
    let (uid, namespace) = (text(job, "/metadata/uid"), text(job, "/metadata/namespace"));
    let keys = state
        .store
        .owned_by(uid)
        .into_iter()
        .filter(|key| key.table.as_ref() == "pods" && key.namespace == namespace);
    let controls = |owner: &Value| {
        text(owner, "/kind") == "Job" && text(owner, "/uid") == uid && flag(owner, "/controller")
    };
    keys.filter_map(|key| state.store.get(&key))
        .filter(|pod| list(pod, "/metadata/ownerReferences").iter().any(controls))
        .collect()
}

fn is_over(pod: &Value) -> bool {
    // A pod that is deleted before it has a node never gets a kubelet that would end it.
    let never_ran =
        text(pod, "/spec/nodeName").is_empty() && pod.pointer("/metadata/deletionTimestamp").is_some();
    never_ran || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn is_tracked(pod: &Value) -> bool {
    list(pod, "/metadata/finalizers").iter().any(|f| f == TRACKING)
}

/// Counts the pods, and lets those go that are over.
pub fn count(state: &mut State, job: &Value) -> Counts {
    let mut counts = Counts::default();
    // In this policy a pod that is being deleted already counts as failed, and is replaced at once.
    let hasty = text(job, "/spec/podReplacementPolicy") != "Failed";
    for pod in all(state, job) {
        let leaving = pod.pointer("/metadata/deletionTimestamp").is_some();
        let over = is_over(&pod) || (hasty && leaving);
        counts.terminating += i64::from(leaving && !is_over(&pod));
        counts.active += i64::from(!leaving && !over);
        counts.ready += i64::from(!leaving && is_ready(&pod));
        if !over || !is_tracked(&pod) {
            continue;
        }
        if text(&pod, "/status/phase") == "Succeeded" {
            counts.newly_succeeded += 1;
        } else {
            match verdict::on_failure(job, &pod) {
                verdict::OnFailure::Count => counts.newly_failed += 1,
                verdict::OnFailure::Ignore => {}
                verdict::OnFailure::FailJob(why) => {
                    counts.newly_failed += 1;
                    counts.fatal.get_or_insert(why);
                }
            }
        }
        untrack(state, &key_of(&pod));
    }
    counts
}

fn key_of(pod: &Value) -> Key {
    Key::new("pods", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
}

fn untrack(state: &mut State, key: &Key) {
    state.modify(key, |pod| {
        let kept: Vec<Value> =
            list(pod, "/metadata/finalizers").iter().filter(|f| *f != TRACKING).cloned().collect();
        crate::json::put(pod, "/metadata/finalizers", (!kept.is_empty()).then(|| kept.into()));
    });
}

/// Lets all pods of a Job go that is over.
pub fn release(state: &mut State, job: &Value) {
    for pod in all(state, job).iter().filter(|pod| is_tracked(pod)) {
        untrack(state, &key_of(pod));
    }
}

/// Ends the pods of a Job that is suspended: they are let go first, so that none counts as a failure.
pub fn suspend(state: &mut State, pods: &[Object]) {
    pods.iter().for_each(|pod| untrack(state, &key_of(pod)));
    remove(state, pods);
}

/// Deletes pods.
pub fn remove(state: &mut State, pods: &[Object]) {
    let Some(kind) = state.registry.of_table("pods") else { return };
    for pod in pods {
        let options =
            delete::Options { uid: text(pod, "/metadata/uid").into(), ..delete::Options::default() };
        if let Err(error) = state.delete(&kind, &key_of(pod), &options) {
            tracing::warn!(?error, "a Job's pod was not deleted");
        }
    }
}

/// Makes the pods that are missing.
pub fn make(state: &mut State, job: &Value, pods: &Pods, timers: &Timers) {
    let parallelism = int(job, "/spec/parallelism").unwrap_or(1);
    let succeeded = int(job, "/status/succeeded").unwrap_or_default();
    let wanted = int(job, "/spec/completions").map_or(parallelism, |c| parallelism.min(c - succeeded));
    let patient = text(job, "/spec/podReplacementPolicy") == "Failed";
    let present = pods.active.len() + if patient { pods.terminating.len() } else { 0 };
    let Some(kind) = state.registry.of_table("pods") else { return };
    for _ in i64::try_from(present).unwrap_or(i64::MAX)..wanted {
        if let Err(error) = state.insert(&kind, pod_of(job), Options::default()) {
            tracing::warn!(?error, "a Job's pod was refused");
            complain(state, job, &format!("Error creating: {}", text(&error.status(), "/message")));
            let key = Key::new("jobs.batch", text(job, "/metadata/namespace"), text(job, "/metadata/name"));
            return timers.hold(text(job, "/metadata/uid"), std::time::Duration::from_secs(1), key);
        }
    }
}

/// One Event per Job, which counts, as that of the controller does.
fn complain(state: &mut State, job: &Value, message: &str) {
    let (namespace, name) = (text(job, "/metadata/namespace"), text(job, "/metadata/name"));
    let event = format!("{name}.failedcreate");
    let said = |event: &mut Value| {
        set(event, "/count", int(event, "/count").unwrap_or_default() + 1);
        set(event, "/message", message);
        set(event, "/lastTimestamp", crate::server::now());
    };
    if state.modify(&Key::new("events", namespace, &event), said).is_some() {
        return;
    }
    let Some(kind) = state.registry.of_table("events") else { return };
    let about = json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": namespace, "name": name, "uid": text(job, "/metadata/uid")});
    let mut first = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": event, "namespace": namespace}, "type": "Warning",
        "reason": "FailedCreate", "involvedObject": about, "firstTimestamp": crate::server::now(), "source": {"component": "job-controller"}});
    said(&mut first);
    if let Err(error) = state.insert(&kind, first, Options::default()) {
        tracing::warn!(?error, "an Event was refused");
    }
}

fn pod_of(job: &Value) -> Value {
    let mut pod = job.pointer("/spec/template").cloned().unwrap_or_default();
    let (name, namespace, uid) =
        (text(job, "/metadata/name"), text(job, "/metadata/namespace"), text(job, "/metadata/uid"));
    set(&mut pod, "/metadata/generateName", format!("{name}-"));
    set(&mut pod, "/metadata/namespace", namespace);
    set(&mut pod, "/metadata/finalizers", json!([TRACKING]));
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true});
    set(&mut pod, "/metadata/ownerReferences", json!([owner]));
    debug_assert!(map(&pod, "/metadata/labels").is_some(), "a Job's template is labelled on creation");
    pod
}

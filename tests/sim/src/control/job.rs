//! The Job controller: one look at a Job and its pods, one step on.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Timers,
    job_pods::{self, Pods},
    job_verdict as verdict,
};
use crate::{
    json::{flag, int, put, set, take, text},
    server::{State, now},
    store::{Key, Object},
};

/// Brings a Job one step on.
pub fn look(state: &mut State, key: &Key, timers: &Timers) {
    let Some(job) = state.store.get(key) else { return };
    if verdict::has(&job, "Complete")
        || verdict::has(&job, "Failed")
        || job.pointer("/metadata/deletionTimestamp").is_some()
    {
        job_pods::release(state, &job);
        return;
    }
    let counts = job_pods::count(state, &job);
    let Some(job) = record(state, key, &counts) else { return };
    if counts.newly_failed > 0 {
        let failures = u32::try_from(int(&job, "/status/failed").unwrap_or_default()).unwrap_or(1);
        timers.hold(text(&job, "/metadata/uid"), back_off(failures), key.clone());
    }
    let pods = Pods::of(state, &job);
    if let Some((kind, reason, message)) = verdict::reached(state, &job, &pods) {
        return end(state, key, &job, &pods, (kind, &reason, &message));
    }
    if flag(&job, "/spec/suspend") {
        return job_pods::suspend(state, &pods.active);
    }
    watch_deadline(&job, key, timers);
    if !timers.holds(text(&job, "/metadata/uid")) {
        job_pods::make(state, &job, &pods, timers);
    }
}

/// A real cluster begins with ten seconds; here nobody wants to wait that long.
fn back_off(failures: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << failures.min(6))
}

/// Writes counts, start time and suspension into the status.
fn record(state: &mut State, key: &Key, counts: &job_pods::Counts) -> Option<Object> {
    state.modify(key, |job| {
        for (field, more) in [("succeeded", counts.newly_succeeded), ("failed", counts.newly_failed)] {
            let sum = int(job, &format!("/status/{field}")).unwrap_or_default() + more;
            put(job, &format!("/status/{field}"), (sum > 0).then(|| sum.into()));
        }
        put(job, "/status/active", (counts.active > 0).then(|| counts.active.into()));
        set(job, "/status/ready", counts.ready);
        set(job, "/status/terminating", counts.terminating);
        if let Some(failure) = &counts.fatal {
            verdict::add(job, "FailureTarget", "PodFailurePolicy", failure);
        }
        suspend_or_start(job);
    })
}

fn suspend_or_start(job: &mut Value) {
    if flag(job, "/spec/suspend") {
        take(job, "/status/startTime");
        verdict::set_suspended(job, true);
        return;
    }
    if job.pointer("/status/startTime").is_none() {
        set(job, "/status/startTime", now());
        verdict::set_suspended(job, false);
    }
}

/// First the reason why the Job ends, then its pods, and only when these are over the end itself.
fn end(state: &mut State, key: &Key, job: &Value, pods: &Pods, (kind, reason, message): (&str, &str, &str)) {
    let first = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    if !verdict::has(job, first) {
        state.modify(key, |job| verdict::add(job, first, reason, message));
    }
    job_pods::remove(state, &pods.active);
    if !pods.active.is_empty() || !pods.terminating.is_empty() {
        return;
    }
    state.modify(key, |job| {
        verdict::add(job, kind, reason, message);
        set(job, "/status/ready", 0);
        set(job, "/status/terminating", 0);
        take(job, "/status/active");
        if kind == "Complete" {
            set(job, "/status/completionTime", now());
        }
        set(job, "/status/uncountedTerminatedPods", json!({}));
    });
}

fn watch_deadline(job: &Value, key: &Key, timers: &Timers) {
    let Some(seconds) = int(job, "/spec/activeDeadlineSeconds") else { return };
    let Ok(start) = text(job, "/status/startTime").parse::<Timestamp>() else { return };
    // The deadline may be moved while the Job runs.
    let what = format!("{}/{seconds}", text(job, "/metadata/uid"));
    if timers.holds(&what) {
        return;
    }
    let spent = crate::clock::now().duration_since(start).as_millis();
    let left = u64::try_from(i128::from(seconds) * 1000 - spent).unwrap_or_default();
    timers.hold(&what, Duration::from_millis(left + 50), key.clone());
}

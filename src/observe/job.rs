//! A Job, from what the API server returns to what the planner sees.

use super::view::{MAX_STATE, annotation, node_of, text};
use crate::{
    api::{
        job::{Job, JobSpec, JobStatus},
        names,
        owner::Owner,
    },
    plan::model::snapshot::{JobState, JobView},
};

/// A Job as the planner sees it.
pub fn job(job: &Job) -> JobView {
    let meta = &job.metadata;
    JobView {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        owner: Owner::of(meta).unwrap_or_default(),
        node: node_of(meta),
        suspended: job.spec.as_ref().is_some_and(is_suspended),
        deleting: meta.deletion_timestamp.is_some(),
        state: job_state(job),
        started_at: job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        generation: meta.generation,
        deadline_seconds: job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds),
        failed: job.status.as_ref().map(failed_pods).unwrap_or(0),
        has_pod: job.status.as_ref().is_some_and(|status| status.active > Some(0)),
        has_ready_pod: job.status.as_ref().is_some_and(|status| status.ready > Some(0)),
        settled_in: annotation(meta, names::SETTLED_IN).filter(|boot| boot.len() <= MAX_STATE),
    }
}

/// Without a pod that it may have, a Job stands still as well: people paused Jobs so before they could be
/// suspended.
fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true) || spec.parallelism == Some(0)
}

/// A pod that has failed is let go before it is counted, and stands by itself in the status until it is.
fn failed_pods(status: &JobStatus) -> i32 {
    let uncounted = status.uncounted_terminated_pods.as_ref().and_then(|pods| pods.failed.as_ref());
    let uncounted = uncounted.map_or(0, |pods| i32::try_from(pods.len()).unwrap_or(i32::MAX));
    status.failed.unwrap_or(0).saturating_add(uncounted)
}

/// `Complete` and `Failed` are the outcome; `SuccessCriteriaMet` and `FailureTarget` come before the pods
/// have ended.
fn job_state(job: &Job) -> JobState {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let find =
        |type_: &str| conditions.into_iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    let message = |type_: &str| find(type_).map(|c| format!("{}: {}", text(&c.reason), text(&c.message)));
    if find("Complete").is_some() {
        JobState::Complete
    } else if let Some(why) = message("Failed") {
        JobState::Failed(why)
    } else if let Some(why) = message("FailureTarget") {
        JobState::Failing(why)
    } else {
        JobState::Active
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(object: Value) -> JobView {
        job(&serde_json::from_value(object).unwrap())
    }

    /// People once paused Jobs so: the controller ends its pods, and makes none.
    #[test]
    fn a_job_that_may_have_no_pod_is_suspended() {
        let suspended = |spec: Value| read(json!({"metadata": {"name": "j"}, "spec": spec})).suspended;
        assert!(suspended(json!({"parallelism": 0, "suspend": false})));
        assert!(suspended(json!({"parallelism": 1, "suspend": true})));
        assert!(!suspended(json!({"parallelism": 1, "suspend": false})));
        assert!(!suspended(json!({})));
    }

    /// The controller lets a pod go, and counts it after that.
    #[test]
    fn a_pod_that_has_failed_is_counted_while_its_controller_is_just_counting_it() {
        let failed = |status: Value| read(json!({"metadata": {"name": "j"}, "status": status})).failed;
        assert_eq!(failed(json!({})), 0);
        assert_eq!(failed(json!({"failed": 2})), 2);
        let uncounted = json!({"succeeded": ["a"], "failed": ["b", "c"]});
        assert_eq!(failed(json!({"failed": 1, "uncountedTerminatedPods": uncounted})), 3);
        assert_eq!(failed(json!({"failed": 1, "uncountedTerminatedPods": {}})), 1);
    }
}

//! When a Job is over, and why.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::job_pods::Pods;
use crate::{
    json::{int, list, set, text},
    server::{State, now},
};

/// Whether a condition is true.
pub fn has(job: &Value, kind: &str) -> bool {
    list(job, "/status/conditions").iter().any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
}

/// Adds a condition, once.
pub fn add(job: &mut Value, kind: &str, reason: &str, message: &str) {
    if !has(job, kind) {
        put(job, kind, "True", reason, message);
    }
}

fn put(job: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let mut conditions = list(job, "/status/conditions").to_vec();
    conditions.retain(|c| text(c, "/type") != kind);
    let now = now();
    conditions.push(
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastProbeTime": now, "lastTransitionTime": now}),
    );
    set(job, "/status/conditions", conditions);
}

/// Says whether a Job is suspended, if it ever was.
pub fn set_suspended(job: &mut Value, suspended: bool) {
    let known = list(job, "/status/conditions").iter().any(|c| text(c, "/type") == "Suspended");
    if suspended && !has(job, "Suspended") {
        put(job, "Suspended", "True", "JobSuspended", "Job suspended");
    } else if !suspended && known {
        put(job, "Suspended", "False", "JobResumed", "Job resumed");
    }
}

/// Whether, how and why a Job ends: the condition's type, reason and message.
pub fn reached(_: &State, job: &Value, pods: &Pods) -> Option<(&'static str, String, String)> {
    if let Some(target) = list(job, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == "FailureTarget" && text(c, "/status") == "True")
    {
        return Some(("Failed", text(target, "/reason").into(), text(target, "/message").into()));
    }
    let status = |field: &str| int(job, &format!("/status/{field}")).unwrap_or_default();
    let completions = int(job, "/spec/completions");
    let done = completions.map_or_else(
        || status("succeeded") > 0 && pods.active.is_empty(),
        |wanted| status("succeeded") >= wanted,
    );
    if has(job, "SuccessCriteriaMet") || done {
        return Some((
            "Complete",
            "CompletionsReached".into(),
            "Reached expected number of succeeded pods".into(),
        ));
    }
    if failures(job, pods) > int(job, "/spec/backoffLimit").unwrap_or(6) {
        return Some((
            "Failed",
            "BackoffLimitExceeded".into(),
            "Job has reached the specified backoff limit".into(),
        ));
    }
    if is_past_deadline(job) {
        return Some((
            "Failed",
            "DeadlineExceeded".into(),
            "Job was active longer than specified deadline".into(),
        ));
    }
    None
}

/// Pods that failed; where pods restart in place, the restarts count too.
fn failures(job: &Value, pods: &Pods) -> i64 {
    let failed = int(job, "/status/failed").unwrap_or_default();
    if text(job, "/spec/template/spec/restartPolicy") != "OnFailure" {
        return failed;
    }
    let of = |pod: &Value, field: &str| {
        list(pod, field).iter().filter_map(|c| int(c, "/restartCount")).sum::<i64>()
    };
    failed
        + pods
            .active
            .iter()
            .map(|p| of(p, "/status/containerStatuses") + of(p, "/status/initContainerStatuses"))
            .sum::<i64>()
}

fn is_past_deadline(job: &Value) -> bool {
    let Some(seconds) = int(job, "/spec/activeDeadlineSeconds") else { return false };
    let start = text(job, "/status/startTime").parse::<Timestamp>();
    start.is_ok_and(|start| crate::clock::now().duration_since(start).as_secs() >= seconds)
}

/// What a Job's policy says about one failed pod.
#[derive(Debug)]
pub enum OnFailure {
    /// It counts towards the limit.
    Count,
    /// It does not count.
    Ignore,
    /// The Job fails at once.
    FailJob(String),
}

/// Reads the policy for a failed pod: the first rule that matches.
pub fn on_failure(job: &Value, pod: &Value) -> OnFailure {
    for (index, rule) in list(job, "/spec/podFailurePolicy/rules").iter().enumerate() {
        let Some(matched) = matched(rule, pod) else { continue };
        return match text(rule, "/action") {
            "FailJob" => OnFailure::FailJob(format!("{matched} matching FailJob rule at index {index}")),
            "Ignore" => OnFailure::Ignore,
            _ => OnFailure::Count,
        };
    }
    OnFailure::Count
}

fn matched(rule: &Value, pod: &Value) -> Option<String> {
    let full_name = format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    if let Some(on) = rule.get("onExitCodes") {
        let statuses =
            list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
        for status in statuses {
            let wanted = text(on, "/containerName");
            let code = int(status, "/state/terminated/exitCode").filter(|code| *code != 0);
            let (Some(code), true) = (code, wanted.is_empty() || wanted == text(status, "/name")) else {
                continue;
            };
            let listed = list(on, "/values").iter().any(|v| v.as_i64() == Some(code));
            if listed == (text(on, "/operator") == "In") {
                return Some(format!(
                    "Container {} for pod {full_name} failed with exit code {code}",
                    text(status, "/name")
                ));
            }
        }
        return None;
    }
    let conditions = list(pod, "/status/conditions");
    let fits = |pattern: &Value| {
        let status = if text(pattern, "/status").is_empty() { "True" } else { text(pattern, "/status") };
        conditions.iter().any(|c| text(c, "/type") == text(pattern, "/type") && text(c, "/status") == status)
    };
    let pattern = list(rule, "/onPodConditions").iter().find(|p| fits(p))?;
    Some(format!("Pod {full_name} has condition {}", text(pattern, "/type")))
}

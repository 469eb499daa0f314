//! The eviction subresource, with the answers of a real server (measured; see each line's comment).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    State,
    delete::{self, Deleted},
    error::{ApiError, ApiResult},
    now,
    request::{Query, Resource},
};
use crate::{
    json::{int, list, map, set, text},
    kinds::Kind,
    store::{Key, Object, selector::Selector},
};

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl State {
    /// Evicts a pod, if its budget allows it.
    pub fn evict(
        &mut self,
        kind: &Arc<Kind>,
        resource: &Resource,
        body: &Value,
        query: &Query,
    ) -> ApiResult<Value> {
        let pod = self.fetch(kind, resource)?;
        self.check_namespace(kind, &resource.namespace, &resource.name)?;
        let named = text(body, "/metadata/name");
        if !named.is_empty() && named != resource.name {
            return Err(ApiError::bad_request(format!(
                "name in URL does not match name in Eviction object: {} != {named}",
                resource.name
            )));
        }
        let body_options = body.get("deleteOptions").cloned().unwrap_or_default();
        let options = delete::Options::parse(&body_options, query)?;
        let key = Key::new("pods", &resource.namespace, &resource.name);
        if !bypasses(&pod) {
            // The budget is spent before the deletion compares the UID, as the real server does.
            self.spend(&pod, options.dry_run)?;
        }
        if !options.dry_run && pod.pointer("/metadata/deletionTimestamp").is_none() && !is_over(&pod) {
            self.mark_disrupted(kind, &key, &options)?;
        }
        match self.delete(kind, &key, &options)? {
            Deleted::Gone(_) | Deleted::Pending(_) => {}
        }
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    fn mark_disrupted(&mut self, kind: &Arc<Kind>, key: &Key, options: &delete::Options) -> ApiResult<()> {
        // A deletion whose preconditions fail must leave no trace on the pod.
        let rehearsal = delete::Options { dry_run: true, ..options.clone() };
        self.delete(kind, key, &rehearsal)?;
        if !options.version.is_empty() {
            return Ok(());
        }
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting", "lastTransitionTime": now()});
        self.modify(key, |pod| {
            let mut conditions = list(pod, "/status/conditions").to_vec();
            conditions.retain(|c| text(c, "/type") != "DisruptionTarget");
            conditions.push(condition);
            set(pod, "/status/conditions", conditions);
        });
        Ok(())
    }

    /// Takes one disruption out of the pod's budget.
    fn spend(&mut self, pod: &Object, dry_run: bool) -> ApiResult<()> {
        let budgets = self.budgets_of(pod);
        let [budget] = budgets.as_slice() else {
            return if budgets.is_empty() {
                Ok(())
            } else {
                let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                // It has no reason and no details.
                Err(ApiError::new(500, "", message))
            };
        };
        if !is_ready(pod) {
            let healthy = int(budget, "/status/currentHealthy").unwrap_or_default();
            let desired = int(budget, "/status/desiredHealthy").unwrap_or_default();
            let always = text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
            if always || (desired > 0 && healthy >= desired) {
                return Ok(());
            }
        }
        let name = text(budget, "/metadata/name").to_owned();
        check_budget(budget, &name)?;
        if dry_run {
            return Ok(());
        }
        let key = Key::new("poddisruptionbudgets.policy", text(budget, "/metadata/namespace"), &name);
        let left = int(budget, "/status/disruptionsAllowed").unwrap_or_default() - 1;
        let pod = text(pod, "/metadata/name").replace('~', "~0").replace('/', "~1");
        self.modify(&key, |budget| {
            set(budget, "/status/disruptionsAllowed", left);
            set(budget, &format!("/status/disruptedPods/{pod}"), now());
        });
        Ok(())
    }

    /// The budgets that select a pod.
    pub fn budgets_of(&self, pod: &Value) -> Vec<Object> {
        let namespace = text(pod, "/metadata/namespace");
        let selects = |budget: &Value| {
            Selector::of_object(budget.pointer("/spec/selector"))
                .is_some_and(|s| s.matches_labels(pod.pointer("/metadata/labels")))
        };
        self.store
            .list("poddisruptionbudgets.policy", Some(namespace))
            .filter(|b| selects(b))
            .cloned()
            .collect()
    }
}

/// Pods that no budget counts: not yet running, over, or already on their way.
fn bypasses(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Pending" | "Succeeded" | "Failed")
        || pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a pod's condition `Ready` is true.
pub fn is_ready(pod: &Value) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

fn check_budget(budget: &Value, name: &str) -> ApiResult<()> {
    let status = |field: &str| int(budget, &format!("/status/{field}")).unwrap_or_default();
    if status("observedGeneration") < int(budget, "/metadata/generation").unwrap_or_default() {
        // The budget's controller has not seen this budget yet.
        return Err(refusal(
            name,
            format!("The disruption budget {name} is still being processed by the server."),
            Some(10),
        ));
    }
    if map(budget, "/status/disruptedPods").is_some_and(|pods| pods.len() > 2000) {
        return Err(ApiError::forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if status("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let (desired, current) = (status("desiredHealthy"), status("currentHealthy"));
    Err(refusal(
        name,
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently"),
        None,
    ))
}

fn refusal(budget: &str, why: String, retry_after: Option<i64>) -> ApiError {
    debug_assert!(why.contains(budget), "the cause names the budget");
    let mut error = ApiError::new(429, "TooManyRequests", REFUSED);
    error.details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if let Some(seconds) = retry_after {
        error.details["retryAfterSeconds"] = seconds.into();
    }
    error
}

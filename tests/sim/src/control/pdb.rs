//! Status of PodDisruptionBudgets.

use serde_json::{Value, json};

use crate::{
    json::{int, list, map, set, text},
    server::{State, evict::is_ready, now},
    store::{Change, Key, Object, selector::Selector},
};

/// The budgets of a pod that changed, before and after.
pub fn budgets(state: &State, change: &Change) -> Vec<Key> {
    let mut budgets = state.budgets_of(&change.object);
    budgets.extend(change.before.iter().flat_map(|before| state.budgets_of(before)));
    budgets
        .iter()
        .map(|b| {
            Key::new("poddisruptionbudgets.policy", text(b, "/metadata/namespace"), text(b, "/metadata/name"))
        })
        .collect()
}

/// Computes a budget's status.
pub fn compute(state: &mut State, key: &Key) {
    let Some(budget) = state.store.get(key) else { return };
    let Some(selector) = Selector::of_object(budget.pointer("/spec/selector")) else { return };
    let pods: Vec<Object> = state
        .store
        .list("pods", Some(&key.namespace))
        .filter(|p| selector.matches_labels(p.pointer("/metadata/labels")))
        .cloned()
        .collect();
    let counted: Vec<&Object> =
        pods.iter().filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")).collect();
    let leaving = |name: &str| {
        pods.iter().all(|p| text(p, "/metadata/name") != name)
            || pods.iter().any(|p| {
                text(p, "/metadata/name") == name && p.pointer("/metadata/deletionTimestamp").is_some()
            })
    };
    // An eviction that was granted counts until the pod shows that it is on its way.
    let disrupted: Value = map(&budget, "/status/disruptedPods")
        .into_iter()
        .flatten()
        .filter(|(name, _)| !leaving(name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let healthy = counted
        .iter()
        .filter(|p| {
            is_ready(p)
                && p.pointer("/metadata/deletionTimestamp").is_none()
                && disrupted.get(text(p, "/metadata/name")).is_none()
        })
        .count();
    let (healthy, expected) = (i64::try_from(healthy).unwrap_or(i64::MAX), expected(state, &counted));
    let desired = desired(&budget, expected);
    let allowed = (healthy - desired).max(0);
    let status = json!({
        "observedGeneration": int(&budget, "/metadata/generation"), "currentHealthy": healthy, "desiredHealthy": desired,
        "expectedPods": expected, "disruptionsAllowed": allowed, "disruptedPods": disrupted,
        "conditions": conditions(&budget, allowed),
    });
    state.modify(key, |budget| {
        set(budget, "/status", status);
        if map(budget, "/status/disruptedPods").is_some_and(serde_json::Map::is_empty) {
            crate::json::take(budget, "/status/disruptedPods");
        }
    });
}

/// How many pods there should be: the scale of their controllers, or as many as there are.
fn expected(state: &State, pods: &[&Object]) -> i64 {
    let mut owners: Vec<(Key, i64)> = Vec::new();
    let mut alone = 0;
    for pod in pods {
        let owner = list(pod, "/metadata/ownerReferences")
            .iter()
            .find(|r| matches!(text(r, "/kind"), "ReplicaSet" | "StatefulSet"));
        let key = owner.map(|r| {
            Key::new(
                &format!("{}s.apps", text(r, "/kind").to_lowercase()),
                text(pod, "/metadata/namespace"),
                text(r, "/name"),
            )
        });
        match key.and_then(|key| state.store.get(&key).map(|o| (key, int(&o, "/spec/replicas").unwrap_or(1))))
        {
            Some(found) if owners.contains(&found) => {}
            Some(found) => owners.push(found),
            None => alone += 1,
        }
    }
    alone + owners.iter().map(|(_, replicas)| replicas).sum::<i64>()
}

fn desired(budget: &Value, expected: i64) -> i64 {
    let scaled = |field: &str| match budget.pointer(&format!("/spec/{field}"))? {
        Value::String(percent) => {
            let percent: i64 = percent.trim_end_matches('%').parse().ok()?;
            // Kubernetes rounds both up.
            Some((expected * percent + 99) / 100)
        }
        number => number.as_i64(),
    };
    match (scaled("maxUnavailable"), scaled("minAvailable")) {
        (Some(unavailable), _) => (expected - unavailable).max(0),
        (None, Some(available)) => available,
        (None, None) => 1,
    }
}

fn conditions(budget: &Value, allowed: i64) -> Value {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = list(budget, "/status/conditions").iter().find(|c| text(c, "/status") == status);
    let since = before.map_or_else(now, |c| text(c, "/lastTransitionTime").to_owned());
    json!([{"type": "DisruptionAllowed", "status": status, "reason": reason, "message": "", "lastTransitionTime": since, "observedGeneration": int(budget, "/metadata/generation")}])
}

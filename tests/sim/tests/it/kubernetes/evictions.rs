//! Evictions: budgets, preconditions, and the words of a refusal.

use serde_json::{Value, json};

use super::{
    on_both,
    place::{At, has},
    session::{Answer, METADATA_LIST},
};

on_both!(
    a_budget_with_room_gives_it_once_even_to_a_wrong_uid,
    a_budget_without_room_refuses_in_the_servers_words,
    a_pod_that_is_evicted_says_why_and_keeps_its_grace,
    a_pod_is_found_by_its_name_and_its_node,
    a_pod_that_is_not_ready_passes_by_the_budgets_policy,
    what_no_budget_counts_passes,
);

async fn budget(at: &At, name: &str, spec: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    at.post("poddisruptionbudgets", &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
    let path = format!("poddisruptionbudgets/{name}");
    at.until(&path, |budget| budget["status"]["observedGeneration"] == 1).await;
}

async fn evict(at: &At, pod: &str, options: Value) -> Answer {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}, "deleteOptions": options});
    at.post(&format!("pods/{pod}/eviction"), &body).await
}

async fn allowed(at: &At, name: &str, number: i64) -> Value {
    let path = format!("poddisruptionbudgets/{name}");
    at.until(&path, |budget| budget["status"]["disruptionsAllowed"] == number).await
}

async fn web(at: &At, names: &[&str]) -> String {
    let node = at.node().await;
    for name in names {
        at.pod(name, &node, json!({"app": "web"})).await;
        at.starts(name).await;
    }
    node
}

async fn a_budget_without_room_refuses_in_the_servers_words(at: At) {
    web(&at, &["a"]).await;
    budget(&at, "d", json!({"minAvailable": 1})).await;
    at.until("poddisruptionbudgets/d", |budget| budget["status"]["currentHealthy"] == 1).await;
    let refused = evict(&at, "a", json!({})).await;
    assert_eq!(
        refused.refused(429, "TooManyRequests"),
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        refused.cause(),
        ["DisruptionBudget", "The disruption budget d needs 1 healthy pods and has 1 currently", ""]
    );
    assert_eq!(
        (refused.body["details"].get("retryAfterSeconds"), refused.retry_after.as_deref()),
        (None, None)
    );
    let tried = evict(&at, "a", json!({"dryRun": ["All"]})).await;
    tried.refused(429, "TooManyRequests");
    budget(&at, "e", json!({"minAvailable": 0})).await;
    let refused = evict(&at, "a", json!({})).await;
    let message = refused.refused(500, "");
    assert_eq!(
        message,
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
}

async fn a_budget_with_room_gives_it_once_even_to_a_wrong_uid(at: At) {
    web(&at, &["a", "b"]).await;
    budget(&at, "d", json!({"minAvailable": 1})).await;
    allowed(&at, "d", 1).await;
    let tried = evict(&at, "a", json!({"dryRun": ["All"]})).await;
    assert_eq!((tried.code, &tried.body["status"]), (201, &json!("Success")));
    let wrong = evict(&at, "a", json!({"preconditions": {"uid": "other"}})).await;
    let message = wrong.refused(409, "Conflict");
    assert!(message.starts_with("Operation cannot be fulfilled on Pod \"a\": "), "{message}");
    let left = at.get("poddisruptionbudgets/d").await.ok();
    assert_eq!(left["status"]["disruptionsAllowed"], 0, "a wrong UID spends the budget all the same: {left}");
    assert!(left["status"]["disruptedPods"]["a"].is_string());
    evict(&at, "a", json!({})).await.refused(429, "TooManyRequests");
    assert_eq!(at.get("pods/a").await.ok()["metadata"].get("deletionTimestamp"), None);
}

async fn a_pod_that_is_evicted_says_why_and_keeps_its_grace(at: At) {
    web(&at, &["a"]).await;
    let uid = at.get("pods/a").await.ok()["metadata"]["uid"].clone();
    let evicted = evict(&at, "a", json!({"gracePeriodSeconds": 7, "preconditions": {"uid": uid}})).await;
    assert_eq!((evicted.code, &evicted.body["status"]), (201, &json!("Success")));
    let first = at.get("pods/a").await.ok();
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 7);
    let target = super::place::condition(&first, "DisruptionTarget");
    assert_eq!(
        (&target["reason"], &target["message"]),
        (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    assert!(has(&first, "DisruptionTarget"));
    assert_eq!(evict(&at, "a", json!({})).await.code, 201);
    assert_eq!(
        at.get("pods/a").await.ok()["metadata"]["deletionTimestamp"],
        first["metadata"]["deletionTimestamp"]
    );
    evict(&at, "none", json!({})).await.refused(404, "NotFound");
}

async fn a_pod_that_is_not_ready_passes_by_the_budgets_policy(at: At) {
    web(&at, &["a", "b"]).await;
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    at.merge("pods/a/status", &unready).await.ok();
    budget(&at, "d", json!({"minAvailable": 2})).await;
    at.until("poddisruptionbudgets/d", |budget| budget["status"]["currentHealthy"] == 1).await;
    evict(&at, "a", json!({})).await.refused(429, "TooManyRequests");
    at.merge("poddisruptionbudgets/d", &json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}))
        .await
        .ok();
    at.until("poddisruptionbudgets/d", |budget| budget["status"]["observedGeneration"] == 2).await;
    assert_eq!(evict(&at, "a", json!({})).await.code, 201);
}

async fn what_no_budget_counts_passes(at: At) {
    let node = web(&at, &["over", "held"]).await;
    at.pod("pending", &node, json!({"app": "web"})).await;
    budget(&at, "d", json!({"minAvailable": 5})).await;
    at.ends("over", 0).await;
    assert_eq!(evict(&at, "over", json!({})).await.code, 201);
    at.get("pods/over").await.refused(404, "NotFound");
    assert_eq!(evict(&at, "pending", json!({"gracePeriodSeconds": 7})).await.code, 201);
    let first = at.get("pods/pending").await.ok()["metadata"].take();
    assert_eq!(first["deletionGracePeriodSeconds"], 7);
    assert_eq!(evict(&at, "pending", json!({})).await.code, 201);
    assert_eq!(
        at.get("pods/pending").await.ok()["metadata"]["deletionTimestamp"],
        first["deletionTimestamp"]
    );
    let named = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}});
    at.post("pods/held/eviction", &named).await.refused(400, "BadRequest");
    // In a namespace that goes its pods are deleted anyhow, and evicted on the same terms.
    let namespace = format!("namespaces/{}", at.namespace);
    at.delete(&namespace, &json!({})).await.ok();
    let late = evict(&at, "held", json!({})).await;
    late.refused(403, "Forbidden");
    assert_eq!(late.cause()[0], "NamespaceTerminating");
}

/// As a pod is looked at before it is evicted.
async fn a_pod_is_found_by_its_name_and_its_node(at: At) {
    let node = web(&at, &["a", "b"]).await;
    let uid = at.get("pods/a").await.ok()["metadata"]["uid"].clone();
    let find = async |name: &str, node: &str| {
        let path = format!("pods?fieldSelector=metadata.name%3D{name}%2Cspec.nodeName%3D{node}&limit=1");
        at.send("GET", &path, &[("accept", METADATA_LIST)], None).await.ok()["items"].clone()
    };
    let found = find("a", &node).await;
    assert_eq!((found[0]["metadata"]["uid"].clone(), found[0].get("spec")), (uid, None));
    assert_eq!(found.as_array().map(Vec::len), Some(1));
    assert_eq!([find("a", "elsewhere").await, find("c", &node).await], [json!([]), json!([])]);
}

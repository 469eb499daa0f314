//! Evictions, with the answers that a real API server was measured to give.

use k8s_openapi::api::{core::v1::Pod, policy::v1::Eviction};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::{LONG, is, pod, small};

fn budget(name: &str, available: i64) -> String {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "default"},
           "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": "web"}}}})
    .to_string()
}

async fn evict(pods: &Api<Pod>, name: &str, options: Value) -> Result<(), (u16, Value)> {
    let eviction: Eviction =
        serde_json::from_value(json!({"metadata": {"name": name}, "deleteOptions": options})).unwrap();
    match pods.create_subresource::<_, Value>("eviction", name, &PostParams::default(), &eviction).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            Err((status.code, json!({"message": status.message, "details": status.details})))
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_budget_without_room_refuses_in_the_servers_words() {
    let cluster = small().start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    cluster.apply(&pod("a", "n1", json!({"app": "web"}), &["serve"], "Always")).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "a", "Running")).await.unwrap();
    cluster.apply(&budget("d", 1)).await.unwrap();
    cluster.until("poddisruptionbudgets.policy", LONG, |b| b["status"]["currentHealthy"] == 1).await.unwrap();
    let (code, answer) = evict(&pods, "a", json!({})).await.unwrap_err();
    assert_eq!(code, 429);
    assert_eq!(answer["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = &answer["details"]["causes"][0];
    assert_eq!(
        (cause["reason"].as_str(), cause["message"].as_str()),
        (Some("DisruptionBudget"), Some("The disruption budget d needs 1 healthy pods and has 1 currently"))
    );
    cluster.apply(&budget("e", 0)).await.unwrap();
    assert_eq!(evict(&pods, "a", json!({})).await.unwrap_err().0, 500, "two budgets on one pod");
}

#[tokio::test]
async fn a_budget_with_room_gives_it_once() {
    let cluster = small().start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    for name in ["a", "b"] {
        cluster.apply(&pod(name, "n1", json!({"app": "web"}), &["serve"], "Always")).await.unwrap();
        cluster.until("pods", LONG, |p| is(p, name, "Running")).await.unwrap();
    }
    cluster.apply(&budget("d", 1)).await.unwrap();
    cluster
        .until("poddisruptionbudgets.policy", LONG, |b| b["status"]["disruptionsAllowed"] == 1)
        .await
        .unwrap();
    assert_eq!(evict(&pods, "a", json!({"dryRun": ["All"]})).await, Ok(()));
    let (code, _) = evict(&pods, "a", json!({"preconditions": {"uid": "other"}})).await.unwrap_err();
    assert_eq!(code, 409);
    let left = cluster.get("poddisruptionbudgets.policy", "default", "d").unwrap();
    assert_eq!(left["status"]["disruptionsAllowed"], 0, "a wrong UID spends the budget all the same");
    assert_eq!(evict(&pods, "a", json!({})).await.unwrap_err().0, 429);
}

#[tokio::test]
async fn pending_pods_pass_and_those_on_their_way_are_evicted_again_without_harm() {
    let cluster = small().start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    cluster.apply(&budget("d", 1)).await.unwrap();
    cluster
        .until("poddisruptionbudgets.policy", LONG, |b| b["status"]["observedGeneration"] == 1)
        .await
        .unwrap();
    cluster.apply(&pod("pending", "nowhere", json!({"app": "web"}), &["serve"], "Always")).await.unwrap();
    assert_eq!(evict(&pods, "pending", json!({"gracePeriodSeconds": 7})).await, Ok(()));
    let first = pods.get("pending").await.unwrap().metadata;
    assert_eq!(first.deletion_grace_period_seconds, Some(7));
    assert_eq!(evict(&pods, "pending", json!({})).await, Ok(()));
    assert_eq!(pods.get("pending").await.unwrap().metadata.deletion_timestamp, first.deletion_timestamp);
    assert_eq!(evict(&pods, "none", json!({})).await.unwrap_err().0, 404);
}

//! Faults on demand, and the list of requests.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kairos_sim::{Cluster, Effect, Fault};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::small;

async fn operator(cluster: &Cluster) -> Client {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "op"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "op", "namespace": "ops"}]});
    cluster.apply(&binding.to_string()).await.unwrap();
    cluster.client_for("ops", "op").await.unwrap()
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

#[tokio::test]
async fn requests_fail_as_armed_and_the_tests_own_pass() {
    let cluster = small().start().await.unwrap();
    let nodes: Api<Node> = Api::all(operator(&cluster).await);
    cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(409)).named("^n1$").times(2));
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    Api::<Node>::all(cluster.client())
        .patch("n1", &PatchParams::default(), &Patch::Merge(json!({})))
        .await
        .unwrap();
    nodes.patch("n2", &PatchParams::default(), &patch).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(&nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap_err()), 409);
    }
    nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap();
    let codes: Vec<u16> = cluster
        .requests()
        .iter()
        .filter(|r| r.verb == "patch" && r.name == "n1" && r.user.ends_with(":op"))
        .map(|r| r.code)
        .collect();
    assert_eq!(codes, [409, 409, 200]);
}

#[tokio::test]
async fn a_write_may_be_applied_and_never_answered() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(operator(&cluster).await);
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    cluster.faults().arm(Fault::on("create", "configmaps", Effect::ApplyAndDrop));
    assert_eq!(code(&maps.create(&PostParams::default(), &map).await.unwrap_err()), 0);
    assert_eq!(code(&maps.create(&PostParams::default(), &map).await.unwrap_err()), 409);
    cluster.faults().away(Duration::from_millis(200));
    assert!(maps.get("a").await.is_err());
    tokio::time::sleep(Duration::from_millis(250)).await;
    maps.get("a").await.unwrap();
}

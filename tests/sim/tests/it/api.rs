//! The API as clients see it through cuts, compactions and quick changes.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::{LONG, small};

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"on": "yes"}}})).unwrap()
}

#[tokio::test]
async fn the_runtimes_watcher_follows_in_both_ways_through_cuts_and_compactions() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client_for("default", "w").await.unwrap());
    let own: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    cluster.apply(r#"{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "w"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [{"kind": "ServiceAccount", "name": "w", "namespace": "default"}]}"#).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let stream = watcher(maps.clone(), config).default_backoff().applied_objects();
        futures::pin_mut!(stream);
        for name in ["a", "b", "c"] {
            own.create(&PostParams::default(), &map(name)).await.unwrap();
            loop {
                // What the watcher tells in between (a closed watch, 410) it mends by itself.
                let next = tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap();
                if next.is_ok_and(|m| m.name_any() == name) {
                    break;
                }
            }
            if name == "a" { cluster.faults().close_watches() } else { cluster.compact() }
        }
        own.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }
}

/// A test that waits for a change and then counts the requests finds the one that made the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_never_seen_before_the_request_that_made_it() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    for n in 0..100 {
        let name = format!("m{n}");
        let (params, object) = (PostParams::default(), map(&name));
        let made = maps.create(&params, &object);
        let asked = async {
            cluster.until("configmaps", LONG, |m| m["metadata"]["name"] == name.as_str()).await.unwrap();
            cluster
                .requests()
                .iter()
                .any(|request| request.verb == "create" && request.name.is_empty() && request.code == 201)
        };
        let (made, asked) = tokio::join!(made, asked);
        assert!(made.is_ok() && asked, "{name}");
        cluster.clear_requests();
    }
}

/// What is waited for need not last until somebody looks.
#[tokio::test]
async fn a_state_that_lasts_for_a_moment_is_seen() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let change = async {
        maps.create(&PostParams::default(), &map("a")).await.unwrap();
        maps.delete("a", &DeleteParams::default()).await.unwrap();
        maps.create(&PostParams::default(), &map("b")).await.unwrap();
    };
    // The first is polled once before the changes, and not again until all of them are made.
    let seen = cluster.until("configmaps", LONG, |m| m["metadata"]["name"] == "a");
    futures::pin_mut!(seen);
    assert!(futures::poll!(seen.as_mut()).is_pending());
    change.await;
    assert_eq!(seen.await.unwrap()["metadata"]["name"], "a");
}

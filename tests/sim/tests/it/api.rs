//! The API as clients see it: watches, pages, versions, deletion.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::{LONG, small};

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"on": "yes"}}})).unwrap()
}

#[tokio::test]
async fn a_watch_tells_when_a_selector_starts_and_stops_to_match() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let stream = maps.watch(&WatchParams::default().labels("on=yes"), &from).await.unwrap();
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    for labels in [json!({"x": "y"}), json!({"on": "no"}), json!({"on": "yes"})] {
        maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": labels}})))
            .await
            .unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let events: Vec<_> = stream.take(5).try_collect().await.unwrap();
    let names: Vec<_> = events
        .iter()
        .map(|e| match e {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => "other",
        })
        .collect();
    assert_eq!(names, ["added", "modified", "deleted", "added", "deleted"]);
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

#[tokio::test]
async fn lists_come_in_pages_and_old_versions_are_gone() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    for i in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("m{i}"))).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(2);
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.items.iter().map(ResourceExt::name_any));
        match list.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(token) => page = ListParams::default().limit(2).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    cluster.compact();
    let events: Vec<_> = maps.watch(&WatchParams::default(), "1").await.unwrap().try_collect().await.unwrap();
    assert!(matches!(events.first(), Some(WatchEvent::Error(status)) if status.code == 410));
}

#[tokio::test]
async fn deletion_minds_preconditions_finalizers_and_owners() {
    let cluster = small().nodes(0).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let mut owner = map("owner");
    owner.metadata.finalizers = Some(vec!["example.io/hold".into()]);
    let owner = maps.create(&PostParams::default(), &owner).await.unwrap();
    let mut child = map("child");
    child.metadata.owner_references = Some(vec![
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}),
        )
        .unwrap(),
    ]);
    maps.create(&PostParams::default(), &child).await.unwrap();
    let wrong = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("x".into()), resource_version: None }),
        ..DeleteParams::default()
    };
    assert!(matches!(maps.delete("owner", &wrong).await, Err(kube::Error::Api(s)) if s.code == 409));
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    assert!(maps.get("owner").await.unwrap().metadata.deletion_timestamp.is_some());
    maps.patch("owner", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    cluster.until_none("configmaps", LONG, |m| m["metadata"]["namespace"] == "default").await.unwrap();
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along_and_dry_runs_leave_no_trace() {
    let cluster = small().nodes(0).start().await.unwrap();
    let spaces: Api<Namespace> = Api::all(cluster.client());
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: x}}").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "x");
    maps.create(&PostParams { dry_run: true, ..PostParams::default() }, &map("a")).await.unwrap();
    assert!(cluster.get("configmaps", "x", "a").is_none());
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    assert!(
        matches!(maps.create(&PostParams::default(), &map("a")).await, Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists")
    );
    let bad = map(&"A".repeat(3));
    assert!(
        matches!(maps.create(&PostParams::default(), &bad).await, Err(kube::Error::Api(s)) if s.code == 422)
    );
    spaces.delete("x", &DeleteParams::default()).await.unwrap();
    cluster.until_none("namespaces", LONG, |n| n["metadata"]["name"] == "x").await.unwrap();
    assert!(cluster.get("configmaps", "x", "a").is_none());
}

#[tokio::test]
async fn events_of_either_group_are_the_same() {
    let cluster = small().nodes(0).start().await.unwrap();
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(cluster.client());
    let event = json!({"metadata": {"name": "e"}, "note": "it happened", "reason": "Why", "type": "Normal", "action": "Do", "reportingController": "x", "reportingInstance": "y",
                       "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Node", "name": "n1"}});
    let made = new.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    assert_eq!(made.note.as_deref(), Some("it happened"));
    let old: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(cluster.client());
    let found = old.list(&ListParams::default().fields("involvedObject.name=n1")).await.unwrap();
    assert_eq!(found.items[0].message.as_deref(), Some("it happened"));
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

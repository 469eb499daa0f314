//! Watches: what they tell, where they begin, and how they end.

use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    on_both,
    place::At,
    session::{METADATA, Session},
};

on_both!(
    a_bookmark_tells_the_version_before_the_watch_ends,
    a_version_that_is_still_to_come_is_waited_for_and_nothing_before_it_is_told,
    a_watch_by_name_and_one_of_metadata_tell_no_more,
    a_watch_goes_on_where_a_list_ended,
    a_watch_tells_when_a_selector_starts_and_stops_to_match,
    versions_that_are_forgotten_are_refused_in_the_stream,
);

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"on": "yes"}}, "data": {"k": "v"}})
}

async fn version(at: &Session) -> String {
    at.get("configmaps").await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

async fn a_watch_tells_when_a_selector_starts_and_stops_to_match(at: At) {
    let from = version(&at).await;
    let path = format!("configmaps?watch=1&labelSelector=on%3Dyes&resourceVersion={from}");
    let told = at.watch(&path, "application/json").await;
    let mut versions =
        vec![at.post("configmaps", &map("a")).await.ok()["metadata"]["resourceVersion"].clone()];
    for labels in [json!({"x": "y"}), json!({"on": "no"}), json!({"on": "yes"})] {
        let patched = at.merge("configmaps/a", &json!({"metadata": {"labels": labels}})).await.ok();
        versions.push(patched["metadata"]["resourceVersion"].clone());
    }
    at.delete("configmaps/a", &json!({})).await.ok();
    let events: Vec<(String, Value)> = told.take(5).collect().await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    // An object that is not selected any more is shown as it was, at the version of the change.
    let gone = &events[2].1["metadata"];
    assert_eq!((&gone["labels"]["on"], &gone["resourceVersion"]), (&json!("yes"), &versions[2]));
    let deleted = events[4].1["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(deleted > versions[3].as_str().unwrap().parse().unwrap(), "a deletion has a version of its own");
}

async fn a_watch_goes_on_where_a_list_ended(at: At) {
    at.post("configmaps", &map("before")).await.ok();
    let from = version(&at).await;
    at.post("configmaps", &map("after")).await.ok();
    let told = at.watch(&format!("configmaps?watch=1&resourceVersion={from}"), "application/json").await;
    let first: Vec<(String, Value)> = told.take(1).collect().await;
    assert_eq!((first[0].0.as_str(), &first[0].1["metadata"]["name"]), ("ADDED", &json!("after")));
    assert_eq!((&first[0].1["kind"], &first[0].1["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    // From version 0: whatever there is.
    let told = at.watch("configmaps?watch=1&resourceVersion=0&labelSelector=on", "application/json").await;
    let mut names: Vec<String> = told
        .take(2)
        .map(|(_, object)| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
        .await;
    names.sort();
    assert_eq!(names, ["after", "before"]);
}

async fn a_watch_by_name_and_one_of_metadata_tell_no_more(at: At) {
    let from = version(&at).await;
    at.post("configmaps", &map("other")).await.ok();
    at.post("configmaps", &map("a")).await.ok();
    let path = format!("configmaps?watch=1&resourceVersion={from}&fieldSelector=metadata.name%3Da");
    let told: Vec<(String, Value)> = at.watch(&path, METADATA).await.take(1).collect().await;
    let (kind, object) = &told[0];
    assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("ADDED", &json!("a")));
    assert_eq!(
        (&object["kind"], &object["apiVersion"], object.get("data")),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"), None)
    );
}

async fn a_bookmark_tells_the_version_before_the_watch_ends(at: At) {
    let from = version(&at).await;
    let path = format!("configmaps?watch=1&allowWatchBookmarks=true&timeoutSeconds=5&resourceVersion={from}");
    let told = at.watch(&path, "application/json").await;
    let mut last = Value::Null;
    for name in ["a", "b"] {
        last = at.post("configmaps", &map(name)).await.ok()["metadata"]["resourceVersion"].take();
    }
    let events: Vec<(String, Value)> = told.collect().await;
    let (_, bookmark) = events.iter().find(|(kind, _)| kind == "BOOKMARK").unwrap();
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let number = |version: &Value| version.as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&bookmark["metadata"]["resourceVersion"]) >= number(&last), "{bookmark}");
}

async fn versions_that_are_forgotten_are_refused_in_the_stream(at: At) {
    // Of a kind that was defined a moment ago, a server has no older versions in its cache.
    let kind = super::custom::kind(&at).await;
    at.compact();
    let told = at.watch(&format!("{}?watch=1&resourceVersion=1", kind.path), "application/json").await;
    let events: Vec<(String, Value)> = told.collect().await;
    let [(kind, status)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("too old resource version: 1 ("), "{message}");
}

/// So a watch that is resumed after the store went back is silent until the versions have come up again.
async fn a_version_that_is_still_to_come_is_waited_for_and_nothing_before_it_is_told(at: At) {
    let from: u64 = version(&at).await.parse().unwrap();
    let path = format!("configmaps?watch=1&timeoutSeconds=3&resourceVersion={}", from + 1_000_000);
    let told = at.watch(&path, "application/json").await;
    at.post("configmaps", &map("a")).await.ok();
    let events: Vec<(String, Value)> = told.collect().await;
    assert!(events.is_empty(), "{events:?}");
    let list = at.get(&format!("configmaps?resourceVersion={}", from + 1_000_000)).await;
    let message = list.refused(504, "Timeout");
    assert!(
        message.starts_with(&format!("Timeout: Too large resource version: {}, current: ", from + 1_000_000))
    );
    assert_eq!(list.cause()[..2], ["ResourceVersionTooLarge", "Too large resource version"]);
    assert_eq!(list.body["details"]["retryAfterSeconds"], 1);
}

//! Lists: pages, selectors, order, and metadata alone.

use serde_json::{Value, json};

use super::{on_both, place::At, session::METADATA_LIST};

on_both!(
    a_list_of_metadata_has_nothing_else,
    a_selector_that_cannot_be_read_is_refused,
    lists_come_in_pages_of_one_moment,
    selectors_choose,
);

async fn maps(at: &At, names: &[&str]) {
    for name in names {
        let labels = json!({"name": name, "app": if *name < "c" { "web" } else { "db" }});
        at.post("configmaps", &json!({"metadata": {"name": name, "labels": labels}})).await.ok();
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn lists_come_in_pages_of_one_moment(at: At) {
    maps(&at, &["a", "b", "c", "d", "e"]).await;
    let own = "labelSelector=app";
    let first = at.get(&format!("configmaps?limit=2&{own}")).await.ok();
    assert_eq!((names(&first), &first["kind"]), (vec!["a", "b"], &json!("ConfigMapList")));
    let token = |list: &Value| -> String {
        let token = list["metadata"]["continue"].as_str().unwrap_or_default();
        form_urlencoded::byte_serialize(token.as_bytes()).collect()
    };
    // What happens between the pages is not in them: they are of the moment of the first.
    at.post("configmaps", &json!({"metadata": {"name": "bb", "labels": {"app": "web"}}})).await.ok();
    at.delete("configmaps/d", &json!({})).await.ok();
    at.merge("configmaps/c", &json!({"data": {"new": "x"}})).await.ok();
    let second = at.get(&format!("configmaps?limit=2&{own}&continue={}", token(&first))).await.ok();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["items"][0].get("data"), None);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let last = at.get(&format!("configmaps?limit=2&{own}&continue={}", token(&second))).await.ok();
    assert_eq!((names(&last), token(&last).as_str()), (vec!["e"], ""));
    let all = at.get(&format!("configmaps?{own}")).await.ok();
    assert_eq!(names(&all), ["a", "b", "bb", "c", "e"]);
    let bad = at.get("configmaps?limit=2&continue=nonsense").await;
    bad.refused(400, "BadRequest");
}

async fn selectors_choose(at: At) {
    maps(&at, &["a", "b", "c"]).await;
    for (selector, chosen) in [
        ("labelSelector=app%3Dweb", vec!["a", "b"]),
        ("labelSelector=app%3D%3Dweb,name!%3Da", vec!["b"]),
        ("labelSelector=app%20in%20(web,db),name%20notin%20(b)", vec!["a", "c"]),
        ("labelSelector=app,!gone", vec!["a", "b", "c"]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
        ("fieldSelector=metadata.name!%3Dc&labelSelector=app", vec!["a", "b"]),
        ("fieldSelector=metadata.name%3Da&labelSelector=app%3Ddb", vec![]),
    ] {
        let list = at.get(&format!("configmaps?{selector}")).await.ok();
        assert_eq!(names(&list), chosen, "{selector}");
    }
}

async fn a_selector_that_cannot_be_read_is_refused(at: At) {
    for (plural, why) in [
        ("pods", "field label not supported: spec.x"),
        ("jobs", "field label \"spec.x\" not supported for Job"),
        (
            "configmaps",
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ] {
        let unknown = at.get(&format!("{plural}?fieldSelector=spec.x%3Dy")).await;
        assert_eq!(unknown.refused(400, "BadRequest"), why);
    }
    for selector in
        ["labelSelector=a%20b%20c", "labelSelector=a%3Db%20c", "labelSelector=a%20in%20b", "fieldSelector=a"]
    {
        let refused = at.get(&format!("configmaps?{selector}")).await;
        refused.refused(400, "BadRequest");
    }
}

async fn a_list_of_metadata_has_nothing_else(at: At) {
    at.post("configmaps", &json!({"metadata": {"name": "a", "labels": {"on": "yes"}}, "data": {"k": "v"}}))
        .await
        .ok();
    let list =
        at.send("GET", "configmaps?labelSelector=on&limit=1", &[("accept", METADATA_LIST)], None).await.ok();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!((list["items"][0].get("data"), &list["items"][0]["metadata"]["name"]), (None, &json!("a")));
    assert!(list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
}

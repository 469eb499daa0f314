//! Writes: creating, replacing, patching, and what is refused.

use serde_json::{Value, json};

use super::{
    on_both,
    place::At,
    session::{JSON_PATCH, METADATA, STRATEGIC},
};

on_both!(
    a_dry_run_answers_and_leaves_no_trace,
    a_name_is_taken_once,
    a_name_of_which_only_the_beginning_is_given_is_completed,
    a_patch_that_changes_nothing_makes_no_version,
    a_stale_version_or_another_uid_is_a_conflict,
    an_answer_may_be_the_metadata_alone,
    bad_names_labels_and_sizes_are_refused,
    events_of_either_group_are_the_same,
    events_are_checked,
    nothing_is_created_in_a_namespace_that_goes_or_is_not_there,
    the_styles_of_patches,
    what_must_be_replaced_at_a_version_is_not_replaced_without,
);

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

async fn a_name_is_taken_once(at: At) {
    let made = at.post("configmaps", &map("a")).await;
    assert_eq!(made.code, 201);
    let again = at.post("configmaps", &map("a")).await;
    assert_eq!(again.refused(409, "AlreadyExists"), "configmaps \"a\" already exists");
    assert_eq!(again.body["details"], json!({"name": "a", "kind": "configmaps"}));
    let job = at.get("jobs/none").await;
    assert_eq!(job.refused(404, "NotFound"), "jobs.batch \"none\" not found");
    assert_eq!(job.body["details"], json!({"name": "none", "group": "batch", "kind": "jobs"}));
    let nothing = at.merge("configmaps/none", &json!({"data": {}})).await;
    assert_eq!(nothing.refused(404, "NotFound"), "configmaps \"none\" not found");
}

async fn a_name_of_which_only_the_beginning_is_given_is_completed(at: At) {
    let made = at.post("configmaps", &json!({"metadata": {"generateName": "x-"}})).await.ok();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    let nameless = at.post("configmaps", &json!({"metadata": {}})).await;
    let message = nameless.refused(422, "Invalid");
    assert_eq!(
        message,
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
}

async fn a_dry_run_answers_and_leaves_no_trace(at: At) {
    let tried = at.post("configmaps?dryRun=All", &map("a")).await;
    assert_eq!(tried.code, 201);
    let meta = &tried.body["metadata"];
    assert!(meta["uid"].is_string() && meta["creationTimestamp"].is_string());
    assert_eq!(meta.get("resourceVersion"), None);
    at.get("configmaps/a").await.refused(404, "NotFound");
    at.post("configmaps", &map("a")).await.ok();
    let tried = at.merge("configmaps/a?dryRun=All", &json!({"data": {"k": "w"}})).await.ok();
    assert_eq!(tried["data"]["k"], "w");
    at.delete("configmaps/a", &json!({"dryRun": ["All"]})).await.ok();
    assert_eq!(at.get("configmaps/a").await.ok()["data"]["k"], "v");
    let again = at.post("configmaps?dryRun=All", &map("a")).await;
    again.refused(409, "AlreadyExists");
    // Parameters of a deletion that has a body are not looked at.
    at.delete("configmaps/a?dryRun=All", &json!({})).await.ok();
    at.get("configmaps/a").await.refused(404, "NotFound");
    at.post("configmaps", &map("a")).await.ok();
    at.send("DELETE", "configmaps/a?dryRun=All", &[], None).await.ok();
    at.get("configmaps/a").await.ok();
}

async fn a_stale_version_or_another_uid_is_a_conflict(at: At) {
    const STALE: &str =
        "the object has been modified; please apply your changes to the latest version and try again";
    let old = at.post("configmaps", &map("a")).await.ok();
    at.merge("configmaps/a", &json!({"data": {"k": "w"}})).await.ok();
    let stale = at.put("configmaps/a", &old).await;
    assert_eq!(
        stale.refused(409, "Conflict"),
        format!("Operation cannot be fulfilled on configmaps \"a\": {STALE}")
    );
    assert_eq!(stale.body["details"], json!({"name": "a", "kind": "configmaps"}));
    let version = &old["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"k": "x"}});
    let stale = at.merge("configmaps/a", &patch).await;
    assert_eq!(
        stale.refused(409, "Conflict"),
        format!("Operation cannot be fulfilled on configmaps \"a\": {STALE}")
    );
    let uid = &old["metadata"]["uid"];
    at.merge("configmaps/a", &json!({"metadata": {"uid": uid}, "data": {"k": "x"}})).await.ok();
    // In what is put, another UID is a conflict; in a patch it is a change of what cannot be changed.
    let mut other = at.get("configmaps/a").await.ok();
    other["metadata"]["uid"] = json!("other");
    let refused = at.put("configmaps/a", &other).await;
    let message = refused.refused(409, "Conflict");
    let why = format!(
        "Precondition failed: UID in precondition: other, UID in object meta: {}",
        uid.as_str().unwrap()
    );
    assert!(
        message.starts_with("Operation cannot be fulfilled on configmaps \"a\": ") && message.ends_with(&why),
        "{message}"
    );
    let refused = at.merge("configmaps/a", &json!({"metadata": {"uid": "other"}, "data": {"k": "y"}})).await;
    let message = refused.refused(422, "Invalid");
    assert_eq!(
        message,
        "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"other\": field is immutable"
    );
    assert_eq!(
        refused.cause(),
        ["FieldValueInvalid", "Invalid value: \"other\": field is immutable", "metadata.uid"]
    );
    let both = json!({"metadata": {"uid": "other", "resourceVersion": version}});
    at.merge("configmaps/a", &both).await.refused(409, "Conflict");
    for (what, answer) in [
        ("jobs", at.post("jobs", &json!({"metadata": {"name": "x"}, "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})).await),
        ("pods", at.post("pods", &super::place::pod("x", "n1", json!({}))).await),
    ] {
        let uid = answer.ok()["metadata"]["uid"].take();
        let path = format!("{what}/x");
        let patch = json!({"metadata": {"uid": "other", "annotations": {"a": "b"}}});
        let refused = at.merge(&path, &patch).await;
        refused.refused(422, "Invalid");
        assert_eq!(refused.cause()[1..], ["Invalid value: \"other\": field is immutable", "metadata.uid"], "{what}");
        at.merge(&path, &json!({"metadata": {"uid": uid, "annotations": {"a": "b"}}})).await.ok();
    }
    let mut gone = old.clone();
    gone["metadata"]["name"] = json!("b");
    let gone = at.put("configmaps/b", &gone).await;
    gone.refused(404, "NotFound");
}

async fn what_must_be_replaced_at_a_version_is_not_replaced_without(at: At) {
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15,
        "renewTime": "2026-01-01T00:00:00.000001Z", "acquireTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 0}});
    let made = at.post("leases", &lease).await.ok();
    assert_eq!(made["spec"]["renewTime"], "2026-01-01T00:00:00.000001Z");
    let blind = at.put("leases/l", &lease).await;
    let message = blind.refused(422, "Invalid");
    assert_eq!(
        message,
        "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
    let mut next = made.clone();
    next["spec"]["holderIdentity"] = json!("");
    let handed = at.put("leases/l", &next).await.ok();
    assert_eq!(handed["spec"].get("holderIdentity").and_then(Value::as_str), Some(""));
    let late = at.put("leases/l", &made).await;
    late.refused(409, "Conflict");
    let zero = json!({"metadata": {"name": "z"}, "spec": {"leaseDurationSeconds": 0}});
    let zero = at.post("leases", &zero).await;
    assert_eq!(
        zero.cause(),
        ["FieldValueInvalid", "Invalid value: 0: must be greater than 0", "spec.leaseDurationSeconds"]
    );
    // A ConfigMap may be replaced whatever its version.
    at.post("configmaps", &map("a")).await.ok();
    at.put("configmaps/a", &map("a")).await.ok();
}

async fn a_patch_that_changes_nothing_makes_no_version(at: At) {
    let made = at.post("configmaps", &map("a")).await.ok();
    for patch in [
        json!({}),
        json!({"data": {"k": "v", "gone": null}}),
        json!({"metadata": {"annotations": {"gone": null}}}),
    ] {
        let same = at.merge("configmaps/a", &patch).await.ok();
        assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{patch}");
    }
}

async fn the_styles_of_patches(at: At) {
    at.post("configmaps", &map("a")).await.ok();
    let change = json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "replace", "path": "/data/k", "value": "w"}]);
    assert_eq!(at.patch("configmaps/a", JSON_PATCH, &change).await.ok()["data"]["k"], "w");
    let failed =
        at.patch("configmaps/a", JSON_PATCH, &json!([{"op": "test", "path": "/data/k", "value": "v"}])).await;
    let message = failed.refused(422, "Invalid");
    assert_eq!(message, "the server rejected our request due to an error in our request");
    let removed = at.patch("configmaps/a", STRATEGIC, &json!({"data": {"k": null, "l": "m"}})).await.ok();
    assert_eq!(removed["data"], json!({"l": "m"}));
    let unknown = at.patch("configmaps/a", "application/json", &json!({})).await;
    unknown.refused(415, "UnsupportedMediaType");
    let mut wrong = map("a");
    wrong["data"] = json!(1);
    let refused = at.merge("configmaps/a", &wrong).await;
    let message = refused.refused(422, "Invalid");
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
    at.post("configmaps", &wrong).await.refused(400, "BadRequest");
}

async fn an_answer_may_be_the_metadata_alone(at: At) {
    at.post("configmaps", &map("a")).await.ok();
    let headers = [("accept", METADATA), ("content-type", super::session::MERGE)];
    let patched = at.send("PATCH", "configmaps/a", &headers, Some(&json!({"data": {"k": "w"}}))).await.ok();
    assert_eq!((&patched["kind"], patched.get("data")), (&json!("PartialObjectMetadata"), None));
    let now = at.get("configmaps/a").await.ok();
    assert_eq!(patched["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
}

async fn bad_names_labels_and_sizes_are_refused(at: At) {
    let at = &at;
    let refused = |meta: Value| async move { at.post("configmaps", &json!({"metadata": meta})).await };
    let upper = refused(json!({"name": "AAA"})).await;
    let message = upper.refused(422, "Invalid");
    assert!(message.starts_with("ConfigMap \"AAA\" is invalid: metadata.name: Invalid value: \"AAA\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"), "{message}");
    assert_eq!(upper.body["details"]["name"], "AAA");
    assert_eq!((upper.cause()[0], upper.cause()[2]), ("FieldValueInvalid", "metadata.name"));
    let label = refused(json!({"name": "a", "labels": {"a": "b c"}})).await;
    label.refused(422, "Invalid");
    assert_eq!(label.cause()[2], "metadata.labels");
    let key = refused(json!({"name": "a", "annotations": {"a b": ""}})).await;
    key.refused(422, "Invalid");
    assert_eq!(key.cause()[2], "metadata.annotations");
    let long = refused(json!({"name": "a", "annotations": {"a": "x".repeat(300_000)}})).await;
    long.refused(422, "Invalid");
    assert_eq!((long.cause()[0], long.cause()[2]), ("FieldValueTooLong", "metadata.annotations"));
    let foreign = at.post("configmaps", &json!({"metadata": {"name": "a", "namespace": "other"}})).await;
    assert_eq!(
        foreign.refused(400, "BadRequest"),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let much = at
        .post("configmaps", &json!({"metadata": {"name": "a"}, "data": {"x": "x".repeat(1_100_000)}}))
        .await;
    much.refused(422, "Invalid");
}

async fn nothing_is_created_in_a_namespace_that_goes_or_is_not_there(at: At) {
    let nowhere = at.post("/api/v1/namespaces/none-such/configmaps", &map("a")).await;
    assert_eq!(nowhere.refused(404, "NotFound"), "namespaces \"none-such\" not found");
    let tried = at.post("/api/v1/namespaces/none-such/configmaps?dryRun=All", &map("a")).await;
    tried.refused(404, "NotFound");
    // A finalizer keeps the contents, and they the namespace.
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.io/hold"]);
    at.post("configmaps", &held).await.ok();
    let namespace = format!("namespaces/{}", at.namespace);
    let going = at.delete(&namespace, &json!({})).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let late = at.post("configmaps", &map("late")).await;
    let name = &at.namespace;
    assert_eq!(
        late.refused(403, "Forbidden"),
        format!(
            "configmaps \"late\" is forbidden: unable to create new content in namespace {name} because it is being terminated"
        )
    );
    assert_eq!(
        late.cause(),
        [
            "NamespaceTerminating",
            format!("namespace {name} is being terminated").as_str(),
            "metadata.namespace"
        ]
    );
    at.until("configmaps/held", |map| map["metadata"]["deletionTimestamp"].is_string()).await;
    at.merge("configmaps/held", &json!({"metadata": {"finalizers": null}})).await.ok();
    at.until(&namespace, Value::is_null).await;
}

fn event(namespace: &str) -> Value {
    json!({"metadata": {"name": "e"}, "note": "it happened", "reason": "Why", "type": "Normal", "action": "Do", "reportingController": "x.io/y", "reportingInstance": "y",
        "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "p", "namespace": namespace, "uid": "u1"}})
}

async fn events_of_either_group_are_the_same(at: At) {
    let made = at.post("events", &event(&at.namespace)).await.ok();
    assert_eq!(
        (&made["note"], &made["kind"], &made["apiVersion"]),
        (&json!("it happened"), &json!("Event"), &json!("events.k8s.io/v1"))
    );
    let old = at.get("oldevents?fieldSelector=involvedObject.name%3Dp,type%3DNormal").await.ok();
    assert_eq!(
        (&old["items"][0]["message"], &old["items"][0]["involvedObject"]["uid"]),
        (&json!("it happened"), &json!("u1"))
    );
    for (fields, found) in [
        ("regarding.uid%3Du1,type%3DNormal", 1),
        ("regarding.uid%3Du1,type%3DWarning", 0),
        ("reason%3DWhy", 1),
    ] {
        let new = at.get(&format!("events?limit=50&fieldSelector={fields}")).await.ok();
        assert_eq!(new["items"].as_array().map(Vec::len), Some(found), "{fields}: {new}");
    }
    let counted = at
        .merge(
            "events/e",
            &json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}),
        )
        .await
        .ok();
    assert_eq!(counted["series"]["count"], 2);
}

async fn events_are_checked(at: At) {
    let (at, namespace) = (&at, at.namespace.as_str());
    let with = |pointer: &'static str, value: Value| async move {
        let mut event = event(namespace);
        *event.pointer_mut(pointer).unwrap() = value;
        at.post("events?dryRun=All", &event).await
    };
    with("/note", json!("x".repeat(1024))).await.ok();
    for (pointer, value, field) in [
        ("/note", json!("x".repeat(1025)), "message"),
        ("/reason", json!("x".repeat(129)), "reason"),
        ("/reason", json!(""), "reason"),
        ("/action", json!(""), "action"),
        ("/type", json!("Odd"), "type"),
        ("/reportingInstance", json!(""), "reportingInstance"),
        ("/reportingController", json!(""), "reportingController"),
        ("/regarding/namespace", json!(""), "involvedObject.namespace"),
    ] {
        let refused = with(pointer, value).await;
        refused.refused(422, "Invalid");
        assert_eq!(refused.cause()[2], field);
    }
}

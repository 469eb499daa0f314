//! Deletion: preconditions, grace, finalizers, owners, and what is answered.

use serde_json::{Value, json};

use super::{on_both, place::At};

on_both!(
    a_bound_pod_gets_its_grace_and_a_second_deletion_only_shortens_it,
    a_collection_is_deleted_by_its_selector,
    a_dependent_goes_with_its_owner_and_in_the_foreground_before_it,
    a_deletion_minds_its_preconditions,
    a_pod_that_is_made_for_a_node_that_is_gone_is_failed_and_deleted,
    a_finalizer_holds_an_object_and_none_is_added_to_one_that_goes,
    pods_that_no_kubelet_has_go_at_once,
    pods_of_a_node_that_is_gone_are_failed_and_deleted,
    what_is_gone_at_once_is_told_by_a_status,
);

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"on": "yes"}}})
}

async fn a_deletion_minds_its_preconditions(at: At) {
    let made = at.post("configmaps", &map("a")).await.ok();
    let (uid, version) =
        (made["metadata"]["uid"].as_str().unwrap(), made["metadata"]["resourceVersion"].as_str().unwrap());
    let start = "Operation cannot be fulfilled on ConfigMap \"a\": ";
    let wrong = at.delete("configmaps/a", &json!({"preconditions": {"uid": "other"}})).await;
    let why = format!(
        "{start}the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
    );
    assert_eq!(wrong.refused(409, "Conflict"), why);
    let wrong =
        at.delete("configmaps/a", &json!({"preconditions": {"uid": uid, "resourceVersion": "1"}})).await;
    let why = format!(
        "{start}the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({version}). The object might have been modified"
    );
    assert_eq!(wrong.refused(409, "Conflict"), why);
    at.delete("configmaps/a", &json!({"preconditions": {"uid": uid, "resourceVersion": version}})).await.ok();
    let gone = at.delete("configmaps/a", &json!({"preconditions": {"uid": uid}})).await;
    gone.refused(404, "NotFound");
}

async fn what_is_gone_at_once_is_told_by_a_status(at: At) {
    let made = at.post("configmaps", &map("a")).await.ok();
    let gone = at.delete("configmaps/a", &json!({"propagationPolicy": "Background"})).await;
    let details = json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]});
    assert_eq!((gone.code, &gone.body["status"], &gone.body["details"]), (200, &json!("Success"), &details));
    let mut held = map("b");
    held["metadata"]["finalizers"] = json!(["example.io/hold"]);
    at.post("configmaps", &held).await.ok();
    let going = at.delete("configmaps/b", &json!({})).await;
    assert!(going.code == 200 && going.body["metadata"]["deletionTimestamp"].is_string(), "{going:?}");
    assert_eq!(going.body["metadata"]["deletionGracePeriodSeconds"], 0);
    let last = at.merge("configmaps/b", &json!({"metadata": {"finalizers": []}})).await;
    assert_eq!(last.code, 200);
    at.get("configmaps/b").await.refused(404, "NotFound");
}

async fn a_finalizer_holds_an_object_and_none_is_added_to_one_that_goes(at: At) {
    let mut held = map("a");
    held["metadata"]["finalizers"] = json!(["example.io/hold"]);
    at.post("configmaps", &held).await.ok();
    at.delete("configmaps/a", &json!({})).await.ok();
    let again = at.delete("configmaps/a", &json!({})).await.ok();
    assert!(again["metadata"]["deletionTimestamp"].is_string());
    let late = at
        .merge("configmaps/a", &json!({"metadata": {"finalizers": ["example.io/hold", "example.io/more"]}}))
        .await;
    late.refused(422, "Invalid");
    let why = "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.io/more\"}";
    assert_eq!(late.cause(), ["FieldValueForbidden", why, "metadata.finalizers"]);
    at.merge("configmaps/a", &json!({"data": {"still": "written"}})).await.ok();
    at.post("configmaps", &held).await.refused(409, "AlreadyExists");
    at.merge("configmaps/a", &json!({"metadata": {"finalizers": null}})).await.ok();
    at.post("configmaps", &held).await.ok();
    let odd = at.merge("configmaps/a", &json!({"metadata": {"finalizers": ["no-domain"]}})).await;
    odd.refused(422, "Invalid");
}

async fn a_dependent_goes_with_its_owner_and_in_the_foreground_before_it(at: At) {
    let at = &at;
    let owned = |owner: &Value, finalizers: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true, "controller": true});
        json!({"metadata": {"name": "child", "ownerReferences": [owner], "finalizers": finalizers}})
    };
    let owner = at.post("configmaps", &map("owner")).await.ok();
    at.post("configmaps", &owned(&owner, json!([]))).await.ok();
    at.delete("configmaps/owner", &json!({"propagationPolicy": "Background"})).await.ok();
    at.until("configmaps/child", Value::is_null).await;

    let owner = at.post("configmaps", &map("owner")).await.ok();
    at.post("configmaps", &owned(&owner, json!(["example.io/hold"]))).await.ok();
    let going = at.delete("configmaps/owner", &json!({"propagationPolicy": "Foreground"})).await.ok();
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    at.until("configmaps/child", |child| child["metadata"]["deletionTimestamp"].is_string()).await;
    at.get("configmaps/owner").await.ok();
    at.merge("configmaps/child", &json!({"metadata": {"finalizers": null}})).await.ok();
    at.until("configmaps/owner", Value::is_null).await;

    let owner = at.post("configmaps", &map("owner")).await.ok();
    at.post("configmaps", &owned(&owner, json!([]))).await.ok();
    at.delete("configmaps/owner", &json!({"propagationPolicy": "Orphan"})).await.ok();
    at.until("configmaps/owner", Value::is_null).await;
    let left = at.get("configmaps/child").await.ok();
    assert!(left["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty), "{left}");

    // One whose owner is gone before it is made does not stay.
    at.delete("configmaps/child", &json!({})).await.ok();
    at.post("configmaps", &owned(&owner, json!([]))).await.ok();
    at.until("configmaps/child", Value::is_null).await;
}

async fn a_bound_pod_gets_its_grace_and_a_second_deletion_only_shortens_it(at: At) {
    let node = at.node().await;
    at.pod("a", &node, json!({})).await;
    let dry = at.delete("pods/a?dryRun=All", &json!({})).await.ok();
    assert_eq!(dry["metadata"]["deletionGracePeriodSeconds"], 30);
    let going = at.delete("pods/a", &json!({})).await;
    let (code, first) = (going.code, &going.body["metadata"]);
    assert_eq!((code, &first["deletionGracePeriodSeconds"]), (200, &json!(30)));
    let time = |meta: &Value, field: &str| {
        meta[field].as_str().unwrap().parse::<k8s_openapi::jiff::Timestamp>().unwrap()
    };
    let away = time(first, "deletionTimestamp").duration_since(time(first, "creationTimestamp"));
    assert!((30..60).contains(&away.as_secs()), "{first}");
    let longer = at.delete("pods/a", &json!({"gracePeriodSeconds": 60})).await.ok();
    assert_eq!(longer["metadata"]["deletionTimestamp"], first["deletionTimestamp"]);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = at.delete("pods/a", &json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < first["deletionTimestamp"].as_str());
    let wrong =
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}})).await;
    wrong.refused(409, "Conflict");
    let gone = at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(gone["kind"], "Pod");
    at.get("pods/a").await.refused(404, "NotFound");
}

async fn pods_that_no_kubelet_has_go_at_once(at: At) {
    let node = at.node().await;
    let mut unbound = super::place::pod("unbound", "", json!({}));
    unbound["spec"].as_object_mut().unwrap().remove("nodeName");
    unbound["spec"]["nodeSelector"] = json!({"no-such": "label"});
    at.post("pods", &unbound).await.ok();
    for name in ["over", "failed", "started"] {
        at.pod(name, &node, json!({})).await;
        at.starts(name).await;
    }
    at.ends("over", 0).await;
    at.ends("failed", 1).await;
    for name in ["unbound", "over", "failed"] {
        let gone = at.delete(&format!("pods/{name}"), &json!({})).await.ok();
        assert_eq!(
            (&gone["kind"], &gone["metadata"]["deletionGracePeriodSeconds"]),
            (&json!("Pod"), &json!(0)),
            "{name}"
        );
        at.get(&format!("pods/{name}")).await.refused(404, "NotFound");
    }
    at.delete("pods/started", &json!({})).await.ok();
    at.ends("started", 0).await;
    assert!(at.get("pods/started").await.ok()["metadata"]["deletionTimestamp"].is_string());
}

async fn a_collection_is_deleted_by_its_selector(at: At) {
    at.post("configmaps", &map("a")).await.ok();
    at.post("configmaps", &json!({"metadata": {"name": "b"}})).await.ok();
    let answer = at.delete("configmaps?labelSelector=on%3Dyes", &json!({})).await.ok();
    assert_eq!(answer["kind"], "ConfigMapList");
    at.get("configmaps/a").await.refused(404, "NotFound");
    at.get("configmaps/b").await.ok();
}

async fn a_pod_that_is_made_for_a_node_that_is_gone_is_failed_and_deleted(at: At) {
    let mut held = super::place::pod("a", "no-such-node", json!({}));
    held["metadata"]["finalizers"] = json!(["example.io/hold"]);
    at.post("pods", &held).await.ok();
    let failed = at.until("pods/a", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    let target = super::place::condition(&failed, "DisruptionTarget");
    assert_eq!(
        (&failed["status"]["phase"], &target["reason"]),
        (&json!("Failed"), &json!("DeletionByPodGC"))
    );
}

async fn pods_of_a_node_that_is_gone_are_failed_and_deleted(at: At) {
    let node = at.node().await;
    let mut held = super::place::pod("a", &node, json!({}));
    held["metadata"]["finalizers"] = json!(["example.io/hold"]);
    at.post("pods", &held).await.ok();
    at.starts("a").await;
    at.delete(&format!("nodes/{node}"), &json!({})).await.ok();
    let failed = at.until("pods/a", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(failed["status"]["phase"], "Failed");
    let target = super::place::condition(&failed, "DisruptionTarget");
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"]),
        (&json!("True"), &json!("DeletionByPodGC"), &json!("PodGC: node no longer exists"))
    );
}

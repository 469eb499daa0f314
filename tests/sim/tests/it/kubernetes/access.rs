//! Who may do what, and nobody grants what he does not hold.

use serde_json::{Value, json};

use super::{
    on_both,
    place::At,
    session::{APPLY, Answer},
};

on_both!(
    a_token_ends_with_its_account_and_with_its_pod,
    an_account_may_do_what_its_roles_say_and_no_more,
    nobody_binds_a_role_that_is_not_there_unless_he_may_bind_any,
    nobody_grants_what_he_does_not_hold,
    who_applies_what_is_not_there_creates_it,
    who_may_do_what_can_be_asked,
);

fn forbidden(answer: &Answer) -> &str {
    answer.refused(403, "Forbidden")
}

async fn an_account_may_do_what_its_roles_say_and_no_more(at: At) {
    at.post("configmaps", &json!({"metadata": {"name": "mine"}})).await.ok();
    let limited = at.account("limited").await;
    at.allow("limited", json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]}])).await;
    let (user, namespace) = (format!("system:serviceaccount:{}:limited", at.namespace), &at.namespace);
    while limited.get("configmaps/mine").await.code == 403 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let named = limited.get("configmaps?fieldSelector=metadata.name%3Dmine").await.ok();
    assert_eq!(named["items"].as_array().map(Vec::len), Some(1));
    for (answer, why) in [
        (
            limited.get("configmaps").await,
            format!(
                "configmaps is forbidden: User \"{user}\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.get("configmaps?watch=1").await,
            format!(
                "configmaps is forbidden: User \"{user}\" cannot watch resource \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.get("configmaps/other").await,
            format!(
                "configmaps \"other\" is forbidden: User \"{user}\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.get("nodes").await,
            format!(
                "nodes is forbidden: User \"{user}\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
            ),
        ),
        (
            limited.get("nodes/n1").await,
            format!(
                "nodes \"n1\" is forbidden: User \"{user}\" cannot get resource \"nodes\" in API group \"\" at the cluster scope"
            ),
        ),
        (
            limited.get("/apis/batch/v1/jobs").await,
            format!(
                "jobs.batch is forbidden: User \"{user}\" cannot list resource \"jobs\" in API group \"batch\" at the cluster scope"
            ),
        ),
        (
            limited.post("jobs", &json!({"metadata": {"name": "j"}})).await,
            format!(
                "jobs.batch is forbidden: User \"{user}\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.post("pods/p/eviction", &json!({"metadata": {"name": "p"}})).await,
            format!(
                "pods \"p\" is forbidden: User \"{user}\" cannot create resource \"pods/eviction\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.merge("nodes/n1/status", &json!({})).await,
            format!(
                "nodes \"n1\" is forbidden: User \"{user}\" cannot patch resource \"nodes/status\" in API group \"\" at the cluster scope"
            ),
        ),
        (
            limited.delete("configmaps/mine", &json!({})).await,
            format!(
                "configmaps \"mine\" is forbidden: User \"{user}\" cannot delete resource \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
        (
            limited.get(&format!("namespaces/{namespace}")).await,
            format!(
                "namespaces \"{namespace}\" is forbidden: User \"{user}\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
    ] {
        assert_eq!(forbidden(&answer), why);
    }
    let details = limited.get("/apis/batch/v1/namespaces/{namespace}/jobs/j").await;
    assert_eq!(details.body["details"], json!({"name": "j", "group": "batch", "kind": "jobs"}));
}

async fn nobody_grants_what_he_does_not_hold(at: At) {
    let limited = at.account("limited").await;
    at.allow("limited", json!([
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "patch", "get"]},
    ])).await;
    let role = |name: &str, rule: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": [rule]});
    let held =
        json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"]});
    while limited.post("roles", &role("fine", held.clone())).await.code == 403 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let more = json!({"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list"]});
    let refused = limited.post("roles", &role("more", more.clone())).await;
    let namespace = &at.namespace;
    let groups = format!(
        "[\"system:serviceaccounts\" \"system:serviceaccounts:{namespace}\" \"system:authenticated\"]"
    );
    let start = format!(
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"system:serviceaccount:{namespace}:limited\" (groups={groups}) is attempting to grant RBAC permissions not currently held:\n"
    );
    let lines = "{APIGroups:[\"\"], Resources:[\"configmaps\"], Verbs:[\"get\" \"list\"]}\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}";
    assert_eq!(forbidden(&refused), format!("{start}{lines}"));
    let changed = limited.merge("roles/fine", &json!({"rules": [more]})).await;
    assert!(forbidden(&changed).contains("is attempting to grant RBAC permissions not currently held"));
    at.post("roles", &role("big", json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]})))
        .await
        .ok();
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "big"}});
    let refused = limited.post("rolebindings", &binding).await;
    assert!(
        forbidden(&refused).starts_with("rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user "),
        "{refused:?}"
    );
    let fixed = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "fine"}});
    limited.post("rolebindings", &fixed).await.ok();
    let other = at.merge("rolebindings/b", &json!({"roleRef": {"name": "big"}})).await;
    other.refused(422, "Invalid");
    assert_eq!(other.cause()[2], "roleRef");
    assert!(other.cause()[1].ends_with(": cannot change roleRef"), "{other:?}");
}

/// A dry run of a Role does not make one for the dry run of its binding.
async fn nobody_binds_a_role_that_is_not_there_unless_he_may_bind_any(at: At) {
    let limited = at.account("limited").await;
    at.allow("limited", json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["create"]}])).await;
    let binding = json!({"metadata": {"name": "new"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "none"}});
    let mut refused = limited.post("rolebindings?dryRun=All", &binding).await;
    while refused.body["message"].as_str().is_some_and(|message| message.contains(" cannot create resource "))
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        refused = limited.post("rolebindings?dryRun=All", &binding).await;
    }
    assert_eq!(refused.refused(404, "NotFound"), "rolebindings.rbac.authorization.k8s.io \"none\" not found");
    at.post("rolebindings?dryRun=All", &binding).await.ok();
}

async fn a_token_ends_with_its_account_and_with_its_pod(at: At) {
    let node = at.node().await;
    let brief = at.account("brief").await;
    forbidden(&brief.get("configmaps").await);
    let mut pod = super::place::pod("p", &node, json!({}));
    pod["spec"]["serviceAccountName"] = json!("brief");
    let pod = at.post("pods", &pod).await.ok();
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    let of_pod = at.account_with("brief", json!({"boundObjectRef": bound, "expirationSeconds": 3600})).await;
    forbidden(&of_pod.get("configmaps").await);
    at.is_gone(&pod).await;
    while of_pod.get("configmaps").await.code != 401 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    at.delete("serviceaccounts/brief", &json!({})).await.ok();
    let mut refused = brief.get("configmaps").await;
    while refused.code != 401 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        refused = brief.get("configmaps").await;
    }
    assert_eq!(refused.refused(401, "Unauthorized"), "Unauthorized");
}

async fn who_applies_what_is_not_there_creates_it(at: At) {
    let limited = at.account("limited").await;
    at.allow("limited", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}});
    let mut refused = limited.patch("configmaps/new?fieldManager=t", APPLY, &map).await;
    while refused.body["message"].as_str().is_some_and(|message| message.contains(" cannot patch resource "))
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        refused = limited.patch("configmaps/new?fieldManager=t", APPLY, &map).await;
    }
    assert!(forbidden(&refused).contains("cannot create resource \"configmaps\""), "{refused:?}");
    at.post("configmaps", &map).await.ok();
    limited.patch("configmaps/new?fieldManager=t", APPLY, &map).await.ok();
    let unnamed = limited.patch("configmaps/new", APPLY, &map).await;
    unnamed.refused(422, "Invalid");
    assert_eq!(
        unnamed.cause(),
        ["FieldValueRequired", "Required value: is required for apply patch", "fieldManager"]
    );
}

async fn who_may_do_what_can_be_asked(at: At) {
    let limited = at.account("limited").await;
    at.allow("limited", json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}])).await;
    let ask = |verb: &str, sub: &str| {
        let attributes = json!({"namespace": at.namespace, "verb": verb, "group": "batch", "resource": "jobs", "subresource": sub});
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}})
    };
    let mut answer = limited.post("selfsubjectaccessreviews", &ask("get", "")).await;
    while answer.body["status"]["allowed"] != true {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answer = limited.post("selfsubjectaccessreviews", &ask("get", "")).await;
    }
    assert_eq!(answer.code, 201);
    for (verb, sub) in [("create", ""), ("get", "status")] {
        let answer = limited.post("selfsubjectaccessreviews", &ask(verb, sub)).await.ok();
        assert_eq!(answer["status"]["allowed"], false, "{verb} {sub}");
    }
    let mut other = ask("get", "");
    other["kind"] = json!("SubjectAccessReview");
    other["spec"]["user"] = json!(format!("system:serviceaccount:{}:limited", at.namespace));
    assert_eq!(at.post("subjectaccessreviews", &other).await.ok()["status"]["allowed"], true);
    other["spec"]["user"] = json!("nobody");
    assert_eq!(at.post("subjectaccessreviews", &other).await.ok()["status"]["allowed"], false);
    forbidden(&limited.post("subjectaccessreviews", &other).await);
}

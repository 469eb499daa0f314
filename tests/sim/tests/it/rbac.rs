//! Who may do what, and nobody grants what he does not hold.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::small;

const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: some, namespace: default}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [mine], verbs: [get, list, watch]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: some, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: some}
subjects: [{kind: ServiceAccount, name: limited, namespace: default}]
"#;

fn message<T>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn an_account_may_do_what_its_roles_say_and_no_more() {
    let cluster = small().nodes(0).start().await.unwrap();
    cluster.apply(RIGHTS).await.unwrap();
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: mine}}").await.unwrap();
    let client = cluster.client_for("default", "limited").await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.get("mine").await.unwrap();
    assert_eq!(maps.list(&ListParams::default().fields("metadata.name=mine")).await.unwrap().items.len(), 1);
    assert!(
        message(maps.list(&ListParams::default()).await)
            .contains("configmaps is forbidden: User \"system:serviceaccount:default:limited\" cannot list")
    );
    message(maps.get("other").await);
    message(Api::<Pod>::default_namespaced(client.clone()).get("x").await);

    let roles: Api<Role> = Api::default_namespaced(client);
    let role = |name: &str, rule: Value| {
        serde_json::from_value::<Role>(json!({"metadata": {"name": name}, "rules": [rule]})).unwrap()
    };
    let held =
        json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"]});
    roles.create(&PostParams::default(), &role("fine", held)).await.unwrap();
    let more = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    assert!(
        message(roles.create(&PostParams::default(), &role("more", more)).await)
            .contains("attempting to grant RBAC permissions not currently held")
    );
}

/// Seen on a real server, where a dry run of a Role does not make one for the dry run of its binding.
#[tokio::test]
async fn nobody_binds_a_role_that_is_not_there_unless_he_may_bind_any() {
    let cluster = small().nodes(0).start().await.unwrap();
    cluster.apply(RIGHTS).await.unwrap();
    cluster
        .apply(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: some, namespace: default}, \
             rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [rolebindings], verbs: [create]}]}",
        )
        .await
        .unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "new"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "none"},
    }))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let by = |client| async { Api::<RoleBinding>::default_namespaced(client).create(&dry, &binding).await };
    let refused = by(cluster.client_for("default", "limited").await.unwrap()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 404));
    by(cluster.client()).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_with_its_account() {
    let cluster = small().nodes(0).rbac(false).start().await.unwrap();
    let client = cluster.client_for("default", "brief").await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.list(&ListParams::default()).await.unwrap();
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(cluster.client());
    accounts.delete("brief", &kube::api::DeleteParams::default()).await.unwrap();
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 401));
}

/// Who applies an object that is not there needs `create` beside `patch`; who lets it hold up its owner's
/// deletion, the owner's finalizers, where that is enforced.
#[tokio::test]
async fn rights_that_a_request_needs_besides_its_own_verb_are_asked_for_and_noted() {
    let cluster = small().nodes(0).start().await.unwrap();
    let rule = |verbs: &str| {
        let role = "apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: some, namespace: default}";
        format!(
            "{{{role}, rules: [{{apiGroups: [''], resources: [configmaps], verbs: [{verbs}]}}, {{apiGroups: [''], resources: [pods/finalizers], verbs: [{verbs}]}}]}}"
        )
    };
    cluster.apply(RIGHTS).await.unwrap();
    cluster.apply(&rule("patch")).await.unwrap();
    let maps: Api<ConfigMap> =
        Api::default_namespaced(cluster.client_for("default", "limited").await.unwrap());
    let owner =
        json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "blockOwnerDeletion": true});
    let plain = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}});
    let mut owned = plain.clone();
    owned["metadata"]["ownerReferences"] = json!([owner]);
    let apply = |object: Value| {
        let maps = maps.clone();
        async move { maps.patch("new", &PatchParams::apply("test"), &Patch::Apply(object)).await }
    };
    assert!(message(apply(plain.clone()).await).contains("cannot create resource \"configmaps\""));
    cluster.apply(&rule("patch, create")).await.unwrap();
    assert!(message(apply(owned.clone()).await).contains("can't set finalizers on"));
    apply(plain).await.unwrap();
    cluster.apply(&rule("patch, create, update")).await.unwrap();
    apply(owned.clone()).await.unwrap();
    cluster.apply(&rule("patch")).await.unwrap();
    apply(owned).await.unwrap();
    let rights: Vec<_> =
        cluster.rights().into_iter().filter(|right| right.user.ends_with(":limited")).collect();
    let used: Vec<String> = rights.iter().map(|right| format!("{} {}", right.verb, right.resource)).collect();
    assert_eq!(used, ["create configmaps", "patch configmaps", "update pods/finalizers"]);
}

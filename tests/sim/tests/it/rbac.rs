//! The rights that requests used.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
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

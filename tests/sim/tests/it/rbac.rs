//! Who may do what, and nobody grants what he does not hold.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    rbac::v1::Role,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
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
    let role = |name: &str, rule: Value| serde_json::from_value::<Role>(json!({"metadata": {"name": name}, "rules": [rule]})).unwrap();
    let held = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"]});
    roles.create(&PostParams::default(), &role("fine", held)).await.unwrap();
    let more = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    assert!(
        message(roles.create(&PostParams::default(), &role("more", more)).await)
            .contains("attempting to grant RBAC permissions not currently held")
    );
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

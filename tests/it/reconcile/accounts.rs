//! Accounts of somebody else under the names of ours: neither changed nor deleted, and no NodeOp waits for
//! them.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{Role, RoleBinding},
};
use kairos_operator::{api::nodeop::NodeOp, plan::model::object_name::accounts};
use kairos_sim::Cluster;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use super::rig::{OPS, Rig, and, reboot};

const TABLES: [&str; 3] =
    ["serviceaccounts", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"];

/// A ServiceAccount, a Role and a RoleBinding that somebody made by hand.
fn foreign(name: &str) -> String {
    let meta = json!({"name": name, "namespace": "default"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules});
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": "default"}]);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": reference, "subjects": subjects});
    [account, role, binding].map(|object| object.to_string()).join("\n---\n")
}

fn versions(rig: &Rig, name: &str) -> Vec<Value> {
    TABLES
        .map(|table| {
            rig.cluster
                .get(table, "default", name)
                .map_or(Value::Null, |found| found["metadata"]["resourceVersion"].clone())
        })
        .into()
}

/// The account of each waiter that there ever was.
fn accounts_of_waiters(rig: &Rig) -> Vec<String> {
    let history = rig.cluster.history();
    let waiters =
        history.iter().filter(|change| change.object["metadata"]["labels"]["kairos.io/reboot"] == "true");
    let mut accounts: Vec<String> = waiters
        .map(|change| change.object["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned())
        .collect();
    accounts.dedup();
    accounts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_somebody_else_is_passed_by_and_left_as_it_is() {
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
    rig.op("mydb", and(reboot(), json!({"drainOptions": {"enabled": true}}))).await;
    let op = Api::<NodeOp>::default_namespaced(rig.cluster.client()).get("mydb").await.unwrap();
    let names = accounts(("mydb", &op.uid().unwrap()));
    // The Go operator's name, and the first one that ours would take.
    let taken = ["mydb-reboot", names[0].as_str()];
    for name in taken {
        rig.cluster.apply(&foreign(name)).await.unwrap();
    }
    let before = taken.map(|name| versions(&rig, name));
    rig.start(&[]);
    let status = rig.over("mydb").await;
    assert_eq!(
        (&status["phase"], rig.reboots("n1"), rig.reboots("n2")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
    assert_eq!(taken.map(|name| versions(&rig, name)), before, "they are as they were made");
    assert_eq!(accounts_of_waiters(&rig), [names[1].as_str()]);
    assert_eq!(
        (versions(&rig, &names[1]), rig.left()),
        (vec![Value::Null; 3], Vec::new()),
        "and ours are gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_names_are_taken_it_is_told() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    rig.op("op", reboot()).await;
    let op = Api::<NodeOp>::default_namespaced(rig.cluster.client()).get("op").await.unwrap();
    let names = accounts(("op", &op.uid().unwrap()));
    for name in &names {
        rig.cluster.apply(&foreign(name)).await.unwrap();
    }
    rig.start(&[]);
    rig.says("op", "n1", "is taken by a ServiceAccount, Role or RoleBinding of somebody else").await;
    let (client, name, now) = (rig.cluster.client(), names[0].as_str(), DeleteParams::default());
    Api::<RoleBinding>::default_namespaced(client.clone()).delete(name, &now).await.unwrap();
    Api::<Role>::default_namespaced(client.clone()).delete(name, &now).await.unwrap();
    Api::<ServiceAccount>::default_namespaced(client).delete(name, &now).await.unwrap();
    assert_eq!(rig.over("op").await["phase"], "Completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodeop_that_is_made_again_has_its_own_account() {
    let rig = Rig::new(1).await;
    for _ in 0..2 {
        rig.op("op", reboot()).await;
        assert_eq!(rig.over("op").await["phase"], "Completed");
        rig.delete("op").await;
        rig.cluster.until_none(OPS, super::rig::LONG, |_| true).await.unwrap();
    }
    let accounts = accounts_of_waiters(&rig);
    assert!(accounts.len() == 2 && accounts[0] != accounts[1], "{accounts:?}");
    assert_eq!(rig.left(), [""; 0]);
}

//! The accounts of reboot waiters: each is good for one node, and for as long as its NodeOp runs. Those of
//! somebody else under the names of ours are neither changed nor deleted, and no NodeOp waits for them.

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kairos_operator::{
    api::nodeop::NodeOp,
    plan::model::object_name::{self, accounts},
    render::{RenderConfig, waiter},
};
use kairos_sim::Cluster;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, and, reboot};

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

/// The accounts of waiters that there ever were, in their order.
fn accounts_of_waiters(rig: &Rig) -> Vec<String> {
    let history = rig.cluster.history();
    let waiters =
        history.iter().filter(|change| change.object["metadata"]["labels"]["kairos.io/reboot"] == "true");
    let mut accounts: Vec<String> = Vec::new();
    for change in waiters {
        let account = change.object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if !accounts.iter().any(|known| known == account) {
            accounts.push(account.to_owned());
        }
    }
    accounts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_somebody_else_is_passed_by_and_left_as_it_is() {
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
    rig.op("mydb", and(reboot(), json!({"drainOptions": {"enabled": true}}))).await;
    let op = Api::<NodeOp>::default_namespaced(rig.cluster.client()).get("mydb").await.unwrap();
    let uid = op.uid().unwrap();
    let names = accounts(("mydb", &uid), "n1");
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
    // The next node's waiter is made ahead, so that either may be the first.
    let mut had = accounts_of_waiters(&rig);
    had.sort();
    assert_eq!(had, [names[1].clone(), accounts(("mydb", &uid), "n2")[0].clone()]);
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
    let names = accounts(("op", &op.uid().unwrap()), "n1");
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
        rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
    }
    let accounts = accounts_of_waiters(&rig);
    assert!(accounts.len() == 2 && accounts[0] != accounts[1], "{accounts:?}");
    assert_eq!(rig.left(), [""; 0]);
}

/// The pods that wait on these nodes, once all of them do.
async fn waiting(rig: &Rig, nodes: &[&str]) -> Vec<Arc<Value>> {
    let mut found = Vec::new();
    for node in nodes {
        let waits = |pod: &Value| {
            pod["spec"]["nodeName"] == *node
                && pod["metadata"]["annotations"]["kairos.io/reboot-state"] == "waiting"
        };
        found.push(rig.cluster.until("pods", LONG, waits).await.unwrap());
    }
    found
}

/// What a waiter's account may do is what RBAC says: no admission policy is evaluated here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_can_do_nothing_to_the_waiter_and_the_job_of_another_node() {
    let rig = Rig::new(2).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"], "concurrency": 2}))).await;
    for node in ["n1", "n2"] {
        rig.command_runs(node).await;
    }
    let pods = waiting(&rig, &["n1", "n2"]).await;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let [own, other] = [name(&pods[0]), name(&pods[1])];
    let account = pods[0]["spec"]["serviceAccountName"].as_str().unwrap();
    let client = rig.cluster.client_for("default", account).await.unwrap();
    let jobs: Vec<String> = ["n1", "n2"]
        .map(|node| rig.status("op")["nodeStatuses"][node]["jobName"].as_str().unwrap().to_owned())
        .into();
    let waiters: Api<Pod> = Api::default_namespaced(client.clone());
    let operations: Api<Job> = Api::default_namespaced(client.clone());
    let said = Patch::Merge(json!({"metadata": {"annotations": {"kairos.io/reboot-state": "waiting"}}}));
    assert!(waiters.patch(&own, &PatchParams::default(), &said).await.is_ok());
    assert!(waiters.get(&own).await.is_ok() && operations.get(&jobs[0]).await.is_ok());
    let refused = [
        waiters.patch(&other, &PatchParams::default(), &said).await.map(drop),
        waiters.get(&other).await.map(drop),
        waiters.list(&Default::default()).await.map(drop),
        waiters.delete(&own, &DeleteParams::default()).await.map(drop),
        operations.get(&jobs[1]).await.map(drop),
        Api::<Role>::default_namespaced(client).get(account).await.map(drop),
    ];
    for (number, answer) in refused.into_iter().enumerate() {
        assert!(
            matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403),
            "{number}: {answer:?}"
        );
    }
    rig.delete("op").await;
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
    assert_eq!(rig.left(), [""; 0]);
}

/// What trims rights may take them from a waiter that stands, and a binding of another role grants nothing
/// that it needs. The next waiter has its own again: it does not reboot without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_somebody_changed_is_made_anew_for_the_next_waiter() {
    let rig = Rig::new(1).await;
    let client = rig.cluster.client();
    let bindings = Api::<RoleBinding>::default_namespaced(client.clone());
    for (name, other_role) in [("emptied", false), ("bent", true)] {
        rig.hold_reboots();
        rig.op(name, reboot()).await;
        rig.in_step(name, "n1", "Reboot").await;
        let uid = Api::<NodeOp>::default_namespaced(client.clone()).get(name).await.unwrap().uid().unwrap();
        let account = &accounts((name, &uid), "n1")[0];
        if other_role {
            let mut bent = bindings.get(account).await.unwrap();
            bindings.delete(account, &DeleteParams::default()).await.unwrap();
            (bent.metadata.uid, bent.metadata.resource_version) = (None, None);
            bent.role_ref.name = "nobody".into();
            bindings.create(&Default::default(), &bent).await.unwrap();
        } else {
            let none = Patch::Merge(json!({"subjects": null}));
            bindings.patch(account, &PatchParams::default(), &none).await.unwrap();
        }
        let waits = |pod: &Value| {
            let meta = &pod["metadata"];
            meta["labels"]["kairos.io/nodeop"] == name && meta["labels"]["kairos.io/reboot"] == "true"
        };
        let lost = rig.cluster.until("pods", LONG, waits).await.unwrap();
        let lost = lost["metadata"]["name"].as_str().unwrap();
        // It may have ended by itself, and be gone.
        let _ = Api::<Pod>::default_namespaced(client.clone()).delete(lost, &DeleteParams::default()).await;
        rig.cluster.faults().clear();
        let status = rig.over(name).await;
        assert_eq!(status["phase"], "Completed", "{status:#}");
    }
    assert_eq!(rig.reboots("n1"), 2);
}

/// The figure that docs/rights.md gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_costs_six_writes_for_each_node() {
    let rig = Rig::new(3).await;
    rig.op("op", and(reboot(), json!({"concurrency": 2}))).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    rig.cluster
        .until_none("serviceaccounts", LONG, |o| !o["metadata"]["labels"]["kairos.io/nodeop"].is_null())
        .await
        .unwrap();
    let asked = |verb: &str| {
        let requests = rig.requests();
        let of = requests.iter().filter(|request| TABLES.contains(&request.resource.as_str()));
        of.filter(|request| request.verb == verb && !request.query.contains("dryRun")).count()
    };
    assert_eq!(["create", "patch", "delete"].map(asked), [9, 0, 9]);
    assert_eq!(["get", "list"].map(asked), [0, 3]);
}

/// The release before this one gave all waiters of a NodeOp one account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_with_the_account_of_the_release_before_goes_on_and_the_account_goes_with_the_nodeop() {
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
    rig.op("op", reboot()).await;
    let op = Api::<NodeOp>::default_namespaced(rig.cluster.client()).get("op").await.unwrap();
    let uid = op.uid().unwrap();
    let of = |kind: &str| object_name::object(("op", &uid), "n1", kind, 0);
    let (shared, name, job) = ("op-1a2b3c4d5e-reboot", of("reboot"), of(""));
    for mut object in
        foreign(shared).split("\n---\n").map(|text| serde_json::from_str::<Value>(text).unwrap())
    {
        object["metadata"]["labels"] = json!({"kairos.io/nodeop": "op"});
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "name": "op", "uid": uid, "controller": true}]);
        if object["kind"] == "Role" {
            object["rules"] = json!([
                {"apiGroups": [""], "resources": ["pods"], "resourceNames": [name], "verbs": ["get", "patch"]},
                {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": [job], "verbs": ["get", "list", "watch"]}]);
        }
        rig.cluster.apply(&object.to_string()).await.unwrap();
    }
    let config = RenderConfig {
        operator_image: "operator:v1".into(),
        operator_pull_policy: "IfNotPresent".into(),
        namespace: "operator-system".into(),
        default_image: "busybox:1".into(),
        state_dir: "/usr/local/.kairos".into(),
        pull_secrets: vec![],
    };
    let pod = waiter::pod(&op, "n1", &name, waiter::For { job: &job, succeeded: None }, shared, &config);
    Api::<Pod>::default_namespaced(rig.cluster.client()).create(&Default::default(), &pod).await.unwrap();
    let before = waiting(&rig, &["n1"]).await;
    rig.start(&[]);
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.reboots("n1"), rig.reboots("n2")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
    let own = accounts(("op", &uid), "n2");
    assert_eq!(accounts_of_waiters(&rig), [shared, own[0].as_str()]);
    assert_eq!(before[0]["metadata"]["name"], name.as_str());
    let ours = |o: &Value| !o["metadata"]["labels"]["kairos.io/nodeop"].is_null();
    rig.cluster.until_none("serviceaccounts", LONG, ours).await.unwrap();
    assert_eq!(rig.left(), [""; 0]);
}

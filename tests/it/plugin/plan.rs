//! `plan`: turns, skips, what waits and why, drains by dry run; and that nothing is written.

use std::{path::Path, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kairos_operator::api::upgrade::NodeOpUpgrade;
use kairos_sim::{Effect, Fault};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    runs::run_of,
    stage::{Stage, entry, run, width},
};

const LONG: Duration = Duration::from_secs(600);
const IMAGE: &str = "quay.io/kairos/opensuse:leap-15.6-standard-amd64-generic-v3.5.0-k3sv1.30.11-k3s1";

async fn patch_node(stage: &Stage, name: &str, patch: Value) {
    let nodes: Api<Node> = Api::all(stage.cluster.client());
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Says of every node which release it runs.
async fn labelled(stage: &Stage, releases: [&str; 3]) {
    for (node, release) in ["n1", "n2", "n3"].into_iter().zip(releases) {
        let meta = json!({"labels": {"kairos.io/managed": "true"}, "annotations": {"operator.kairos.io/release": release}});
        patch_node(stage, node, json!({"metadata": meta})).await;
    }
}

/// A workload of three pods that may spare `spare` of them.
async fn workload(stage: &Stage, spare: usize) {
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web", "command": ["sleep", "infinity"]}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 3 - spare, "selector": {"matchLabels": labels}}});
    stage.cluster.apply(&budget.to_string()).await.unwrap();
    stage.cluster.apply(&set.to_string()).await.unwrap();
    let counted = |budget: &Value| budget["status"]["currentHealthy"] == 3;
    stage.cluster.until("poddisruptionbudgets.policy", LONG, counted).await.unwrap();
}

/// Every request of the user that was to change something was a dry run, and there is no operation.
fn assert_nothing_written(stage: &Stage) {
    for request in stage.cluster.requests() {
        let tries = request.query.contains("dryRun=All") || request.resource.starts_with("selfsubject");
        assert!(request.user != "admin" || !request.is_write() || tries, "{request:?}");
    }
    let made = |table: &str| stage.cluster.list(table).len();
    assert_eq!((made("nodeops.operator.kairos.io"), made("nodeopupgrades.operator.kairos.io")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_planned_node_by_node_and_nothing_is_written() {
    let stage = Stage::new().await;
    labelled(&stage, ["v3.4.2-k3sv1.30.11+k3s1", "v3.5.0-k3sv1.30.11+k3s1", "v3.4.2-k3sv1.30.11+k3s1"]).await;
    workload(&stage, 1).await;
    let version = stage.cluster.history().len();
    let plan = stage.run(&["plan", IMAGE, "-l", "kairos.io/managed=true"]).await;
    // A selector of labels that the operator writes is not evaluated before it has written them.
    assert_eq!(plan.code, 2, "{plan:?}");
    assert!(plan.out.contains("waiting: the facts of 3 nodes are being read: n1, n2, n3"), "{}", plan.out);

    let plan = stage.run(&["plan", IMAGE]).await;
    assert_eq!((plan.code, plan.err.as_str()), (0, ""), "{}", plan.out);
    let lines: Vec<&str> = plan.out.lines().collect();
    assert_eq!(lines[0], format!("nou/upgrade-… (not created)  {IMAGE}"));
    assert_eq!(lines[1], "TURN  NODE  ROLE           RELEASE                  WHAT");
    assert_eq!(lines[2], "1     n1    control plane  v3.4.2-k3sv1.30.11+k3s1  drain: 1 evicted");
    assert_eq!(lines[3], "2     n3                   v3.4.2-k3sv1.30.11+k3s1  drain: 1 evicted");
    assert!(
        lines[4].starts_with(
            "-     n2                   v3.5.0-k3sv1.30.11+k3s1  will be skipped: it runs v3.5.0"
        ),
        "{}",
        plan.out
    );
    assert_eq!(lines[5], "it would run: 2 nodes, 1 skipped");
    let forced = stage.run(&["plan", IMAGE, "--force"]).await;
    assert!(forced.out.ends_with("it would run: 3 nodes\n"), "{}", forced.out);
    for columns in [40, 60, 80, 140] {
        let cut = stage.run_at(Some(columns), &["plan", IMAGE]).await.out;
        assert!(width(&cut) <= columns && cut.contains("drain: 1 evicted"), "{columns}:\n{cut}");
    }
    let names = stage.run(&["plan", IMAGE, "-o", "name"]).await.out;
    assert_eq!(names, "node/n1\nnode/n3\n");
    let json: Value =
        serde_json::from_str(&stage.run(&["plan", IMAGE, "--concurrency", "2", "-o", "json"]).await.out)
            .unwrap();
    assert_eq!((&json["blocked"], &json["turns"]), (&json!(false), &json!([["n1", "n3"]])), "{json:#}");
    assert_nothing_written(&stage);
    let since = stage.cluster.history();
    let deleted = since.iter().skip(version).filter(|change| change.kind == kairos_sim::ChangeKind::Deleted);
    assert_eq!(deleted.count(), 0, "no pod was evicted");
    let marked = since.iter().skip(version).any(|change| {
        change.object["status"]["disruptedPods"].as_object().is_some_and(|pods| !pods.is_empty())
    });
    assert!(!marked, "no budget was spent");
}

/// For the operator it is a refusal, whatever code it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_that_admission_denies_is_shown_as_blocked_and_the_plan_goes_on() {
    let stage = Stage::new().await;
    labelled(&stage, [""; 3]).await;
    workload(&stage, 1).await;
    for code in [400, 403, 422] {
        let denied = Fault::on("create", "pods/eviction", Effect::Refuse(code)).saying("moved\nby hand");
        stage.cluster.faults().clear();
        stage.cluster.faults().arm(denied.always());
        let plan = stage.run(&["plan", IMAGE, "--drain-nodes", "1"]).await;
        assert_eq!(plan.code, 2, "{code}: {plan:?}");
        assert!(plan.out.contains("\nblocked: n1: default/web-"), "{code}: {}", plan.out);
        assert!(plan.out.contains(": moved by hand\n"), "{code}: {}", plan.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_a_budget_would_block_is_told_before_it_begins() {
    let stage = Stage::new().await;
    labelled(&stage, [""; 3]).await;
    workload(&stage, 0).await;
    let plan = stage.run(&["plan", IMAGE, "--drain-nodes", "1"]).await;
    assert_eq!(plan.code, 2, "{plan:?}");
    assert!(plan.out.contains("1     n1    control plane  drain: 1 blocked\n"), "{}", plan.out);
    assert!(plan.out.contains("\nblocked: n1: default/web-"), "{}", plan.out);
    assert!(
        plan.out.contains(": The disruption budget web needs 3 healthy pods and has 3 currently\n"),
        "{}",
        plan.out
    );
    assert!(
        plan.out.ends_with("it would not run through: the drain of 1 node would be blocked\n"),
        "{}",
        plan.out
    );
    assert_nothing_written(&stage);

    // Without the rights to try, it says that it was not tried, and what is known without.
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["operator.kairos.io"], "resources": ["*"], "verbs": ["get", "list"]},
    ]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "looks"}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "looks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks"},
        "subjects": [{"kind": "ServiceAccount", "name": "guest", "namespace": "default"}]});
    stage.cluster.apply(&role.to_string()).await.unwrap();
    stage.cluster.apply(&binding.to_string()).await.unwrap();
    let guest = stage.cluster.kubeconfig_for("default", "guest").unwrap();
    let plan = run(&guest, None, &["plan", IMAGE]).await;
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(
        plan.out.contains(
            "note: whether the API server takes it was not tried: you may not create NodeOpUpgrades\n"
        ),
        "{}",
        plan.out
    );
    assert!(
        plan.out.contains("note: what budgets say was not tried: you may not create pods/eviction\n"),
        "{}",
        plan.out
    );
    assert!(plan.out.contains("1     n1    control plane  drain: 1 evicted\n"), "{}", plan.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_operation_has_is_waited_for() {
    let stage = Stage::new().await;
    let running = json!({"phase": "Running", "nodeStatuses": {"n2": {"phase": "Running", "step": "Job"}}});
    stage.op("fw", json!({"command": ["fw"], "cordon": true}), running).await;
    let uid = stage.cluster.get("nodeops.operator.kairos.io", "default", "fw").unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    patch_node(
        &stage,
        "n2",
        json!({"metadata": {"annotations": {"operator.kairos.io/claimed-by": format!("default/fw@{uid}")}}}),
    )
    .await;
    stage.op("later", json!({"command": ["uptime"], "concurrency": 1}), Value::Null).await;
    for flags in [["--force"].as_slice(), &["--concurrency", "1"], &["-l", "a=b"]] {
        let plan = stage.run(&[&["plan", "later"], flags].concat()).await;
        assert_eq!((plan.code, plan.out.as_str()), (1, ""), "{plan:?}");
        assert!(
            plan.err.contains("says what a new operation would do, and this one says so itself"),
            "{}",
            plan.err
        );
    }
    let plan = stage.run(&["plan", "later"]).await;
    assert_eq!(plan.code, 2, "{plan:?}");
    assert!(
        plan.out.contains(
            "-     n2                   waiting for NodeOp default/fw, which has claimed the node\n"
        ),
        "{}",
        plan.out
    );
    assert!(plan.out.contains("1     n1    control plane\n2     n3\n"), "{}", plan.out);
    let over = stage.run(&["plan", "fw"]).await;
    assert!(over.out.contains("now   n2"), "{over:?}");

    // A command that takes nothing out of service drains nothing.
    assert!(!plan.out.contains("drain"), "{}", plan.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_checked_as_the_api_server_would() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().unwrap();
    let plan = async |spec: Value, name: &str| {
        let path = dir.path().join("op.yaml");
        let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": name}, "spec": spec});
        std::fs::write(&path, object.to_string()).unwrap();
        stage.run(&["plan", "-f", path.to_str().unwrap()]).await
    };
    let fine = plan(
        json!({"command": ["uptime"], "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n2"}}}),
        "a",
    )
    .await;
    assert_eq!(fine.code, 0, "{fine:?}");
    assert!(
        fine.out.starts_with("nop/a (not created)") && fine.out.ends_with("it would run: 1 node\n"),
        "{}",
        fine.out
    );
    let flat =
        plan(json!({"command": ["uptime"], "nodeSelector": {"kubernetes.io/hostname": "n2"}}), "a").await;
    assert!(
        flat.code == 1 && flat.err.contains("unknown field spec.nodeSelector.kubernetes.io/hostname"),
        "{flat:?}"
    );
    let none = plan(json!({"command": ["uptime"], "nodeSelector": {"matchLabels": {"a": "b"}}}), "a").await;
    assert!(none.code == 2 && none.out.contains("no node matches nodeSelector a=b"), "{none:?}");
    let idle = json!({"command": ["uptime"], "cordon": true, "concurrency": 1, "drainOptions": {"timeoutSeconds": 300}});
    let idle = plan(idle, "a").await;
    assert!(
        idle.out.contains("drainOptions say how, and enabled is not true: no pod is evicted"),
        "{idle:?}"
    );
    let refused = plan(json!({"command": ["uptime"], "drainOptions": {"enabled": true}}), "a").await;
    assert!(refused.code == 2 && refused.out.contains("\nrefused: "), "{refused:?}");
    assert_nothing_written(&stage);

    stage.op("a", json!({"command": ["uptime"]}), json!({"phase": "Completed"})).await;
    let taken = plan(json!({"command": ["uptime"]}), "a").await;
    assert!(taken.code == 2 && taken.out.contains("already exists"), "{taken:?}");
    let over = stage.run(&["plan", "a"]).await;
    assert!(
        over.code == 2 && over.err.starts_with("error: NodeOp default/a is over: Completed\n"),
        "{over:?}"
    );
    let missing = stage.run(&["plan", "-f", "no-such-file"]).await;
    assert!(missing.code == 1 && Path::new("no-such-file").exists().eq(&false), "{missing:?}");
}

/// Of several upgrades the newest comes first, in whichever namespace it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_upgrade_goes_before_an_older_one_and_that_one_waits() {
    let stage = Stage::new().await;
    labelled(&stage, [""; 3]).await;
    let waits = || entry("Pending", None, "waiting for its turn", 60);
    let status = json!({"phase": "Running", "message": "m", "nodeStatuses": {"n1": waits(), "n2": waits(), "n3": waits()}});
    stage.upgrade("old", json!({"image": "kairos:v1", "concurrency": 1}), status.clone()).await;
    let made = json!({"image": "kairos:v1", "concurrency": 1, "cordon": true, "upgrade": {"active": true}});
    stage.child_of("old", made, status).await;
    let file = stage.cluster.dir().join("new.yaml");
    let new = |namespace: &str| {
        json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": "new", "namespace": namespace}, "spec": {"image": IMAGE, "concurrency": 1}})
    };
    std::fs::write(&file, new("default").to_string()).unwrap();
    for words in [["plan", IMAGE].as_slice(), &["plan", "-f", file.to_str().unwrap()], &["plan", "old"]] {
        let plan = stage.run(words).await;
        assert!(plan.code == 0 && plan.out.ends_with("it would run: 3 nodes\n"), "{words:?}: {plan:?}");
    }
    // A command is served as it comes.
    let command = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": "c"},
        "spec": {"command": ["c"], "preflight": {"command": ["c", "--check"]}}});
    std::fs::write(&file, command.to_string()).unwrap();
    let later = stage.run(&["plan", "-f", file.to_str().unwrap()]).await;
    assert!(
        later.code == 2 && later.out.contains("waiting for NodeOp default/old, which is older"),
        "{later:?}"
    );

    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    stage.cluster.apply(&other.to_string()).await.unwrap();
    stage.cluster.apply(&new("other").to_string()).await.unwrap();
    for subject in ["nou/old", "nop/old"] {
        let plan = stage.run(&["plan", subject]).await;
        let waits = "waiting: NodeOpUpgrade other/new, which is newer, has this node";
        assert!(plan.code == 2 && plan.out.contains(waits), "{subject}: {plan:?}");
    }

    // Who may not see other namespaces is told so.
    let role = |name: &str, group: &str, resources: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": [group], "resources": resources, "verbs": ["get", "list"]}]})
    };
    let bound = |kind: &str, name: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "guest", "namespace": "default"}]})
    };
    let mut everywhere = bound("ClusterRoleBinding", "nodes");
    everywhere["metadata"].as_object_mut().unwrap().remove("namespace");
    for object in [
        role("nodes", "", &["nodes"]),
        role("own", "operator.kairos.io", &["nodeops", "nodeopupgrades"]),
        everywhere,
        bound("RoleBinding", "own"),
    ] {
        stage.cluster.apply(&object.to_string()).await.unwrap();
    }
    let guest = stage.cluster.kubeconfig_for("default", "guest").unwrap();
    let plan = run(&guest, None, &["plan", "old", "--drain-nodes", "0"]).await;
    assert!(
        plan.code == 0
            && plan.out.contains("note: NodeOpUpgrades of other namespaces than default are not known: "),
        "{plan:?}"
    );
}

/// Each run of an upgrade has a NodeOp of its own, and so has each round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_of_an_upgrade_is_its_present_run_or_the_one_that_it_asks_for() {
    let stage = Stage::new().await;
    labelled(&stage, [""; 3]).await;
    let over = json!({"phase": "Completed", "nodeStatuses": {"n1": entry("Completed", None, "done", 60)}});
    let present = json!({"phase": "Running", "nodeStatuses": {
        "n2": entry("Running", Some("Job"), "upgrading", 60), "n3": entry("Pending", None, "waiting for its turn", 60)}});
    let mut says = present.clone();
    (says["nodeOpName"], says["observedGeneration"]) = ("up-12345678".into(), 1.into());
    stage.upgrade("up", json!({"image": "kairos:v2", "concurrency": 1}), says).await;
    let upgrades = Api::<NodeOpUpgrade>::default_namespaced(stage.cluster.client());
    let uid = upgrades.get("up").await.unwrap().uid().unwrap();
    run_of(&stage, "up", &uid, over.clone()).await;
    run_of(&stage, "up-12345678", &uid, present).await;
    let plan = stage.run(&["plan", "up"]).await;
    assert!(plan.code == 0 && plan.out.contains("\nnow   n2    under way\n1     n3\n"), "{plan:?}");

    // It is over, and is changed: nobody has made the next run's yet.
    let mut over = over;
    over["nodeStatuses"] =
        json!({"n2": entry("Completed", None, "done", 60), "n3": entry("Completed", None, "done", 60)});
    stage.op_says("up-12345678", over.clone()).await;
    (over["run"], over["nodeOpUid"]) = ("0123456789abcdef".into(), "u".into());
    stage.upgrade_says("up", over).await;
    let change = Patch::Merge(json!({"spec": {"image": "kairos:v3"}}));
    upgrades.patch("up", &PatchParams::default(), &change).await.unwrap();
    let plan = stage.run(&["plan", "up"]).await;
    assert!(plan.code == 0 && plan.out.ends_with("it would run: 3 nodes\n"), "{plan:?}");
}

//! `history`, `check`, `report`, `version` and completion.

use std::{path::Path, process::Stdio, time::Duration};

use kairos_operator::api::nodeop::NodeOp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

use super::stage::{Stage, ago, binary, entry, hours, run, width};

const LONG: Duration = Duration::from_secs(600);

fn over(phase: &str, seconds_ago: i64) -> Value {
    let end = if phase == "Failed" { "Failed" } else { "Complete" };
    json!({"phase": phase, "message": format!("it is {phase}"), "nodeStatuses": {"n1": entry(phase, None, "said of n1", 5)},
        "conditions": [{"type": end, "status": "True", "reason": end, "message": "", "lastTransitionTime": ago(seconds_ago)}],
        "counts": {"total": 1, "pending": 0, "running": 0, "completed": 1, "failed": 0, "done": "1/1"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_what_is_over_the_latest_first() {
    let stage = Stage::new().await;
    assert_eq!(stage.run(&["history"]).await.err, "No operation is over.\n");
    stage.op("first", json!({"command": ["x"]}), over("Completed", hours(20))).await;
    stage.op("second", json!({"command": ["x"]}), over("Failed", hours(10))).await;
    stage.upgrade("now", json!({"image": "i"}), json!({"phase": "Running"})).await;
    let history = stage.run(&["history"]).await;
    let lines: Vec<&str> = history.out.lines().collect();
    assert_eq!(lines[0], "NAME        PHASE      DONE  FAILED  TOOK  ENDED  MESSAGE");
    assert_eq!(lines[1], "nop/second  Failed     1/1   0       0s    10h    it is Failed");
    assert_eq!(lines[2], "nop/first   Completed  1/1   0       0s    20h    it is Completed");
    assert_eq!(lines.len(), 3);
    let of_node = stage.run(&["history", "n1", "--no-headers"]).await.out;
    assert!(of_node.lines().count() == 2 && of_node.contains("said of n1"), "{of_node}");
    assert_eq!(stage.run(&["history", "n2"]).await.out, "");
    let names = stage.run(&["history", "-o", "name"]).await.out;
    assert_eq!(names, "nodeop.operator.kairos.io/second\nnodeop.operator.kairos.io/first\n");
    for columns in [40, 60, 80, 140] {
        let cut = stage.run_at(Some(columns), &["history", "-A", "-o", "wide"]).await.out;
        assert!(width(&cut) <= columns, "{columns}:\n{cut}");
    }
}

async fn lease(stage: &Stage, renewed: i64) {
    lease_in(stage, "operator-system", "operator-1", renewed).await;
}

async fn lease_in(stage: &Stage, namespace: &str, holder: &str, renewed: i64) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "ce9721c3.kairos.io", "namespace": namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": ago(renewed).replace('Z', ".000000Z")}});
    stage.cluster.apply(&lease.to_string()).await.unwrap();
}

/// A Deployment that looks like an operator's, both replicas Ready.
async fn deployment(stage: &Stage, namespace: &'static str) {
    let labels = json!({"app.kubernetes.io/name": "kairos-operator"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "manager", "image": "registry/kairos-operator:v1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "operator-kairos-operator", "namespace": namespace, "labels": labels},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}});
    stage.cluster.apply(&deployment.to_string()).await.unwrap();
    let ready = |deployment: &Value| {
        deployment["metadata"]["namespace"] == namespace && deployment["status"]["readyReplicas"] == 2
    };
    stage.cluster.until("deployments.apps", LONG, ready).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_says_what_is_missing_and_what_one_may_do() {
    let stage = Stage::new().await;
    let none = stage.run(&["check"]).await;
    assert!(
        none.code == 2
            && none
                .out
                .contains("no Deployment in namespace operator-system; another one: --operator-namespace"),
        "{none:?}"
    );
    deployment(&stage, "operator-system").await;
    let nobody = stage.run(&["check"]).await;
    assert!(
        nobody.code == 2 && nobody.out.contains("✗ leader") && nobody.out.contains("nobody leads"),
        "{nobody:?}"
    );
    lease(&stage, 3600).await;
    let gone = stage.run(&["check"]).await;
    assert!(gone.code == 2 && gone.out.contains("operator-1 has not renewed its Lease"), "{gone:?}");
    // Ahead of this machine's clock, so that it lasts for as long as the test takes.
    lease(&stage, -3600).await;
    let fine = stage.run(&["check"]).await;
    assert_eq!(fine.code, 0, "{fine:?}");
    for line in [
        "✓ NodeOp ",
        "✓ NodeOpUpgrade ",
        "✓ operator ",
        ": 2 of 2 Ready, ",
        "✓ leader ",
        "✓ other operators ",
        "✓ create pods/eviction",
    ] {
        assert!(fine.out.contains(line), "{line}: {}", fine.out);
    }
    for columns in [40, 60, 80, 140] {
        assert!(width(&stage.run_at(Some(columns), &["check"]).await.out) <= columns);
    }
    let version = stage.run(&["version"]).await;
    assert!(
        version.code == 0
            && version.out.starts_with(concat!(
                "kubectl-kairos ",
                env!("CARGO_PKG_VERSION"),
                "\nKubernetes v"
            )),
        "{version:?}"
    );
    assert!(version.out.contains("\noperator "), "{version:?}");

    let guest = stage.cluster.kubeconfig_for("default", "guest").unwrap();
    let guest = run(&guest, None, &["check"]).await;
    assert_eq!(guest.code, 2, "{guest:?}");
    assert!(guest.out.contains("you may not; needed by status, history"), "{}", guest.out);
    assert!(
        guest.out.contains("not known: you may not list Deployments in namespace operator-system"),
        "{}",
        guest.out
    );

    assert!(
        guest.out.contains("not known: you may not list leases and deployments in all namespaces"),
        "{}",
        guest.out
    );

    // A Lease holds within its namespace: where the Go operator was installed by Helm, both act.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kairos-operator"}});
    stage.cluster.apply(&namespace.to_string()).await.unwrap();
    for (renewed, code) in [(-3600, 2), (3600, 0)] {
        lease_in(&stage, "kairos-operator", "go-1", renewed).await;
        let both = stage.run(&["check"]).await;
        let says = both.out.contains("✗ other operators")
            && both.out.contains(
                "acting on the same nodes: go-1 in namespace kairos-operator; end it, see docs/migration.md",
            );
        assert_eq!((both.code, says), (code, code == 2), "{both:?}");
    }
    // One of the Go operator's chart with `leaderElect: false` has no Lease.
    deployment(&stage, "kairos-operator").await;
    let both = stage.run(&["check"]).await;
    let said = "acting on the same nodes: Deployment operator-kairos-operator in namespace kairos-operator;";
    assert!(both.code == 2 && both.out.contains(said), "{both:?}");

    // Beside ours it shares the Lease, and which of the two leads is not said by what is Ready.
    let mut beside =
        (*stage.cluster.get("deployments.apps", "operator-system", "operator-kairos-operator").unwrap())
            .clone();
    beside["metadata"] = json!({"name": "kairos-operator", "namespace": "operator-system", "labels": beside["metadata"]["labels"]});
    stage.cluster.apply(&beside.to_string()).await.unwrap();
    let both = stage.run(&["check"]).await;
    let said = "kairos-operator and operator-kairos-operator in namespace operator-system lead in turn;";
    assert!(both.code == 2 && both.out.contains(said), "{both:?}");

    // The Go operator's kinds have the same names and fewer fields.
    let crd = stage
        .cluster
        .get("customresourcedefinitions.apiextensions.k8s.io", "", "nodeops.operator.kairos.io")
        .unwrap();
    let mut crd = (*crd).clone();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        .as_object_mut()
        .unwrap()
        .remove("paused");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
        .as_object_mut()
        .unwrap()
        .remove("images");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        .as_object_mut()
        .unwrap()
        .remove("x-kubernetes-validations");
    let crd = json!({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": {"name": crd["metadata"]["name"]}, "spec": crd["spec"]});
    stage.cluster.apply(&crd.to_string()).await.unwrap();
    let old = stage.run(&["check"]).await;
    assert!(
        old.code == 2
            && old.out.contains(
                "an older one is installed, without spec.paused, status.images: kairos-operator manifests"
            ),
        "{old:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_holds_no_secret_and_no_environment() {
    let stage = Stage::new().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "up1-a", "namespace": "default", "labels": {"kairos.io/nodeop": "up1"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "nodeop", "image": "i", "command": ["x", "hunter2"], "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "stringData": {"a": "hunter2"}});
    stage.cluster.apply(&pod.to_string()).await.unwrap();
    stage.cluster.apply(&secret.to_string()).await.unwrap();
    stage.op("up1", json!({"command": ["x", "--password", "hunter2"]}), over("Failed", 60)).await;
    // Whoever applies objects keeps a copy of them on them: wrangler (k3s), kapp, and whoever comes next.
    let copy = r#"{"spec": {"command": ["x", "--password", "hunter2"]}}"#;
    let annotations = json!({"objectset.rio.cattle.io/applied": copy, "kapp.k14s.io/original": copy, "example.com/kairos.io": copy,
        "operator.kairos.io/run": "1/abc"});
    let marked = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let ops = Api::<NodeOp>::default_namespaced(stage.cluster.client());
    ops.patch("up1", &PatchParams::default(), &marked).await.unwrap();
    let report = stage.run(&["report"]).await;
    assert_eq!(report.code, 0, "{report:?}");
    for part in [
        "kind: KairosReport",
        "name: up1",
        "name: up1-a",
        "name: n1",
        "left out: 3 words",
        "operator.kairos.io/run: 1/abc",
        "annotationsLeftOut: 3",
        "it is Failed",
        "KairosReport",
    ] {
        assert!(report.out.contains(part), "{part}: {}", report.out);
    }
    assert!(!report.out.contains("hunter2") && !report.out.contains("PASSWORD"), "{}", report.out);
    let secrets = |request: &kairos_sim::Request| request.user == "admin" && request.resource == "secrets";
    assert!(!stage.cluster.requests().iter().any(secrets), "no Secret is read");
    assert_eq!(stage.writes(), 0);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.yaml");
    let written = stage.run(&["report", "-A", "-f", file.to_str().unwrap()]).await;
    assert!(written.code == 0 && written.out.contains("read it before you pass it on"), "{written:?}");
    assert!(std::fs::read_to_string(file).unwrap().contains("KairosReport"));
}

/// What kubectl gets for words of which the last is to be completed.
async fn completed(link: &Path, kubeconfig: &Path, words: &[&str]) -> Vec<String> {
    let ended = Command::new(link)
        .args(words)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_completes_verbs_flags_and_names() {
    let stage = Stage::new().await;
    stage.upgrade("up1", json!({"image": "i"}), json!({"phase": "Running"})).await;
    let dir = tempfile::tempdir().unwrap();
    // Of where the plugin was before it was moved.
    std::os::unix::fs::symlink("/nowhere/kubectl-kairos", dir.path().join("kubectl_complete-kairos"))
        .unwrap();
    let installed = stage.run(&["completion", "install", "--directory", dir.path().to_str().unwrap()]).await;
    assert_eq!(installed.code, 0, "{installed:?}");
    let again = stage.run(&["completion", "install", "--directory", dir.path().to_str().unwrap()]).await;
    assert_eq!(again.code, 0, "{again:?}");
    // What is not ours stays.
    let theirs = tempfile::tempdir().unwrap();
    std::fs::write(theirs.path().join("kubectl_complete-kairos"), "theirs").unwrap();
    let kept = stage.run(&["completion", "install", "--directory", theirs.path().to_str().unwrap()]).await;
    assert!(kept.code == 1 && kept.err.contains("is something else"), "{kept:?}");
    assert_eq!(std::fs::read(theirs.path().join("kubectl_complete-kairos")).unwrap(), b"theirs");
    let link = dir.path().join("kubectl_complete-kairos");
    let kubeconfig = stage.cluster.kubeconfig();
    let complete = async |words: &[&str]| completed(&link, &kubeconfig, words).await;
    assert_eq!(
        complete(&["sta"]).await,
        ["status\tShows operations: their nodes, and what each waits for", ":4"]
    );
    assert!(complete(&[""]).await.iter().any(|line| line.starts_with("upgrade\t")));
    assert_eq!(complete(&["status", ""]).await, ["up1\tNodeOpUpgrade Running", ":4"]);
    assert_eq!(complete(&["status", "-n", "elsewhere", ""]).await, [":4"]);
    assert_eq!(complete(&["status", "x"]).await, [":4"]);
    assert_eq!(complete(&["logs", "up1", "n"]).await, ["n1", "n2", "n3", ":4"]);
    // The value of a flag is neither a verb nor an argument of one.
    let up1 = ["up1\tNodeOpUpgrade Running", ":4"];
    for words in [
        &["status", "-n", "default", ""][..],
        &["status", "--namespace=default", ""],
        &["wait", "--timeout", "2h", ""],
        &["logs", "-n", "default", ""],
        &["-n", "default", "--request-timeout", "9m", "status", ""],
        &["status", "-w", ""],
    ] {
        assert_eq!(complete(words).await, up1, "{words:?}");
    }
    assert_eq!(complete(&["logs", "up1", "-n", "default", ""]).await, ["n1", "n2", "n3", ":4"]);
    assert_eq!(complete(&["status", "-o", "j"]).await, ["json", ":4"]);
    assert!(complete(&["status", "--wa"]).await[0].starts_with("--watch\tShow changes"));
    assert!(complete(&["nodes", "-n", "kube-s"]).await.contains(&"kube-system".to_owned()));
    assert_eq!(complete(&["plan", "-f", ""]).await, [":0"]);
    // A cluster that does not answer keeps nobody waiting.
    assert_eq!(completed(&link, Path::new("no-such-file"), &["status", ""]).await, [":4"]);

    let bare = Command::new(binary())
        .args(["version", "--client"])
        .env("KUBECONFIG", "no-such-file")
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(bare.stdout).unwrap(),
        concat!("kubectl-kairos ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

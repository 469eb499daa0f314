//! `wait`, `nodes`, `explain` and `logs`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::stage::{Stage, ago, command, entry, hours, run, width};
use kairos_operator::api::upgrade::NodeOpUpgrade;

const LONG: Duration = Duration::from_secs(600);

fn status(phase: &str, nodes: Value) -> Value {
    let end = if phase == "Failed" { "Failed" } else { "Complete" };
    let over = matches!(phase, "Completed" | "Failed").to_string();
    let over = if over == "true" { "True" } else { "False" };
    json!({"phase": phase, "message": format!("it is {phase}"), "nodeStatuses": nodes,
        "conditions": [{"type": end, "status": over, "reason": "r", "message": "", "lastTransitionTime": ago(600)}],
        "counts": {"total": 3, "pending": 1, "running": 1, "completed": 1, "failed": 0, "done": "1/3", "current": "n2"}})
}

async fn patch_node(stage: &Stage, name: &str, patch: Value) {
    let nodes: Api<Node> = Api::all(stage.cluster.client());
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_with_either_end_or_when_time_is_up() {
    let stage = Stage::new().await;
    stage.upgrade("up1", json!({"image": "i"}), status("Running", json!({}))).await;
    for timeout in ["0", "100ms"] {
        let late = stage.run(&["wait", "up1", "--timeout", timeout]).await;
        assert_eq!((late.code, late.out.as_str()), (124, ""), "{late:?}");
        assert!(
            late.err
                .starts_with("error: nou/up1 is not over after 0s: Running, 1/3 nodes done: it is Running\n"),
            "{late:?}"
        );
    }
    for (end, code) in [("Completed", 0), ("Failed", 1)] {
        stage.upgrade_says("up1", status("Running", json!({}))).await;
        let mut waits = command(&stage.cluster.kubeconfig(), None, &["wait", "nou/up1", "--timeout", "10m"]);
        let waits = waits.stdout(std::process::Stdio::piped()).spawn().unwrap();
        stage.upgrade_says("up1", status(end, json!({}))).await;
        let ended = waits.wait_with_output().await.unwrap();
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), format!("nou/up1 {end}: it is {end}\n"));
    }
    stage.upgrade_says("up1", status("Running", json!({}))).await;
    stage.cluster.clear_requests();
    let mut waits = command(&stage.cluster.kubeconfig(), None, &["wait", "up1"]);
    let waits = waits.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let watches = |request: &kairos_sim::Request| request.verb == "watch" && request.user == "admin";
    while !stage.cluster.requests().iter().any(watches) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let api = Api::<NodeOpUpgrade>::default_namespaced(stage.cluster.client());
    api.delete("up1", &DeleteParams::default()).await.unwrap();
    let ended = waits.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "error: NodeOpUpgrade default/up1 was deleted\n");
}

/// n1 is somebody else's, n2 ours, n3 failed.
async fn cordoned(stage: &Stage) {
    let annotations = |text: &str, key: &str| json!({"metadata": {"annotations": {key: text}}, "spec": {"unschedulable": true}});
    patch_node(stage, "n1", json!({"spec": {"unschedulable": true}})).await;
    patch_node(stage, "n2", annotations("default/up1@u", "operator.kairos.io/cordoned-by")).await;
    patch_node(
        stage,
        "n2",
        json!({"metadata": {"annotations": {
        "operator.kairos.io/claimed-by": "default/up1@u",
        "operator.kairos.io/release": "v3.4.2-k3sv1.30.11+k3s1",
        "operator.kairos.io/boot-state": "active_boot"}}}),
    )
    .await;
    patch_node(stage, "n3", annotations("default/old@u!failed", "operator.kairos.io/cordoned-by")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_say_what_they_run_and_whose_their_cordons_are() {
    let stage = Stage::new().await;
    cordoned(&stage).await;
    let nodes = stage.run(&["nodes"]).await;
    let rows = [
        "NODE  READY  RELEASE                  BOOT         CLAIMED-BY   CORDONED-BY",
        "n1    True   -                        -            -            others",
        "n2    True   v3.4.2-k3sv1.30.11+k3s1  active_boot  default/up1  default/up1",
        "n3    True   -                        -            -            default/old (failed)",
    ];
    assert_eq!((nodes.code, nodes.out.lines().collect::<Vec<_>>()), (0, rows.to_vec()));
    for columns in [40, 60, 80, 140] {
        for form in ["table", "wide"] {
            let cut = stage.run_at(Some(columns), &["nodes", "-o", form]).await.out;
            assert!(width(&cut) <= columns, "{columns}:\n{cut}");
        }
    }
    let one: Value = serde_json::from_str(
        &stage.run(&["nodes", "-l", "kubernetes.io/hostname=n2", "-o", "json"]).await.out,
    )
    .unwrap();
    assert_eq!(
        (&one[0]["name"], &one[0]["claimedBy"], &one[1]),
        (&json!("n2"), &json!("default/up1"), &Value::Null)
    );
    assert_eq!(stage.run(&["nodes", "-o", "name"]).await.out, "node/n1\nnode/n2\nnode/n3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_explained_by_what_each_operation_says_of_it() {
    let stage = Stage::new().await;
    cordoned(&stage).await;
    let nodes = json!({"n2": entry("Running", Some("Drain"), "draining: 1 pod to go", hours(10)), "n3": entry("Pending", None, "waiting for its turn", hours(10))});
    stage.upgrade("up1", json!({"image": "i"}), status("Running", nodes)).await;
    let selector = json!({"matchLabels": {"zone": "a"}});
    stage
        .op(
            "fw",
            json!({"command": ["fw"], "nodeSelector": selector}),
            status("Running", json!({"n9": {"phase": "Running"}})),
        )
        .await;
    stage
        .op(
            "old",
            json!({"command": ["fw"]}),
            status("Failed", json!({"n3": entry("Failed", None, "Job failed: exit code 3", hours(12))})),
        )
        .await;

    let n2 = stage.run(&["explain", "node/n2"]).await;
    assert_eq!(n2.code, 0, "{n2:?}");
    let lines = [
        "node n2: Ready, runs v3.4.2-k3sv1.30.11+k3s1, booted active_boot",
        "Claimed by NodeOp default/up1: no other operation takes the node.",
        "Cordoned by NodeOp default/up1, which uncordons it.",
        "nop/fw in default: not about this node: nodeSelector zone=a does not match",
        "nou/up1 in default: Drain for 10h: draining: 1 pod to go",
    ];
    let mut said: Vec<&str> = n2.out.lines().collect();
    said[3..].sort_unstable();
    assert_eq!(said, lines);

    // Its NodeOp is gone and has left its cordon: nobody but an operator takes that off.
    let gone = json!({"metadata": {"annotations": {"operator.kairos.io/cordoned-by": "ops/gone@u",
        "operator.kairos.io/claimed-by": "ops/gone@u"}}});
    patch_node(&stage, "n2", gone).await;
    let n2 = stage.run(&["explain", "n2"]).await.out;
    let lines: Vec<&str> = n2.lines().skip(1).take(2).collect();
    let check = "kubectl kairos check says whether one runs";
    assert_eq!(
        lines,
        [
            format!("Claimed by NodeOp ops/gone, which is gone: the operator takes the claim off ({check})."),
            format!(
                "Cordoned by NodeOp ops/gone, which is gone: the operator takes the cordon off ({check})."
            ),
        ]
    );

    let n3 = stage.run(&["explain", "n3"]).await.out;
    assert!(
        n3.contains(
            "Still cordoned, since NodeOp default/old failed on it. Look at it, then: kubectl uncordon n3\n"
        ),
        "{n3}"
    );
    assert!(n3.contains("last: nop/old in default: Failed, 12h ago: Job failed: exit code 3\n"), "{n3}");
    let n1 = stage.run(&["explain", "n1"]).await.out;
    assert!(
        n1.contains("Ready, control plane\nCordoned by somebody else: no operation uncordons it.\n"),
        "{n1}"
    );
    assert!(n1.contains("nou/up1 in default: not about this node: it joined, or got its labels, after the nodes were chosen\n"), "{n1}");
    patch_node(&stage, "n1", json!({"metadata": {"labels": {"kairos.io/hold": ""}}})).await;
    let n1 = stage.run(&["explain", "n1"]).await.out;
    assert!(n1.contains("\nHeld by the label kairos.io/hold: no operation takes it. To let it go: kubectl label node n1 kairos.io/hold-\n"), "{n1}");
    let none = stage.run(&["explain", "n9"]).await;
    assert!(
        none.code == 1 && none.err == "error: there is no node n9\nWhich there are: kubectl kairos nodes\n",
        "{none:?}"
    );
    for columns in [40, 60, 80, 140] {
        assert!(width(&stage.run_at(Some(columns), &["explain", "n3"]).await.out) <= columns);
    }
}

/// The first operator of a new user is one whose image cannot be pulled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_operator_has_looked_at_says_so_everywhere() {
    let stage = Stage::new().await;
    stage.op("fw", json!({"command": ["fw"]}), Value::Null).await;
    stage.upgrade("up1", json!({"image": "i"}), Value::Null).await;
    // What the schema puts into a status that is written for kstatus.
    stage.upgrade("up2", json!({"image": "i"}), json!({"observedGeneration": -1})).await;
    let said = "no operator has looked at it yet: kubectl kairos check says whether one runs";
    for name in ["nop/fw", "nou/up1", "nou/up2"] {
        let status = stage.run(&["status", name]).await.out;
        assert!(status.contains(said), "{name}: {status}");
        let wait = stage.run(&["wait", name, "--timeout", "0"]).await;
        assert!(wait.code == 124 && wait.err.contains(said), "{name}: {wait:?}");
    }
    let explained = stage.run(&["explain", "n1"]).await.out;
    assert_eq!(explained.matches(said).count(), 3, "{explained}");

    // One that runs, and was changed since an operator has looked.
    let running = json!({"phase": "Running", "message": "1 in progress", "observedGeneration": 1});
    stage.upgrade_says("up1", running).await;
    assert!(!stage.run(&["status", "up1"]).await.out.contains("has looked"));
    let upgrades = Api::<NodeOpUpgrade>::default_namespaced(stage.cluster.client());
    let change = Patch::Merge(json!({"spec": {"paused": true}}));
    upgrades.patch("up1", &PatchParams::default(), &change).await.unwrap();
    let changed = stage.run(&["status", "up1"]).await.out;
    let said =
        "1 in progress; its spec was changed, and no operator has looked at that yet: kubectl kairos check";
    assert!(changed.contains(said), "{changed}");
}

/// The pods of a Job that the Go operator made have no label of the operation's: its Job alone tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_a_node_that_was_adopted_are_those_of_its_job() {
    let stage = Stage::new().await;
    let mut adopted = entry("Running", Some("Job"), "Job is running", 60);
    adopted["jobName"] = "up1-n1-x".into();
    stage.upgrade("up1", json!({"image": "i"}), status("Running", json!({"n1": adopted}))).await;
    for (name, node, job) in [("theirs", "n1", "up1-n1-x"), ("strangers", "n2", "up1-n2-x")] {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"batch.kubernetes.io/job-name": job}},
            "spec": {"nodeName": node, "restartPolicy": "Never",
                "containers": [{"name": "nodeop", "image": "i", "command": ["sh", "-c", format!("echo {name} > /dev/termination-log; exit 0")]}]}});
        stage.cluster.apply(&object.to_string()).await.unwrap();
        let over = |pod: &Value| pod["metadata"]["name"] == name && pod["status"]["phase"] == "Succeeded";
        stage.cluster.until("pods", LONG, over).await.unwrap();
    }
    let said = "==> theirs on n1: nodeop, exit code 0\ntheirs\n";
    for words in [&["logs", "up1"][..], &["logs", "up1", "n1"]] {
        assert_eq!(stage.run(words).await.out, said, "{words:?}");
    }
    let report = stage.run(&["report"]).await.out;
    assert!(report.contains("name: theirs") && !report.contains("name: strangers"), "{report}");
}

/// A pod of an operation whose command and sentinel ended with these words.
async fn pod(stage: &Stage, name: &str, node: &str, command: (&str, i32), sentinel: Option<&str>) {
    let container = |name: &str, text: &str, code: i32| json!({"name": name, "image": "i", "command": ["sh", "-c", format!("echo {text} > /dev/termination-log; exit {code}")]});
    let last = sentinel.map_or_else(
        || container("sentinel-creator", "never", 0),
        |said| container("sentinel-creator", said, 0),
    );
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"kairos.io/nodeop": "up1"}, "annotations": {"operator.kairos.io/node-name": node}},
        "spec": {"nodeName": node, "restartPolicy": "Never", "initContainers": [container("nodeop", command.0, command.1)], "containers": [last]}});
    stage.cluster.apply(&pod.to_string()).await.unwrap();
    let over = |pod: &Value| {
        pod["metadata"]["name"] == name
            && matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    };
    stage.cluster.until("pods", LONG, over).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_of_all_tries_with_the_command_first() {
    let stage = Stage::new().await;
    stage.upgrade("up1", json!({"image": "i"}), status("Failed", json!({"n1": entry("Completed", None, "", 5), "n2": entry("Failed", None, "Job failed", 5), "n3": entry("Pending", None, "not started: node n2 failed (stopOnFailure)", 5)}))).await;
    pod(&stage, "up1-a", "n1", ("upgraded", 0), Some("boot one")).await;
    pod(&stage, "up1-b1", "n2", ("no space left", 1), None).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    pod(&stage, "up1-b2", "n2", ("still no space left", 1), None).await;
    let all = stage.run(&["logs", "up1"]).await;
    // kubectl's own words for all lines.
    for words in [&["logs", "up1", "--tail=-1"][..], &["logs", "up1", "--tail", "-1"]] {
        assert_eq!(stage.run(words).await.out, all.out, "{words:?}");
    }
    let lines = [
        "n1 | ==> up1-a on n1: nodeop, exit code 0",
        "n1 | upgraded",
        "n1 | ==> up1-a on n1: sentinel-creator, exit code 0",
        "n1 | boot one",
        "n2 | ==> up1-b1 on n2: nodeop, exit code 1",
        "n2 | no space left",
        "n2 | ==> up1-b2 on n2: nodeop, exit code 1",
        "n2 | still no space left",
    ];
    assert_eq!((all.code, all.out.lines().collect::<Vec<_>>()), (0, lines.to_vec()), "{all:?}");
    let one = stage.run(&["logs", "nou/up1", "n2"]).await;
    assert!(one.out.starts_with("==> up1-b1 on n2: nodeop, exit code 1\nno space left\n"), "{one:?}");
    let followed = stage.run(&["logs", "up1", "n1", "-f"]).await;
    let mut lines: Vec<&str> = followed.out.lines().collect();
    lines.sort_unstable();
    assert_eq!((followed.code, lines), (0, vec!["n1 nodeop | upgraded", "n1 sentinel-creator | boot one"]));
    let none = stage.run(&["logs", "up1", "n3"]).await;
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(
        none.err.contains("on node n3") && none.err.contains("not started: node n2 failed"),
        "{}",
        none.err
    );

    let nobody = stage.cluster.kubeconfig_for("default", "nobody").unwrap();
    let refused = run(&nobody, None, &["logs", "up1"]).await;
    assert!(refused.code == 1 && refused.err.contains("is forbidden"), "{refused:?}");
}

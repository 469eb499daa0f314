//! `status`: the tree, the tables, and what follows a rollout to its end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::stage::{Stage, ago, command, entry, hours, width};

const DONE: &str = "Job and reboot completed successfully: upgraded to v3.5.0-k3sv1.30.11+k3s1";

fn spec() -> Value {
    json!({"image": "kairos:v3.5.0", "concurrency": 1})
}

/// n1 is done, n2 is blocked, n3 waits.
fn under_way() -> Value {
    let blocked = format!(
        "draining: blocked: default/web-sim-bxfxd since {}: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 1 healthy pods and has 1 currently",
        ago(hours(9))
    );
    json!({"phase": "Running", "message": "1 of 3 nodes completed, 1 in progress",
    "counts": {"total": 3, "pending": 1, "running": 1, "completed": 1, "failed": 0, "done": "1/3", "current": "n2"},
    "nodeStatuses": {
        "n1": entry("Completed", None, DONE, hours(10)),
        "n2": entry("Running", Some("Drain"), &blocked, hours(9)),
        "n3": entry("Pending", None, "waiting for its turn", hours(10)),
    }})
}

fn over(phase: &str) -> Value {
    let end = if phase == "Failed" { "Failed" } else { "Complete" };
    let failed = i32::from(phase == "Failed");
    json!({"phase": phase, "message": "it is over",
        "conditions": [{"type": end, "status": "True", "reason": end, "message": "", "lastTransitionTime": ago(hours(12))}],
        "counts": {"total": 1, "pending": 0, "running": 0, "completed": 1 - failed, "failed": failed, "done": "1/1"},
        "nodeStatuses": {"n1": entry(phase, None, DONE, hours(12))}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_a_tree_of_its_nodes_and_fits_any_width() {
    let stage = Stage::new().await;
    stage.upgrade("up1", spec(), under_way()).await;
    let tree = stage.run(&["status", "up1"]).await;
    assert_eq!((tree.code, tree.err.as_str()), (0, ""));
    let lines: Vec<&str> = tree.out.lines().collect();
    assert!(lines[0].starts_with("● nou/up1  Running  1/3 done  for "), "{}", tree.out);
    assert_eq!(lines[1], "│  1 of 3 nodes completed, 1 in progress");
    assert_eq!(lines[2], format!("├─ ✓ n1  control plane  Completed  10h ago  {DONE}"));
    let blocked = "├─ ● n2                 Drain      for 9h   draining: blocked: default/web-sim-bxfxd for 9h: Cannot evict";
    assert!(lines[3].starts_with(blocked), "{}", tree.out);
    assert_eq!(lines[4], "└─ · n3                 Pending             waiting for its turn");
    assert!(!tree.out.contains('\u{1b}'), "a pipe has no colours");

    for columns in [40, 60, 80, 140] {
        let cut = stage.run_at(Some(columns), &["status", "up1"]).await.out;
        assert!(width(&cut) <= columns, "{columns}:\n{cut}");
        let blocked = cut.lines().nth(3).unwrap();
        assert!(blocked.contains("draining: blocked") && blocked.ends_with('…'), "{columns}:\n{cut}");
        let table = stage.run_at(Some(columns), &["status", "up1", "-o", "wide"]).await.out;
        assert!(width(&table) <= columns, "{columns}:\n{table}");
    }
    let coloured = stage.run(&["status", "up1", "--color", "always"]).await.out;
    assert!(coloured.contains("\u{1b}[32m✓ n1\u{1b}[0m"), "{coloured:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_named_and_printed_as_kubectl_does() {
    let stage = Stage::new().await;
    let none = stage.run(&["status"]).await;
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert_eq!(none.err, "No operations found in namespace default.\n");
    stage.op("fw", json!({"command": ["uptime"]}), over("Failed")).await;
    stage.upgrade("up1", spec(), under_way()).await;

    for name in ["up1", "nou/up1", "nodeopupgrade/up1", "nodeopupgrades.operator.kairos.io/up1"] {
        let named = stage.run(&["status", name, "-o", "name"]).await;
        assert_eq!(
            (named.code, named.out.as_str()),
            (0, "nodeopupgrade.operator.kairos.io/up1\n"),
            "{named:?}"
        );
    }
    let all = stage.run(&["status", "-o", "name"]).await.out;
    let mut all: Vec<&str> = all.lines().collect();
    all.sort_unstable();
    assert_eq!(all, ["nodeop.operator.kairos.io/fw", "nodeopupgrade.operator.kairos.io/up1"]);
    assert_eq!(stage.run(&["status", "-n", "elsewhere"]).await.out, "");
    assert!(stage.run(&["status", "-n", "elsewhere", "-A"]).await.out.contains("nou/up1 in default"));

    let table = stage.run(&["status", "-A", "-o", "table"]).await.out;
    assert!(table.starts_with("NAMESPACE  NAME     PHASE    DONE  FAILED  CURRENT  AGE\n"), "{table}");
    let bare = stage.run(&["status", "-A", "-o", "table", "--no-headers"]).await.out;
    assert_eq!(bare.lines().count(), 2, "{bare}");
    let nodes = stage.run(&["status", "up1", "-o", "table", "--no-headers"]).await.out;
    assert!(nodes.starts_with("n1  Completed         10h  Job and reboot"), "{nodes}");

    let object: Value = serde_json::from_str(&stage.run(&["status", "up1", "-o", "json"]).await.out).unwrap();
    assert_eq!((&object["kind"], &object["status"]["phase"]), (&json!("NodeOpUpgrade"), &json!("Running")));
    let list: Value = serde_json::from_str(&stage.run(&["status", "-o", "json"]).await.out).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), 2));
    let yaml = stage.run(&["status", "nop/fw", "-o", "yaml"]).await;
    assert!(yaml.out.contains("\nkind: NodeOp\n") && yaml.code == 1, "{yaml:?}");
    let kyaml = stage.run(&["status", "-o", "kyaml"]).await.out;
    assert!(kyaml.starts_with("---\n{\n  apiVersion: \"v1\",\n  items: [{\n    apiVersion: "), "{kyaml}");
    assert_eq!(serde_saphyr::from_str::<Value>(&kyaml).unwrap(), list);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_shows_what_failed_and_says_so_by_its_exit_code() {
    let stage = Stage::new().await;
    stage.op("good", json!({"command": ["uptime"]}), over("Completed")).await;
    stage.op("bad", json!({"command": ["uptime"]}), over("Failed")).await;
    let all = stage.run(&["status"]).await;
    assert_eq!(all.code, 0);
    assert!(
        all.out.contains("✓ nop/good  Completed  1/1 done  12h ago  uptime\n   it is over\n"),
        "{}",
        all.out
    );
    assert!(
        all.out.contains("✗ nop/bad  Failed  1/1 done, 1 failed  12h ago  uptime\n│  it is over\n└─ ✗ n1"),
        "{}",
        all.out
    );
    assert_eq!((stage.run(&["status", "good"]).await.code, stage.run(&["status", "bad"]).await.code), (0, 1));
    // What others write keeps to its line, and gives the terminal no orders.
    stage.op("odd", json!({"command": ["sh", "-c", "a\n\u{1b}[2Jb"]}), over("Completed")).await;
    let odd = stage.run(&["status", "odd"]).await.out;
    assert!(odd.starts_with("✓ nop/odd  Completed  1/1 done  12h ago  sh -c a [2Jb\n"), "{odd:?}");
    for (name, code) in [("good", 0), ("bad", 1)] {
        assert_eq!(stage.run(&["status", name, "-w"]).await.code, code, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_followed_to_its_end_with_a_line_for_each_change() {
    let stage = Stage::new().await;
    stage.upgrade("up1", spec(), under_way()).await;
    let mut follows = command(&stage.cluster.kubeconfig(), None, &["status", "up1", "-w"]);
    let mut child = follows.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    while !told.iter().any(|line: &String| line.contains("1 of 3 nodes completed")) {
        told.push(lines.next_line().await.unwrap().unwrap());
    }
    assert_eq!(told[2], "nou/up1  n3  Pending  waiting for its turn");
    stage.upgrade_says("up1", over("Completed")).await;
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push(line);
    }
    assert_eq!(rest, ["nou/up1  Completed  1/1  it is over"], "what stays as it was is not told again");
    let ended = tokio::time::timeout(Duration::from_secs(600), child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// The upgrade copies what its NodeOp says of the nodes every few seconds only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrades_nodes_are_shown_as_its_nodeop_has_them() {
    let stage = Stage::new().await;
    stage.upgrade("up1", spec(), under_way()).await;
    stage.child_of("up1", json!({"command": []}), under_way()).await;
    let mut follows = command(&stage.cluster.kubeconfig(), None, &["status", "up1", "-w"]);
    let mut child = follows.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("1 of 3 nodes completed") {}
    let entries = json!({"nodeStatuses": {"n2": entry("Running", Some("Reboot"), "the node reboots", 0)}});
    stage.op_says("up1", entries).await;
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "nou/up1  n2  Reboot  the node reboots");
    stage.upgrade_says("up1", over("Completed")).await;
    while lines.next_line().await.unwrap().is_some() {}
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_thousands_of_nodes_those_that_matter_are_shown() {
    let stage = Stage::new().await;
    let mut status = under_way();
    for number in 1000..1200 {
        status["nodeStatuses"][format!("m{number}")] = entry("Completed", None, DONE, 60);
    }
    status["nodeStatuses"]["z"] = entry("Failed", None, "Job failed", 60);
    status["counts"]["total"] = 204.into();
    stage.upgrade("up1", spec(), status).await;
    let tree = stage.run(&["status", "up1"]).await.out;
    assert_eq!(tree.lines().count(), 53, "{tree}");
    assert!(tree.contains("● n2") && tree.contains("✗ z") && tree.contains("· n3"), "{tree}");
    // What it says to run shows all, from wherever it was said.
    for words in [&["status", "up1"][..], &["status"], &["status", "-A", "-n", "elsewhere"]] {
        let tree = stage.run(words).await.out;
        let (_, hint) = tree.rsplit_once("└─ … and 154 more: 154 completed (kubectl kairos ").unwrap();
        let hint = hint.strip_suffix(" shows all)\n").unwrap_or_else(|| panic!("{words:?}: {tree}"));
        let all = stage.run(&hint.split(' ').collect::<Vec<_>>()).await.out;
        assert_eq!(all.lines().count(), 205, "{words:?}: {hint}");
    }
}

//! What the manual says of taking the operator away, done by kubectl as it stands there.
//!
//! kubectl is looked for as in [`crate::install`].

use std::{collections::BTreeMap, fs, process::Command};

use k8s_openapi::api::core::v1::Node;
use kairos_operator::api::names;
use kairos_sim::Cluster;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::tidy::scan::root;

/// The blocks of commands of a section of the manual, each as a script.
fn scripts(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| format!("set -euo pipefail\n{}", block.replace("\n$ ", "\n").trim_start_matches("$ ")))
        .collect()
}

/// Runs a script where `kubectl` is the one that was found, and returns what it prints.
fn run(cluster: &Cluster, tools: &str, script: &str) -> String {
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("PATH", path).env("KUBECONFIG", cluster.kubeconfig());
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const AUTOSCALER: &str = names::KEEPS_FROM_SCALE_DOWN[0].0;
const KARPENTER: &str = names::KEEPS_FROM_SCALE_DOWN[1].0;
const LABELS: [&str; 2] = [names::NOT_BALANCED, names::NOT_REMEDIATED];

/// What an operation leaves on a node, or a person does.
fn marks(unschedulable: bool, annotations: &[(&str, &str)], labels: &[&str]) -> Value {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let labels: BTreeMap<_, _> = labels.iter().map(|name| (*name, "true")).collect();
    json!({"metadata": {"annotations": annotations, "labels": labels}, "spec": {"unschedulable": unschedulable}})
}

async fn mark(cluster: &Cluster, node: &str, marks: &Value) {
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(marks)).await.unwrap();
}

/// The marks of a node as they are: whether it is cordoned, and which of these stand on it.
fn stand(cluster: &Cluster, node: &str) -> (bool, Vec<&'static str>) {
    let node = cluster.get("nodes", "", node).unwrap();
    let annotations = [
        names::CLAIMED_BY,
        names::CORDONED_BY,
        names::AUTOSCALER_HINTS,
        AUTOSCALER,
        KARPENTER,
        names::RELEASE,
    ];
    let mut stand: Vec<&str> =
        annotations.into_iter().filter(|name| node["metadata"]["annotations"][name].is_string()).collect();
    stand.extend(LABELS.into_iter().filter(|name| node["metadata"]["labels"][name].is_string()));
    (node["spec"]["unschedulable"] == true, stand)
}

const LIFECYCLE: [&str; 3] = [
    names::node_condition::MAINTENANCE_IN_PROGRESS,
    names::node_condition::DRAIN_IN_PROGRESS,
    names::node_condition::DRAINED,
];

/// Has a node say all that there is to say of an operation, in the name of this one.
async fn say(cluster: &Cluster, node: &str, by: &str) {
    let condition = |kind: &&str| json!({"type": kind, "status": "True", "reason": "NodeOp", "message": format!("{by}the node is drained")});
    let conditions: Vec<Value> = LIFECYCLE.iter().map(condition).collect();
    let nodes: Api<Node> = Api::all(cluster.client());
    let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
    nodes.patch_status(node, &PatchParams::default(), &patch).await.unwrap();
}

/// How much of that stands on the node.
fn said(cluster: &Cluster, node: &str) -> usize {
    let node = cluster.get("nodes", "", node).unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    conditions.iter().filter(|condition| LIFECYCLE.contains(&condition["type"].as_str().unwrap())).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_manual_says_of_removal_leaves_no_node_cordoned_or_out_of_load_balancers_for_ever() {
    let Some(tools) = std::env::var_os("KAIROS_TOOLS").and_then(|tools| tools.into_string().ok()) else {
        eprintln!("KAIROS_TOOLS names no directory with kubectl: not tested");
        return;
    };
    let cluster = Cluster::builder().nodes(5).control_planes(1).start().await.unwrap();
    let hints = |names: &[&str]| {
        let before: BTreeMap<_, _> = names.iter().map(|name| (*name, Value::Null)).collect();
        json!({"by": "default/op@u", "before": before}).to_string()
    };
    let all = hints(&[AUTOSCALER, KARPENTER, names::NOT_BALANCED, names::NOT_REMEDIATED]);
    let label = hints(&[names::NOT_BALANCED]);
    let (op, failed) = ("default/op@u", "default/op@u!failed!deleted");
    // In progress.
    let held = [
        (names::CLAIMED_BY, op),
        (names::CORDONED_BY, op),
        (names::AUTOSCALER_HINTS, &all),
        (AUTOSCALER, "true"),
        (KARPENTER, "true"),
        (names::RELEASE, "v3.4.2"),
    ];
    mark(&cluster, "n1", &marks(true, &held, &LABELS)).await;
    // A person's own.
    let own = marks(true, &[(AUTOSCALER, "true"), (names::RELEASE, "v3.4.2")], &LABELS);
    mark(&cluster, "n2", &own).await;
    // Failed, and given back. One of them was never taken out of load balancers; a person has asked
    // autoscalers to leave it.
    let out = [(names::CORDONED_BY, failed), (names::AUTOSCALER_HINTS, &label)];
    mark(&cluster, "n3", &marks(true, &out, &LABELS[..1])).await;
    mark(&cluster, "n4", &marks(true, &[(names::CORDONED_BY, failed), (AUTOSCALER, "true")], &[])).await;

    // What nodes say of operations; a person drains another one, and says so in the same words.
    say(&cluster, "n1", &format!("{op}: ")).await;
    say(&cluster, "n2", "kubectl: ").await;

    let scripts = scripts("Remove it\n");
    let [_, by_force, afterwards] = scripts.as_slice() else { panic!("{scripts:#?}") };
    // The NodeOps are another matter.
    let by_force = format!("set -euo pipefail\n{}", by_force.split_once("done\n").unwrap().1);
    run(&cluster, &tools, &by_force);
    let n2 = (true, vec![AUTOSCALER, names::RELEASE, names::NOT_BALANCED, names::NOT_REMEDIATED]);
    assert_eq!(stand(&cluster, "n1"), (false, vec![names::RELEASE]));
    assert_eq!(stand(&cluster, "n2"), n2);
    assert_eq!(
        stand(&cluster, "n3"),
        (true, vec![names::CORDONED_BY, names::AUTOSCALER_HINTS, names::NOT_BALANCED])
    );
    assert_eq!(stand(&cluster, "n4"), (true, vec![names::CORDONED_BY, AUTOSCALER]));
    assert_eq!(stand(&cluster, "n5"), (false, vec![]));
    assert_eq!((said(&cluster, "n1"), said(&cluster, "n2")), (0, LIFECYCLE.len()));

    let shown = run(&cluster, &tools, afterwards);
    let listed: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains("!failed"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(listed, ["n3", "n4"], "{shown}");
    assert_eq!(stand(&cluster, "n3"), (false, vec![]));
    assert_eq!(
        (stand(&cluster, "n2"), stand(&cluster, "n4")),
        (n2, (true, vec![names::CORDONED_BY, AUTOSCALER]))
    );
}

//! NodeOps that go well: order, limits, what a human cordoned, several at once, and silence afterwards.

use std::time::Duration;

use kairos_sim::{Cluster, Request};
use serde_json::{Value, json};

use super::rig::{OPERATOR, Rig, and, reboot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_runs_the_command_once_and_boots_once_and_nothing_is_left() {
    let rig = Rig::new(4).await;
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true}}))).await;
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], &status["counts"]["done"]),
        (&json!("Completed"), &json!("4/4")),
        "{status:#}"
    );
    for node in ["n1", "n2", "n3", "n4"] {
        assert_eq!((rig.commands(node), rig.reboots(node)), (1, 1), "{node}");
        assert_eq!(status["nodeStatuses"][node]["rebootStatus"], "completed");
    }
    let (order, most) = rig.claims();
    assert_eq!((order.join(" "), most), ("n1 n2 n3 n4".into(), 1));
    assert_eq!(rig.left(), [""; 0]);
    nothing_was_refused(&rig.cluster);
}

/// The printed ClusterRole is enough, and a waiter asks for no more than its own Role says.
fn nothing_was_refused(cluster: &Cluster) {
    let requests = cluster.requests();
    let refused: Vec<&Request> = requests.iter().filter(|r| r.code == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let waiters: Vec<&Request> =
        requests.iter().filter(|r| r.user.starts_with("system:serviceaccount:default:")).collect();
    let allowed = |r: &&&Request| {
        let (verb, resource) = (r.verb.as_str(), r.resource.as_str());
        matches!(
            (verb, resource),
            ("get" | "patch", "pods")
                | ("get" | "list" | "watch", "jobs.batch")
                | ("create", "events.events.k8s.io")
        )
    };
    assert!(!waiters.is_empty());
    let others: Vec<_> = waiters.iter().filter(|r| !allowed(r)).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(
        requests.iter().any(|r| r.user == OPERATOR && r.is_write()),
        "it was the operator's account that acted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_all_workers_are_in_progress_at_once() {
    let rig = Rig::with(Cluster::builder().nodes(4)).await;
    let spec =
        json!({"image": "busybox:1", "command": ["sh", "-c", "sleep 1"], "cordon": true, "concurrency": 0});
    rig.op("op", spec).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert_eq!(rig.claims().1, 4);
    assert_eq!((rig.commands("n3"), rig.reboots("n3")), (1, 0));
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_humans_cordon_is_kept_and_a_humans_uncordon_is_undone() {
    let rig = Rig::new(2).await;
    rig.patch_node("n2", json!({"spec": {"unschedulable": true}})).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 1"]}))).await;
    rig.in_step("op", "n1", "Job").await;
    rig.patch_node("n1", json!({"spec": {"unschedulable": false}})).await;
    rig.cluster
        .until("nodes", super::rig::LONG, |n| {
            n["metadata"]["name"] == "n1" && n["spec"]["unschedulable"] == true
        })
        .await
        .unwrap();
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert_eq!((rig.is_cordoned("n1"), rig.is_cordoned("n2"), rig.reboots("n2")), (false, true, 1));
    assert_eq!(rig.left(), ["n2: cordoned"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_operations_on_the_same_nodes_never_share_one() {
    let rig = Rig::with(Cluster::builder().nodes(3).control_planes(1)).await;
    let names: Vec<String> = (0..5).map(|n| format!("op{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        rig.op(name, json!({"image": "busybox:1", "command": ["sh", "-c", "sleep 0.1"], "cordon": true, "concurrency": n % 3})).await;
    }
    for name in &names {
        assert_eq!(rig.over(name).await["phase"], "Completed", "{name}");
    }
    assert_eq!(["n1", "n2", "n3"].map(|node| rig.commands(node)), [5, 5, 5]);
    // Preflights disturb nobody, and run on nodes of others, too.
    let looks = |pod: &Value| pod["metadata"]["labels"]["kairos.io/preflight"] == "true";
    for change in rig.cluster.history().iter().filter(|c| {
        c.key.table.as_ref() == "pods" && c.object["status"]["phase"] == "Running" && !looks(&c.object)
    }) {
        let (node, ours) = (
            change.object["spec"]["nodeName"].as_str().unwrap(),
            &change.object["metadata"]["labels"]["kairos.io/nodeop"],
        );
        let claim = claim_at(&rig, node, change.version);
        assert!(
            ours.is_null() || claim.contains(ours.as_str().unwrap()),
            "{ours} runs on {node}, which is claimed by {claim}"
        );
    }
    assert_eq!(rig.left(), [""; 0]);
}

/// Who had claimed a node when a version of the store was made.
fn claim_at(rig: &Rig, node: &str, version: u64) -> String {
    let history = rig.cluster.history();
    let before = history
        .iter()
        .rev()
        .find(|c| c.key.table.as_ref() == "nodes" && c.key.name == node && c.version <= version);
    before
        .and_then(|c| c.object["metadata"]["annotations"]["operator.kairos.io/claimed-by"].as_str())
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest_nothing_is_asked() {
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1)).await;
    rig.start(&["--leader-elect"]);
    rig.labelled().await;
    rig.op("op", and(reboot(), json!({"concurrency": 0}))).await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    rig.labelled().await;
    // It comes to rest as soon as the machine lets it. What is asked for regularly is asked for in each of
    // these times.
    for left in (0..20).rev() {
        rig.cluster.clear_requests();
        tokio::time::sleep(Duration::from_secs(6)).await;
        if rig.requests().is_empty() {
            break;
        }
        assert_ne!(left, 0, "{:#?}", rig.requests());
    }
    assert!(rig.cluster.requests().iter().any(|r| r.resource.starts_with("leases")), "it is alive");
}

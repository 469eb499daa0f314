//! Preflights: a node that needs nothing is skipped, one whose check fails is failed, and neither is touched.
//! A check that fails at first and then passes has passed.

use kairos_sim::Outcome;
use serde_json::json;

use super::rig::{Rig, and, reboot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skip_fail_and_proceed() {
    let rig = Rig::new(3).await;
    rig.cluster.script(|run| {
        let (code, words) = match run.node.as_str() {
            "n1" => (0, "nothing to do"),
            "n2" => (7, "disk is broken"),
            _ if run.restarts < 2 => (1, "not yet"),
            _ => (0, ""),
        };
        (run.container.name == "preflight")
            .then(|| Outcome::Exit(std::time::Duration::from_millis(50), code, words.into()))
    });
    let check = json!({"preflight": {"command": ["check"], "activeDeadlineSeconds": 5}});
    rig.op("op", and(reboot(), check)).await;
    let status = rig.over("op").await;
    let says = |node: &str| {
        let node = &status["nodeStatuses"][node];
        (
            node["phase"].as_str().unwrap_or_default().to_owned(),
            node["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(says("n1"), ("Completed".into(), "Skipped by preflight: nothing to do".into()));
    assert_eq!(
        says("n2"),
        (
            "Failed".into(),
            "Preflight failed: no try succeeded in 5 s, the last one ended with exit code 7: disk is broken \
             (see docs: preflight-failed)"
                .into()
        )
    );
    assert_eq!(says("n3").0, "Completed");
    assert_eq!(["n1", "n2", "n3"].map(|n| (rig.commands(n), rig.reboots(n))), [(0, 0), (0, 0), (1, 1)]);
    assert_eq!(rig.claims().0, ["n3"], "the others were never taken");
    let preflights = rig
        .cluster
        .list("pods")
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["kairos.io/preflight"] == "true")
        .count();
    assert_eq!((preflights, rig.left().len()), (0, 0));
}

/// It stood claimed, cordoned and drained for half an hour, and all other operations behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_no_node_gets_takes_none_and_keeps_no_other_operation_waiting() {
    let rig = Rig::new(2).await;
    rig.cluster
        .script(|run| (run.container.image.as_deref() == Some("busybx:1")).then_some(Outcome::NoImage));
    let misspelt = json!({"image": "busybx:1", "command": ["true"], "pullTimeoutSeconds": 30});
    rig.op("plain", misspelt.clone()).await;
    rig.op("reboots", and(reboot(), misspelt)).await;
    for name in ["plain", "reboots"] {
        rig.says(name, "n1", "Preflight cannot start yet: ").await;
    }
    rig.op("other", reboot()).await;
    assert_eq!(rig.over("other").await["phase"], "Completed");
    assert!(!rig.is_over("plain") && !rig.is_over("reboots"), "they still wait for their image");
    for name in ["plain", "reboots"] {
        let status = rig.over(name).await;
        assert_eq!(
            (&status["phase"], &status["counts"]["failed"]),
            (&json!("Failed"), &json!(2)),
            "{status:#}"
        );
        let said = status["nodeStatuses"]["n2"]["message"].as_str().unwrap_or_default();
        assert!(said.starts_with("Preflight failed: no start in 30 s: "), "{said}");
    }
    assert_eq!(["n1", "n2"].map(|node| (rig.commands(node), rig.reboots(node))), [(1, 1); 2]);
    assert_eq!(rig.left(), [""; 0]);
}

/// A rollback, applied while the upgrade runs: "already at this release" is true of a node in the old boot,
/// and not for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_another_operation_has_is_not_looked_at() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    rig.hold_reboots();
    rig.upgrade("to-new", "v3.5.0").await;
    rig.in_step("to-new", "n1", "Reboot").await;
    // Of two that are made within one second the name says which is the newer one.
    rig.upgrade("undo", "v3.4.2").await;
    rig.says("undo", "n1", "waiting for NodeOp default/to-new, which has claimed the node").await;
    let of_undo = |labels: &serde_json::Value| {
        labels["kairos.io/preflight"] == "true" && labels["kairos.io/nodeop"] == "undo"
    };
    assert_eq!(rig.cluster.list("pods").iter().filter(|pod| of_undo(&pod["metadata"]["labels"])).count(), 0);
    rig.cluster.faults().clear();
    assert_eq!(rig.over("to-new").await["phase"], "Completed");
    let undo = rig.over("undo").await;
    let message = undo["nodeStatuses"]["n1"]["message"].as_str().unwrap_or_default();
    assert!(!message.contains("already at"), "{message}");
}

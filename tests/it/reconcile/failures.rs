//! Commands that fail: what is stopped, what stays cordoned, what is never rebooted.

use serde_json::{Value, json};

use super::rig::{LONG, Rig, and, reboot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_nothing_new_starts_if_so_asked() {
    let rig = Rig::new(3).await;
    rig.op(
        "op",
        and(reboot(), json!({"command": ["sh", "-c", "exit 3"], "backoffLimit": 1, "stopOnFailure": true})),
    )
    .await;
    let status = rig.over("op").await;
    let n1 = &status["nodeStatuses"]["n1"];
    assert_eq!(
        (&status["phase"], &n1["phase"], &n1["rebootStatus"]),
        (&json!("Failed"), &json!("Failed"), &json!("cancelled"))
    );
    assert!(n1["message"].as_str().unwrap().contains("exit code 3"), "{n1}");
    assert_eq!(status["nodeStatuses"]["n2"]["phase"], "Pending");
    assert_eq!(["n1", "n2", "n3"].map(|n| (rig.commands(n), rig.reboots(n))), [(2, 0), (0, 0), (0, 0)]);
    assert_eq!(rig.claims().0, ["n1"]);
    assert!(rig.is_cordoned("n1"), "for somebody to look at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_go_on_and_a_failed_node_is_uncordoned_if_so_asked() {
    let rig = Rig::new(3).await;
    rig.cluster.script(|run| {
        (run.container.name == "nodeop" && run.node == "n2").then(|| kairos_sim::Outcome::code(1))
    });
    rig.op("op", and(reboot(), json!({"backoffLimit": 0, "uncordonOnFailure": true}))).await;
    let status = rig.over("op").await;
    assert_eq!((&status["phase"], &status["counts"]["failed"]), (&json!("Failed"), &json!(1)), "{status:#}");
    assert_eq!(["n1", "n2", "n3"].map(|n| (rig.commands(n), rig.reboots(n))), [(1, 1), (1, 0), (1, 1)]);
    assert_eq!(rig.left(), [""; 0]);
}

/// `backoffLimit` counts tries of the operation, and a pod that its node had no room for is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_is_waited_for_without_a_try_to_spare() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    let node = rig.cluster.node("n3");
    let words =
        "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 7, capacity: 7";
    node.refuse_pods(Some(("OutOfpods", words.into())));
    // Another one speaks for the image, so that n3 has no preflight.
    let both = json!({"command": ["true"], "backoffLimit": 0, "concurrency": 1, "preflightConcurrency": 1});
    rig.op("op", both.clone()).await;
    rig.says("op", "n3", &format!("the Job's pod cannot start yet: OutOfpods: {words}")).await;
    // It may be gone by now.
    let history = rig.cluster.history();
    let of_n3 = |job: &Value| job["metadata"]["annotations"]["operator.kairos.io/node-name"] == "n3";
    let mut jobs = history.iter().filter(|change| change.key.table.as_ref() == "jobs.batch");
    let first = jobs.find(|change| of_n3(&change.object)).unwrap().object["metadata"]["uid"].clone();
    rig.cluster.until("jobs.batch", LONG, |job| of_n3(job) && job["metadata"]["uid"] != first).await.unwrap();
    node.refuse_pods(None);
    assert_eq!(rig.over("op").await["phase"], "Completed");
    // One that is given up for it was never touched.
    node.refuse_pods(Some(("OutOfpods", words.into())));
    rig.op("given-up", and(both, json!({"pullTimeoutSeconds": 6}))).await;
    let status = rig.over("given-up").await;
    let message = status["nodeStatuses"]["n3"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("the Job's pod could not start in 6 s: OutOfpods"), "{message}");
}

/// A runtime fails at one of a hundred starts under load. Neither a check nor a command has been run then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_the_runtime_could_not_start_is_tried_again() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    let node = rig.cluster.node("n3");
    let words = "failed to create containerd task: OCI runtime create failed: cgroup.procs: no such file or directory";
    for (name, spec, told) in [
        ("checked", json!({"preflight": {"command": ["true"]}}), "Preflight cannot start yet"),
        // Another one speaks for the image, so that n3 has no preflight.
        ("plain", json!({"preflightConcurrency": 1}), "the Job's pod cannot start yet"),
    ] {
        node.fail_starts(Some(words));
        rig.op(name, and(spec, json!({"command": ["true"], "backoffLimit": 0, "concurrency": 1}))).await;
        rig.says(name, "n3", told).await;
        rig.says(name, "n3", words).await;
        node.fail_starts(None);
        let status = rig.over(name).await;
        assert_eq!(status["phase"], "Completed", "{status:#}");
        assert_eq!(rig.commands("n3"), if name == "plain" { 2 } else { 1 });
    }
}

/// The container after the command, which records that it succeeded and for which the waiter waits, is one of
/// those hundred: the command must not run again, and the reboot must not be forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_whose_record_could_not_be_started_is_recorded_later_and_the_node_reboots_once() {
    let rig = Rig::new(1).await;
    let node = rig.cluster.node("n1");
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 2"], "backoffLimit": 0}))).await;
    rig.command_runs("n1").await;
    node.fail_starts(Some("OCI runtime create failed: cgroup.procs: no such file or directory"));
    rig.says("op", "n1", "the operation has succeeded, and that is still to be recorded").await;
    node.fail_starts(None);
    let status = rig.over("op").await;
    assert_eq!(status["phase"], "Completed", "{status:#}");
    assert_eq!((rig.commands("n1"), rig.reboots("n1"), rig.left()), (1, 1, Vec::new()));
}

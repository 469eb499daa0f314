//! Containers that a webhook puts into our pods: what they do is nothing that the operation did.

use std::time::Duration;

use kairos_sim::Outcome;
use serde_json::{Value, json};

use super::rig::{Rig, and, reboot};

/// Every pod of a Job gets this container, the first one of its init containers or the last of the others,
/// and it does this. It heeds no mark.
fn inject(
    rig: &Rig,
    part: &'static str,
    name: &'static str,
    does: impl Fn() -> Outcome + Send + Sync + 'static,
) {
    rig.cluster.admission().mutate(move |table, object| {
        let is_of_a_job = object["metadata"]["ownerReferences"][0]["kind"] == "Job";
        if table != "pods" || !is_of_a_job {
            return;
        }
        let added = json!({"name": name, "image": "apm:1"});
        let list = &mut object["spec"][part];
        match list.as_array_mut() {
            Some(list) if part == "initContainers" => list.insert(0, added),
            Some(list) => list.push(added),
            None => *list = Value::Array(vec![added]),
        }
    });
    rig.cluster.script(move |run| (run.container.name == name).then(&does));
}

/// Its init container has run and ended; the command's image is not to be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_container_of_somebody_else_that_ran_is_no_beginning_of_the_operation() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    inject(&rig, "initContainers", "apm-init", || Outcome::code(0));
    rig.cluster.script(|run| (run.container.name == "nodeop").then_some(Outcome::NoImage));
    rig.op("op", and(reboot(), json!({"pullTimeoutSeconds": 20}))).await;
    rig.says("op", "n1", "the Job's pod cannot start yet: ImagePullBackOff").await;
    let status = rig.over("op").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.starts_with("the Job's pod could not start in 20 s: ImagePullBackOff"), "{message}");
    assert_eq!((rig.reboots("n1"), rig.left()), (0, Vec::new()), "it is given back, untouched");
}

/// It does not end, and ours wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_somebody_else_that_ours_wait_for_is_named() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    inject(&rig, "initContainers", "apm-init", || Outcome::Exit(Duration::from_secs(25), 0, String::new()));
    rig.op("op", reboot()).await;
    rig.says("op", "n1", "container apm-init, which is not ours, runs in it").await;
    assert_eq!(rig.over("op").await["phase"], "Completed");
    assert_eq!((rig.commands("n1"), rig.reboots("n1"), rig.left()), (1, 1, Vec::new()));
}

/// The operation succeeds, and a container of somebody else has crashed by then: the Job controller would try
/// again what has succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_succeeded_beside_a_container_that_crashed_runs_once() {
    let rig = Rig::new(2).await;
    rig.labelled().await;
    inject(&rig, "containers", "apm", || Outcome::Exit(Duration::from_millis(300), 1, "no licence".into()));
    let on = |node: &str| json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": node}}});
    rig.op("plain", and(on("n1"), json!({"command": ["sh", "-c", "sleep 2"]}))).await;
    rig.op("reboots", and(reboot(), on("n2"))).await;
    for (name, node, reboots) in [("plain", "n1", 0), ("reboots", "n2", 1)] {
        let status = rig.over(name).await;
        assert_eq!(status["phase"], "Completed", "{status:#}");
        assert_eq!((rig.commands(node), rig.reboots(node)), (1, reboots), "{status:#}");
    }
    let plain = rig.status("plain");
    let message = plain["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.contains("container apm, which is not ours, failed beside it"), "{message}");
    assert_eq!(rig.left(), [""; 0]);
}

/// A container of somebody else that fails before ours begin costs no try, and a command that fails is tried
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_are_those_of_the_operation_alone() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    let times = std::sync::atomic::AtomicI32::new(0);
    inject(&rig, "initContainers", "apm-init", move || {
        let first = times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        Outcome::code(i32::from(first))
    });
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "exit 3"], "backoffLimit": 1}))).await;
    let status = rig.over("op").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Job failed (BackoffLimitExceeded") && message.contains("exit code 3"),
        "{message}"
    );
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (2, 0));
}

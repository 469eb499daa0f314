//! Containers that a webhook puts into our pods: what they do is nothing that the operation did.

use std::time::Duration;

use kairos_sim::Outcome;
use serde_json::{Value, json};

use super::rig::{Rig, and, reboot};

/// Every pod of a Job gets this container, the first one of its init containers or the last of the others, and
/// it does this. It heeds no mark.
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

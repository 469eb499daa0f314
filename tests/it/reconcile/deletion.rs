//! A NodeOp that is deleted, at every step: nothing is left of it, and nothing reboots that was not asked to any more.

use std::time::Duration;

use kairos_sim::{Effect, Fault};
use serde_json::json;

use super::{
    drains::{BLOCKED, blocker},
    rig::{LONG, OPS, Rig, and, reboot},
};

async fn gone(rig: &Rig) {
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap_or_else(|error| panic!("{error:#}: {:#}", rig.status("op")));
    for table in ["roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "serviceaccounts"] {
        let ours = |o: &serde_json::Value| !o["metadata"]["labels"]["kairos.io/nodeop"].is_null();
        rig.cluster.until_none(table, LONG, ours).await.unwrap();
    }
    let ours = |pod: &serde_json::Value| !pod["metadata"]["labels"]["kairos.io/nodeop"].is_null();
    rig.cluster.until_none("pods", LONG, ours).await.unwrap();
    assert_eq!(rig.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_claimed() {
    let rig = Rig::new(2).await;
    rig.cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(500)).named("n1").times(3));
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Claim").await;
    rig.delete("op").await;
    gone(&rig).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_drained() {
    let rig = Rig::new(1).await;
    rig.cluster.apply(&blocker("n1")).await.unwrap();
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))).await;
    rig.says("op", "n1", BLOCKED).await;
    rig.delete("op").await;
    gone(&rig).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_command_runs() {
    let rig = Rig::new(2).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"]}))).await;
    rig.command_runs("n1").await;
    rig.delete("op").await;
    gone(&rig).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1"), rig.reboots("n2")), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_reboot_is_due() {
    let rig = Rig::new(1).await;
    rig.hold_reboots();
    rig.op("op", reboot()).await;
    rig.in_step("op", "n1", "Reboot").await;
    rig.delete("op").await;
    gone(&rig).await;
    rig.cluster.faults().clear();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.commands("n1"), rig.reboots("n1")), (1, 0), "its reboot was cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_is_there_to_see_it() {
    let mut rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"]}))).await;
    rig.command_runs("n1").await;
    rig.operators[0].kill();
    rig.delete("op").await;
    rig.start(&[]);
    gone(&rig).await;
    assert_eq!(rig.reboots("n1"), 0);
}

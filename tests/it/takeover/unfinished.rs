//! NodeOps that it called over while a node was still in progress: nobody else gets that node before it is
//! done.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::{
    api::nodeop::{NodeOp, NodeStatus, Phase, RebootStatus},
    plan::model::{
        action::Action,
        id::OpRef,
        snapshot::{JobState, NodeView, PodPhase, Role, Snapshot},
    },
};
use serde_json::{Value, json};

use super::{at, carried::carried_out, job, pod, world};

fn node(s: &mut Snapshot, name: &str, change: impl FnOnce(&mut NodeView)) {
    let mut node = (*s.nodes[name]).clone();
    change(&mut node);
    s.nodes.insert(name.into(), Arc::new(node));
}

/// The NodeOp's cordon of a node, as newer versions of the Go operator mark it.
fn cordoned(s: &mut Snapshot, name: &str) {
    let me = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
    node(s, name, |node| (node.unschedulable, node.cordoned_by) = (true, Some(me)));
}

/// Another NodeOp, of our time, that wants one node.
fn later(s: &mut Snapshot, name: &str) {
    node(s, name, |node| drop(node.labels.insert("only".into(), "later".into())));
    let mut op: NodeOp = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "later", "namespace": "ns", "uid": "later", "generation": 1},
        "spec": {"command": ["true"], "cordon": true, "nodeSelector": {"matchLabels": {"only": "later"}}},
    }))
    .unwrap();
    op.metadata.creation_timestamp = Some(Time(at(100)));
    s.ops.insert(OpRef::of(&op).key(), Arc::new(op));
}

fn claims(s: &Snapshot, name: &str) -> Option<String> {
    s.nodes[name].claimed_by.as_ref().map(|by| by.name.clone())
}

fn entry(s: &Snapshot, op: &str, name: &str) -> NodeStatus {
    let status = s.ops[&("ns".to_owned(), op.to_owned())].status.clone().unwrap();
    status.node_statuses.get(name).unwrap().clone()
}

fn phase(s: &Snapshot) -> Option<Phase> {
    s.ops[&("ns".to_owned(), "op".to_owned())].status.as_ref().unwrap().phase
}

fn job_name(node: &str) -> String {
    format!("op-{node}-x7k2q")
}

/// n1 failed, so the whole is `Failed`; n2 is as this entry says.
fn failed_beside(n2: Value) -> Snapshot {
    let n1 = json!({"phase": "Failed", "jobName": job_name("n1"), "rebootStatus": "not-requested"});
    let mut s = world(
        json!({"concurrency": 0, "cordon": true}),
        json!({"phase": "Failed", "nodeStatuses": {"n1": n1, "n2": n2}}),
    );
    job(&mut s, "n1", JobState::Failed("BackoffLimitExceeded".into()));
    cordoned(&mut s, "n1");
    cordoned(&mut s, "n2");
    s
}

/// As it writes at the first failure, while its other Jobs go on.
#[test]
fn a_node_on_which_its_job_still_runs_is_taken_by_nobody_else() {
    let n2 = json!({"phase": "Running", "jobName": job_name("n2"), "rebootStatus": "not-requested"});
    for entry_of_n2 in [n2, json!({"phase": "Pending", "jobName": job_name("n2")})] {
        let mut s = failed_beside(entry_of_n2);
        job(&mut s, "n2", JobState::Active);
        later(&mut s, "n2");
        let waits = |s: &Snapshot| {
            assert_ne!(claims(s, "n2").as_deref(), Some("later"), "its Job runs");
            assert!(s.nodes["n2"].unschedulable, "it is given back under its Job");
        };
        carried_out(&mut s, waits);
        assert_eq!((claims(&s, "n2").as_deref(), phase(&s)), (Some("op"), Some(Phase::Running)));
        assert_eq!(entry(&s, "later", "n2").phase, Phase::Pending);

        job(&mut s, "n2", JobState::Complete);
        carried_out(&mut s, |_| {});
        assert_eq!((entry(&s, "op", "n2").phase, phase(&s)), (Phase::Completed, Some(Phase::Failed)));
        assert_eq!(claims(&s, "n2").as_deref(), Some("later"), "then it is its turn");
        assert!(s.nodes["n1"].unschedulable, "what failed stays for somebody to look at");
        let entries = s.ops[&("ns".to_owned(), "op".to_owned())].status.clone().unwrap().node_statuses;
        assert_eq!(entries.len(), 2, "one that is over takes no further node: {entries:?}");
    }
}

/// It made the Job of the next node, wrote that down, and was cut off before it had corrected the phase.
#[test]
fn a_node_that_it_had_just_begun_is_not_given_back_under_its_job() {
    let mut s = world(
        json!({"cordon": true, "rebootOnSuccess": true}),
        json!({"phase": "Completed", "nodeStatuses": {
            "n1": {"phase": "Completed", "jobName": job_name("n1"), "rebootStatus": "completed"},
            "n2": {"phase": "Pending", "jobName": job_name("n2"), "rebootStatus": "pending"},
        }}),
    );
    cordoned(&mut s, "n2");
    job(&mut s, "n2", JobState::Active);
    pod(&mut s, "n2", Role::Waiter, PodPhase::Running, None);
    let wanted = carried_out(&mut s, |s| assert!(s.nodes["n2"].unschedulable, "its Job runs"));
    let ends = |action: &Action| matches!(action, Action::DeletePod { .. } | Action::DeleteJob { .. });
    assert!(!wanted.iter().any(ends), "{wanted:?}");
    job(&mut s, "n2", JobState::Complete);
    carried_out(&mut s, |s| assert!(s.nodes["n2"].unschedulable, "its reboot is to come"));
    node(&mut s, "n2", |node| node.boot_id = "b2".into());
    carried_out(&mut s, |_| {});
    let n2 = entry(&s, "op", "n2");
    assert_eq!((n2.phase, n2.reboot_status), (Phase::Completed, Some(RebootStatus::Completed)));
    assert_eq!((phase(&s), s.nodes["n2"].unschedulable), (Some(Phase::Completed), false));
}

/// It makes a Job, and writes that down afterwards: whatever its status says, and whenever it is taken over,
/// the Job tells.
#[test]
fn a_job_of_which_nothing_is_written_keeps_its_node_too() {
    for before in ["Completed", "Failed", "Running"] {
        let n1 = json!({"phase": "Completed", "jobName": job_name("n1")});
        let mut s = world(json!({}), json!({"phase": before, "nodeStatuses": {"n1": n1}}));
        job(&mut s, "n2", JobState::Active);
        later(&mut s, "n2");
        let none = |s: &Snapshot| assert_ne!(claims(s, "n2").as_deref(), Some("later"), "{before}");
        carried_out(&mut s, none);
        let why = entry(&s, "later", "n2").message.unwrap();
        assert!(why.contains("op-n2-x7k2q") || why.contains("has claimed"), "{why}");
        job(&mut s, "n2", JobState::Complete);
        carried_out(&mut s, |_| {});
        assert_eq!(claims(&s, "n2").as_deref(), Some("later"), "{before}: {:?}", entry(&s, "later", "n2"));
    }
}

/// Of three control-plane nodes n2 was in progress when n1 failed, and its Job has failed since.
#[test]
fn a_control_plane_node_that_it_left_in_progress_keeps_no_other_one_waiting_for_ever() {
    let n2 = json!({"phase": "Running", "jobName": job_name("n2"), "rebootStatus": "not-requested"});
    let mut s = failed_beside(n2);
    for name in ["n1", "n2", "n3"] {
        node(&mut s, name, |node| {
            node.labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
            (node.etcd_votes, node.ready_changed) = (Some(true), Some(at(-600)));
        });
    }
    job(&mut s, "n2", JobState::Failed("BackoffLimitExceeded".into()));
    later(&mut s, "n3");
    carried_out(&mut s, |_| {});
    assert_eq!((entry(&s, "op", "n2").phase, phase(&s)), (Phase::Failed, Some(Phase::Failed)));
    assert_eq!(claims(&s, "n3").as_deref(), Some("later"), "{:?}", entry(&s, "later", "n3").message);
    assert!(s.nodes["n1"].unschedulable && s.nodes["n2"].unschedulable);
}

//! What was found when the Go operator was replaced for real, in the middle of its rollouts.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::{
    api::{
        names,
        nodeop::{Phase, RebootStatus, Step},
    },
    plan::model::{
        action::Action,
        id::OpRef,
        object_name,
        snapshot::{ContainerState, ContainerView, JobState, NodeView, PodPhase, PodView, Role, Snapshot},
    },
};
use serde_json::json;

use super::{at, entry, in_progress, job, planned, pod, status, until_stable};

/// The NodeOp's cordon of n1, with the Go operator's annotation or without it.
pub fn cordoned(s: &mut Snapshot, annotated: bool) {
    let me = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
    let n1 =
        NodeView { unschedulable: true, cordoned_by: annotated.then_some(me), ..(*s.nodes["n1"]).clone() };
    s.nodes.insert("n1".into(), Arc::new(n1));
}

/// n1 in another boot.
fn boots(s: &mut Snapshot, boot: &str) {
    let back = NodeView { boot_id: boot.into(), ..(*s.nodes["n1"]).clone() };
    s.nodes.insert("n1".into(), Arc::new(back));
}

/// The container of n1's reboot pod, in its first run or in a later one.
fn runs(s: &mut Snapshot, restarts: i32) {
    let key = ("ns".to_owned(), "op-waiter-n1-p9w4z".to_owned());
    let state = ContainerState::Running { since: at(20) };
    let containers = vec![ContainerView { restarts, ..ContainerView::new("reboot", state) }];
    s.pods.insert(key.clone(), Arc::new(PodView { containers, ..(*s.pods[&key]).clone() }));
}

/// The Go operator says `Completed` while the reboot is still to come.
#[test]
fn nothing_is_given_back_before_its_reboot_pod_has_done_its_part() {
    for phase in ["Running", "Failed"] {
        let mut s = in_progress(
            json!({"rebootOnSuccess": true, "cordon": true}),
            json!({"phase": "Completed", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
        );
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*s.ops[&key]).clone();
        op.status.as_mut().unwrap().phase = serde_json::from_value(json!(phase)).unwrap();
        s.ops.insert(key, Arc::new(op));
        cordoned(&mut s, true);
        job(&mut s, "n1", JobState::Complete);
        pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
        let wanted = until_stable(&mut s);
        let ends = |action: &&Action| match action {
            Action::DeletePod { .. } | Action::DeleteJob { .. } => true,
            Action::PatchNode { change, .. } => {
                change.unschedulable.is_some() || change.cordoned_by.is_some()
            }
            _ => false,
        };
        assert_eq!(wanted.iter().find(ends), None, "{phase}");
    }
}

#[test]
fn a_reboot_pod_that_has_said_so_and_is_in_its_first_run_still_reboots() {
    let entry_of_it = json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"});
    let mut s = in_progress(json!({"rebootOnSuccess": true}), entry_of_it.clone());
    job(&mut s, "n1", JobState::Complete);
    pod(&mut s, "n1", Role::Waiter, PodPhase::Running, Some("completed"));
    runs(&mut s, 0);
    let wanted = until_stable(&mut s);
    assert_eq!((entry(&s, "n1").step, entry(&s, "n1").boot.as_deref()), (Some(Step::Reboot), Some("b1")));
    assert!(!wanted.iter().any(|action| matches!(action, Action::DeletePod { .. })), "{wanted:?}");
    let mut came = s.clone();
    boots(&mut came, "b2");
    until_stable(&mut came);
    assert_eq!(
        (entry(&came, "n1").phase, entry(&came, "n1").reboot_status),
        (Phase::Completed, Some(RebootStatus::Completed))
    );
    // It ran again, and no other boot shows: what we took for the boot to be left was the new one.
    runs(&mut s, 1);
    until_stable(&mut s);
    assert!(entry(&s, "n1").message.unwrap().contains("not proved"));

    let mut late = in_progress(json!({"rebootOnSuccess": true}), entry_of_it);
    job(&mut late, "n1", JobState::Complete);
    pod(&mut late, "n1", Role::Waiter, PodPhase::Running, Some("completed"));
    runs(&mut late, 1);
    until_stable(&mut late);
    late.pods.clear();
    until_stable(&mut late);
    assert_eq!(entry(&late, "n1").phase, Phase::Failed);
}

#[test]
fn a_node_is_held_until_the_pods_of_a_job_that_it_made_have_gone() {
    let mut s = in_progress(json!({}), json!({"phase": "Running", "jobName": "op-n1-x7k2q"}));
    job(&mut s, "n1", JobState::Active);
    until_stable(&mut s);
    let key = ("ns".to_owned(), "op".to_owned());
    let mut op = (*s.ops[&key]).clone();
    // Without one the NodeOp would be gone at once; the Go operator set its own only where a reboot was
    // asked.
    assert!(op.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER));
    op.metadata.deletion_timestamp = Some(Time(at(200)));
    s.ops.insert(key, Arc::new(op));
    // Its pods carry no label, and no watch shows them.
    let wanted = planned(&mut s).actions;
    assert!(
        wanted.iter().any(|action| matches!(action, Action::DeleteJob { after_its_pods: true, .. })),
        "{wanted:?}"
    );
}

#[test]
fn its_upgrades_are_upgrades() {
    let mut s = in_progress(
        json!({"rebootOnSuccess": true}),
        json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
    );
    let key = ("ns".to_owned(), "op".to_owned());
    let mut op = (*s.ops[&key]).clone();
    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "op", "uid": "uu", "controller": true}]);
    op.metadata.owner_references = serde_json::from_value(owner).unwrap();
    s.ops.insert(key.clone(), Arc::new(op.clone()));
    job(&mut s, "n1", JobState::Active);
    pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
    until_stable(&mut s);

    let mut deleted = s.clone();
    op.status = deleted.ops[&key].status.clone();
    op.metadata.deletion_timestamp = Some(Time(at(310)));
    deleted.ops.insert(key, Arc::new(op));
    let wanted = until_stable(&mut deleted);
    assert!(
        !wanted.iter().any(|action| matches!(action, Action::DeleteJob { .. })),
        "an agent is not stopped: {wanted:?}"
    );

    job(&mut s, "n1", JobState::Complete);
    until_stable(&mut s);
    boots(&mut s, "b2");
    until_stable(&mut s);
    assert_eq!(entry(&s, "n1").step, Some(Step::Verify), "what the node runs is looked at");
}

#[test]
fn a_cordon_that_nobody_answers_for_is_left_and_named() {
    for annotated in [true, false] {
        let mut s =
            in_progress(json!({"cordon": true}), json!({"phase": "Running", "jobName": "op-n1-x7k2q"}));
        cordoned(&mut s, annotated);
        job(&mut s, "n1", JobState::Active);
        until_stable(&mut s);
        job(&mut s, "n1", JobState::Complete);
        until_stable(&mut s);
        let message = entry(&s, "n1").message.unwrap();
        assert_eq!(message.contains("kubectl uncordon n1"), !annotated, "{message}");
    }
}

/// The CRDs of the Go operator, applied over ours, leave nothing in a status that tells it from the Go
/// operator's; and no record is kept of what is decided then.
#[test]
fn a_waiter_of_ours_is_not_ended_before_that_its_node_is_taken_over_is_recorded() {
    let mut s = in_progress(
        json!({"rebootOnSuccess": true, "cordon": true}),
        json!({"phase": "Running", "jobName": "j"}),
    );
    cordoned(&mut s, true);
    let me = s.nodes["n1"].cordoned_by.clone();
    let n1 = NodeView { claimed_by: me, ..(*s.nodes["n1"]).clone() };
    s.nodes.insert("n1".into(), Arc::new(n1));
    pod(&mut s, "n1", Role::Waiter, PodPhase::Running, Some("waiting"));
    let gone = ("ns".to_owned(), "op-waiter-n1-p9w4z".to_owned());
    let name = object_name::object(("op", "u"), "n1", "reboot", 0);
    let ours = PodView { name: name.clone(), ..(*s.pods[&gone]).clone() };
    s.pods.retain(|_, _| false);
    s.pods.insert(("ns".into(), name), Arc::new(ours));
    let ends = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::DeletePod { .. }));
    let out = planned(&mut s);
    assert!(!ends(&out.actions) && status(&out).is_some(), "{:?}", out.actions);
    assert!(ends(&until_stable(&mut s)), "it is ended when its node is given back");
    assert_eq!(entry(&s, "n1").phase, Phase::Failed);
}

//! Tests of what a NodeOpUpgrade makes and says of its first run.

mod edits;
mod killed;
mod pinned;
mod rounds;
mod tried;
mod world;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        child,
        upgrade::{NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::model::{
        action::{Action, Steering},
        question::Answer,
    },
};

fn upgrade(status: Value) -> NodeOpUpgrade {
    serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": "up", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "5"},
        "spec": {"image": "kairos:v2", "concurrency": 1}, "status": status,
    }))
    .unwrap()
}

fn op(of: &NodeOpUpgrade, uid: &str) -> NodeOp {
    let mut op = child::first(of);
    op.metadata.uid = Some(uid.into());
    op
}

fn snapshot_of(upgrade: NodeOpUpgrade, child: Option<NodeOp>) -> Snapshot {
    let key: Key = ("ns".into(), "up".into());
    Snapshot {
        now: Timestamp::from_second(1_000_000).unwrap(),
        upgrades: [(key.clone(), Arc::new(upgrade))].into(),
        ops: child.map(|child| (key, Arc::new(child))).into_iter().collect(),
        ..Snapshot::default()
    }
}

fn planned(snapshot: &Snapshot) -> (Effects, Option<NodeOpUpgradeStatus>) {
    let out = plan_upgrades(snapshot);
    let status = out.actions.iter().find_map(|action| match action {
        Action::PatchUpgradeStatus { status, .. } => Some(status.as_ref().clone()),
        _ => None,
    });
    (out, status)
}

#[test]
fn the_child_is_announced_then_made_and_starts_only_when_its_uid_is_recorded() {
    let (out, status) = planned(&snapshot_of(upgrade(json!(null)), None));
    assert_eq!(status.as_ref().unwrap().phase, Some(UpgradePhase::Initializing));
    assert_eq!(out.actions.len(), 1, "nothing is made before that is written");

    let announced = upgrade(serde_json::to_value(status.unwrap()).unwrap());
    let (out, _) = planned(&snapshot_of(announced.clone(), None));
    assert!(matches!(out.actions[..], [Action::CreateChild { .. }]), "{:?}", out.actions);

    let snapshot = snapshot_of(announced.clone(), Some(op(&announced, "child")));
    let starts = |snapshot: &Snapshot| {
        let op = &snapshot.ops[&("ns".into(), "up".into())];
        may_start(maker(snapshot, op).map(AsRef::as_ref), op)
    };
    assert!(!starts(&snapshot));
    let (_, status) = planned(&snapshot);
    let recorded = upgrade(serde_json::to_value(status.unwrap()).unwrap());
    let snapshot = snapshot_of(recorded.clone(), Some(op(&recorded, "child")));
    assert!(starts(&snapshot));
    assert!(planned(&snapshot).0.actions.is_empty(), "and nothing is written twice");
}

#[test]
fn a_child_that_was_deleted_is_never_made_again() {
    let mut snapshot =
        snapshot_of(upgrade(json!({"phase": "Running", "nodeOpName": "up", "nodeOpUid": "child"})), None);
    let (out, status) = planned(&snapshot);
    assert!(out.actions.is_empty() && status.is_none(), "an absence in a cache proves nothing");
    let question = out.questions.first().unwrap().clone();
    snapshot.answers.insert(question, Answer::NotFound);
    let (out, status) = planned(&snapshot);
    let status = status.unwrap();
    assert_eq!((status.phase, out.actions.len()), (Some(UpgradePhase::Failed), 1));
    assert!(status.message.unwrap().contains("was deleted"));
}

#[test]
fn a_nodeop_of_somebody_else_is_not_adopted() {
    let ours = upgrade(json!({"phase": "Initializing"}));
    let mut foreign = op(&ours, "foreign");
    foreign.metadata.owner_references = None;
    let stalled = |status: &NodeOpUpgradeStatus| {
        status.conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True")
    };
    let (out, status) = planned(&snapshot_of(ours.clone(), Some(foreign.clone())));
    let status = status.unwrap();
    assert_eq!(out.actions.len(), 1);
    assert!(stalled(&status));
    assert_eq!((status.phase, status.node_op_uid), (Some(UpgradePhase::Initializing), None));
    assert!(status.message.unwrap().contains("did not create: delete it"));

    // That of an upgrade which was deleted and made again gives its name up by itself.
    foreign.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(999_990).unwrap()));
    let (out, status) = planned(&snapshot_of(ours, Some(foreign)));
    let status = status.unwrap();
    assert_eq!(out.actions.len(), 1);
    assert!(!stalled(&status), "{status:?}");
    assert!(status.message.unwrap().starts_with("waiting for NodeOp up, which this upgrade did not create"));
}

#[test]
fn what_the_go_operator_left_without_a_nodeop_is_not_run_again() {
    for phase in ["Running", "Pending"] {
        let (out, status) = planned(&snapshot_of(upgrade(json!({"phase": phase, "nodeOpName": "up"})), None));
        assert_eq!((status.unwrap().phase, out.actions.len()), (Some(UpgradePhase::Failed), 1), "{phase}");
    }
    for phase in ["Completed", "Failed"] {
        let (out, status) = planned(&snapshot_of(upgrade(json!({"phase": phase})), None));
        let status = status.unwrap();
        assert_eq!((json!(status.phase), out.actions.len()), (json!(phase), 1), "{phase} is final");
        assert!(status.run.is_some(), "and which run that was is written down, for the edit that may follow");
    }
}

#[test]
fn what_may_be_changed_is_passed_on() {
    let mut changed = upgrade(json!({"phase": "Running", "nodeOpName": "up", "nodeOpUid": "child"}));
    let child = op(&changed, "child");
    changed.spec.stop_on_failure = Some(true);
    changed.spec.paused = Some(true);
    changed.spec.concurrency = 3;
    changed.spec.not_after = Some(Time(Timestamp::MAX));
    let (out, _) = planned(&snapshot_of(changed, Some(child)));
    let passed = out.actions.iter().any(|action| {
        matches!(action, Action::PropagateSpec { child, steering: Steering { concurrency: 3, paused: true, stop_on_failure: true, not_after: Some(_) }, .. }
            if child.metadata.uid.as_deref() == Some("child"))
    });
    assert!(passed, "{:?}", out.actions);
}

/// Where the policy that refuses it is not installed.
#[test]
fn a_change_of_the_nodeop_by_hand_is_taken_back_and_an_event_says_where_to_make_it() {
    let said = |generation: i64| {
        let recorded =
            json!({"phase": "Running", "nodeOpName": "up", "nodeOpUid": "child", "observedGeneration": 1});
        let mut upgrade = upgrade(recorded);
        upgrade.metadata.generation = Some(generation);
        let mut child = op(&upgrade, "child");
        child.spec.paused = Some(true);
        let (out, _) = planned(&snapshot_of(upgrade, Some(child)));
        out.actions.into_iter().find_map(|action| match action {
            Action::PropagateSpec { steering: Steering { paused: false, .. }, notice, .. } => Some(*notice),
            _ => None,
        })
    };
    let by_hand = said(1).unwrap();
    let told = "paused: false again as NodeOpUpgrade up says, to which this NodeOp belongs and which decides; change it there";
    assert_eq!((by_hand.warning, by_hand.message.as_str()), (true, told));
    let passed_on = said(2).unwrap();
    let told = "paused: false as NodeOpUpgrade up says now";
    assert_eq!((passed_on.warning, passed_on.message.as_str()), (false, told));
}

#[test]
fn a_default_that_the_server_put_in_is_no_change() {
    let silent = upgrade(json!({"phase": "Running", "nodeOpName": "up", "nodeOpUid": "child"}));
    let mut child = op(&silent, "child");
    (child.spec.stop_on_failure, child.spec.paused) = (Some(false), Some(false));
    let (out, _) = planned(&snapshot_of(silent, Some(child)));
    assert!(
        !out.actions.iter().any(|action| matches!(action, Action::PropagateSpec { .. })),
        "{:?}",
        out.actions
    );
}

/// The server refuses it, so trying would only fill the message with its refusal.
#[test]
fn a_nodeop_that_was_slowed_down_by_hand_is_not_set_loose() {
    let mut all_at_once = upgrade(json!({"phase": "Running", "nodeOpName": "up", "nodeOpUid": "child"}));
    all_at_once.spec.concurrency = 0;
    let mut child = op(&all_at_once, "child");
    child.spec.concurrency = 1;
    let passed_on = |upgrade: NodeOpUpgrade, child: NodeOp| {
        let (out, _) = planned(&snapshot_of(upgrade, Some(child)));
        out.actions.iter().find_map(|action| match action {
            Action::PropagateSpec { steering, .. } => Some(steering.concurrency),
            _ => None,
        })
    };
    assert_eq!(passed_on(all_at_once.clone(), child.clone()), None);
    all_at_once.spec.paused = Some(true);
    assert_eq!(passed_on(all_at_once, child), Some(1), "what else was changed is passed on");
}

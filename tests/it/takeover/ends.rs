//! What is taken over and has no nodes, no NodeOp, or is being deleted.

use super::*;

#[test]
fn an_empty_map_is_given_up_after_ten_minutes_and_begun_before() {
    let mut young = world(json!({}), json!({"phase": "Running"}));
    assert_eq!(status(&planned(&mut young)).unwrap().counts.unwrap().total, 3);
    let mut old = world(json!({}), json!({"phase": "Running"}));
    old.now = at(601);
    let status = status(&planned(&mut old)).unwrap();
    assert_eq!(status.phase, Some(Phase::Failed));
    assert!(status.message.unwrap().contains("create it again"));
}

#[test]
fn one_that_is_deleted_is_released_and_starts_nothing() {
    let mut s = in_progress(
        json!({"rebootOnSuccess": true}),
        json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
    );
    let key = ("ns".to_owned(), "op".to_owned());
    let mut op = (*s.ops[&key]).clone();
    op.metadata.deletion_timestamp = Some(Time(at(200)));
    s.ops.insert(key, Arc::new(op));
    job(&mut s, "n1", JobState::Active);
    pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
    let wanted = until_stable(&mut s);
    assert!(wanted.iter().any(|action| matches!(action, Action::DeleteJob { .. })), "{wanted:?}");
    s.jobs.clear();
    until_stable(&mut s);
    s.pods.clear();
    let wanted = until_stable(&mut s);
    assert_eq!(entry(&s, "n1").phase, Phase::Failed);
    assert!(
        wanted
            .iter()
            .any(|action| matches!(action, Action::Finalize { finalizers, .. } if finalizers.is_empty())),
        "{wanted:?}"
    );
}

/// Its NodeOpUpgrade without its NodeOp: it wrote `Initializing` only after it had made one.
#[test]
fn an_upgrade_whose_nodeop_is_gone_is_not_run_again() {
    for phase in ["Initializing", "Running", "Pending"] {
        let upgrade: NodeOpUpgrade = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
            "metadata": {"name": "up", "namespace": "ns", "uid": "uu", "generation": 1},
            "spec": {"image": "kairos:v2"}, "status": {"phase": phase, "nodeOpName": "up", "message": "NodeOp created"},
        }))
        .unwrap();
        let mut s = Snapshot { now: at(300), ..Snapshot::default() };
        s.upgrades.insert(("ns".into(), "up".into()), Arc::new(upgrade));
        let out = planned(&mut s);
        let failed = |action: &Action| matches!(action, Action::PatchUpgradeStatus { status, .. } if status.phase == Some(UpgradePhase::Failed));
        assert!(out.actions.len() == 1 && out.actions.iter().all(failed), "{phase}: {:?}", out.actions);
    }
}

/// The pods of its labeler's DaemonSet and Jobs carry the label of our facts pods; deleting them would never
/// end.
#[test]
fn its_labelers_pods_are_not_touched() {
    let mut s = world(json!({}), json!({"phase": "Completed"}));
    pod(&mut s, "n1", Role::Job, PodPhase::Running, None);
    s.facts_pods = std::mem::take(&mut s.pods);
    let out = planned(&mut s);
    assert!(
        !out.actions.iter().any(|action| matches!(action, Action::DeletePod { .. })),
        "{:?}",
        out.actions
    );
    assert!(
        out.actions.iter().any(|action| matches!(action, Action::CreateFactsPod { .. })),
        "ours are made all the same"
    );
}

//! Its NodeOpUpgrades, whose NodeOps run a command of its own: no further node runs that, and nothing is called
//! complete that was not done.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::{
    api::{
        nodeop::{NodeOp, Phase},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, RunResult, UpgradePhase},
    },
    plan::model::{
        action::Action,
        id::OpRef,
        snapshot::{JobState, NodeView, Snapshot},
    },
};
use serde_json::{Value, json};

use super::{at, carried::carried_out, job, world};

/// A NodeOpUpgrade of the recovery image, which needs no boot, and its NodeOp, `op`, as it made them. Their
/// specs, and the status of both.
fn left(upgrade: Value, child: Value, status: Value) -> Snapshot {
    let mut s = world(json!({}), json!(null));
    let extended = |mut spec: Value, change: Value| {
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    let shared = json!({"image": "kairos:v1", "concurrency": 1, "stopOnFailure": true});
    let spec = extended(shared.clone(), json!({"upgradeActive": false, "upgradeRecovery": true}));
    let mut object: NodeOpUpgrade = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": "op", "namespace": "ns", "uid": "uu", "generation": 1},
        "spec": extended(spec, upgrade), "status": status.clone(),
    }))
    .unwrap();
    object.metadata.creation_timestamp = Some(Time(at(-1)));
    if let Some(status) = &mut object.status {
        status.node_op_name = Some("op".into());
    }
    s.upgrades.insert(("ns".into(), "op".into()), Arc::new(object));
    let script = json!({"command": ["/bin/sh", "-c", "kairos-agent upgrade"], "hostMountPath": "/host",
        "cordon": true, "drainOptions": {"enabled": true}, "rebootOnSuccess": false});
    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "op", "uid": "uu", "controller": true}]);
    let mut op: NodeOp = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "generation": 1, "ownerReferences": owner},
        "spec": extended(extended(shared, script), child), "status": status,
    }))
    .unwrap();
    op.metadata.creation_timestamp = Some(Time(at(0)));
    s.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    s
}

fn at_n1(phase: &str, first: &str) -> Value {
    json!({"phase": phase, "nodeStatuses": {"n1": {"phase": first, "jobName": "op-n1-x7k2q", "rebootStatus": "not-requested"}}})
}

fn status(s: &Snapshot) -> NodeOpUpgradeStatus {
    s.upgrades[&("ns".to_owned(), "op".to_owned())].status.clone().unwrap()
}

fn condition(s: &Snapshot, type_: &str) -> String {
    let found = status(s).conditions.into_iter().find(|condition| condition.type_ == type_);
    found.map(|condition| condition.status).unwrap_or_default()
}

/// The NodeOps that are there besides the one that it made.
fn further(s: &Snapshot) -> Vec<Arc<NodeOp>> {
    s.ops.iter().filter(|(key, _)| key.1 != "op").map(|(_, op)| op.clone()).collect()
}

fn edit(s: &mut Snapshot, change: Value) {
    let key = ("ns".to_owned(), "op".to_owned());
    let mut upgrade = serde_json::to_value(s.upgrades[&key].as_ref()).unwrap();
    upgrade["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    upgrade["metadata"]["generation"] = (upgrade["metadata"]["generation"].as_i64().unwrap() + 1).into();
    s.upgrades.insert(key, Arc::new(serde_json::from_value(upgrade).unwrap()));
}

/// Which of its Jobs this plan makes.
fn jobs(wanted: &[Action]) -> Vec<&str> {
    let made = wanted.iter().filter_map(|action| match action {
        Action::CreateJob { op, node, .. } if op.metadata.name.as_deref() == Some("op") => Some(&**node),
        _ => None,
    });
    made.collect()
}

/// As with a canary: what its Job brought nobody can prove, and no further node runs its command.
#[test]
fn what_it_had_not_begun_of_an_upgrade_is_another_nodeops() {
    for change in [json!({}), json!({"force": true}), json!({"stopOnFailure": false})] {
        let mut s = left(change.clone(), json!({}), at_n1("Running", "Running"));
        job(&mut s, "n1", JobState::Active);
        let wanted = carried_out(&mut s, |_| {});
        assert_eq!((jobs(&wanted), further(&s).len()), (vec![], 0), "n1 is in progress: {change}");
        assert_eq!(status(&s).phase, Some(UpgradePhase::Running));
        job(&mut s, "n1", JobState::Complete);
        let wanted = carried_out(&mut s, |_| {});
        assert_eq!(jobs(&wanted), [""; 0], "its command is run on no further node");
        let [next] = &further(&s)[..] else { panic!("{change}: {:?}", status(&s)) };
        assert_eq!(next.spec.node_names, ["n2", "n3"], "n1 is done, and n4 came later");
        assert!(next.spec.upgrade.is_some() && next.spec.command.is_none());
        let nodes = next.status.clone().unwrap().node_statuses;
        assert_eq!(nodes.keys().map(String::as_str).collect::<BTreeSet<_>>(), ["n2", "n3"].into());
        let now = status(&s);
        assert_eq!(now.history.iter().map(|run| run.result).collect::<Vec<_>>(), [RunResult::Superseded]);
        assert!(!now.phase.is_some_and(UpgradePhase::is_final), "{now:?}");
        let said = s.ops[&("ns".to_owned(), "op".to_owned())].status.clone().unwrap().message.unwrap();
        assert!(said.contains("NodeOpUpgrade op goes on with another NodeOp"), "{said}");
    }
}

#[test]
fn nothing_follows_where_its_canary_failed_or_all_were_begun() {
    let mut s = left(json!({}), json!({}), at_n1("Running", "Running"));
    job(&mut s, "n1", JobState::Failed("BackoffLimitExceeded".into()));
    carried_out(&mut s, |_| {});
    assert_eq!((status(&s).phase, further(&s).len()), (Some(UpgradePhase::Failed), 0));

    let mut s = left(json!({"force": true}), json!({}), at_n1("Running", "Running"));
    s.nodes.retain(|name, _| name == "n1");
    job(&mut s, "n1", JobState::Complete);
    carried_out(&mut s, |_| {});
    assert_eq!((status(&s).phase, further(&s).len()), (Some(UpgradePhase::Completed), 0));
}

/// More than a NodeOp can name: a part of them would be taken for all.
#[test]
fn of_very_many_nodes_that_it_had_not_begun_none_is_taken_by_itself() {
    let mut s = left(json!({}), json!({}), at_n1("Running", "Running"));
    for number in 0..101 {
        let name = format!("m{number:03}");
        let node = NodeView { name: name.clone(), uid: name.clone(), ..(*s.nodes["n2"]).clone() };
        s.nodes.insert(name, Arc::new(node));
    }
    job(&mut s, "n1", JobState::Complete);
    carried_out(&mut s, |_| {});
    assert_eq!((status(&s).phase, further(&s).len()), (Some(UpgradePhase::Failed), 0));
    let message = status(&s).message.unwrap();
    assert!(message.contains("change the upgrade"), "{message}");
    edit(&mut s, json!({"debug": true}));
    carried_out(&mut s, |_| {});
    assert_eq!(further(&s).len(), 1, "{:?}", status(&s));
}

/// It did nothing about an edit: what stands in the spec is not what has run.
#[test]
fn an_edit_that_it_never_ran_is_not_called_complete_and_does_not_run_by_itself() {
    for change in [
        json!({"image": "kairos:v2"}),
        json!({"nodeSelector": {"matchLabels": {"a": "b"}}}),
        json!({"imagePullSecrets": [{"name": "s"}]}),
    ] {
        for phase in ["Completed", "Failed"] {
            let mut s = left(change.clone(), json!({}), at_n1(phase, phase));
            s.nodes.retain(|name, _| name == "n1");
            carried_out(&mut s, |_| {});
            assert_eq!((condition(&s, "Ready"), further(&s).len()), ("False".into(), 0), "{phase} {change}");
            assert_eq!(
                (condition(&s, "Complete"), condition(&s, "Stalled")),
                ("False".into(), "True".into())
            );
            let message = status(&s).message.unwrap();
            assert!(message.contains("kairos:v1") && message.contains("never"), "{message}");
            let settled = status(&s);
            carried_out(&mut s, |_| {});
            assert_eq!(status(&s), settled, "it is said once");
            edit(&mut s, json!({"debug": true}));
            carried_out(&mut s, |_| {});
            assert_eq!(further(&s).len(), 1, "{phase} {change}: {:?}", status(&s));
            let came = if phase == "Completed" { RunResult::Completed } else { RunResult::Failed };
            assert_eq!(status(&s).history[0].result, came);
        }
    }
    // Nothing that it copied was edited.
    let mut s = left(json!({}), json!({}), at_n1("Completed", "Completed"));
    s.nodes.retain(|name, _| name == "n1");
    carried_out(&mut s, |_| {});
    assert_eq!((condition(&s, "Ready"), condition(&s, "Complete")), ("True".into(), "True".into()));
}

#[test]
fn an_edit_that_it_never_ran_is_the_next_run_while_the_one_before_is_under_way() {
    let mut s = left(json!({"image": "kairos:v2"}), json!({}), at_n1("Running", "Running"));
    job(&mut s, "n1", JobState::Active);
    carried_out(&mut s, |_| {});
    assert_eq!((status(&s).phase, further(&s).len()), (Some(UpgradePhase::Running), 0));
    job(&mut s, "n1", JobState::Complete);
    carried_out(&mut s, |_| {});
    let [next] = &further(&s)[..] else { panic!("{:?}", status(&s)) };
    let nodes = next.status.clone().unwrap().node_statuses.len();
    assert_eq!((next.spec.image.as_deref(), nodes), (Some("kairos:v2"), 4), "all that match");
}

/// It wrote `Completed` between any two nodes, and each time that the next one could not be begun.
#[test]
fn what_it_called_complete_halfway_is_not() {
    let mut s = left(json!({}), json!({}), at_n1("Completed", "Completed"));
    carried_out(&mut s, |_| {});
    assert_eq!((condition(&s, "Complete"), condition(&s, "Ready")), ("False".into(), "False".into()));
    let message = status(&s).message.unwrap();
    assert!(message.contains("n2, n3") && !message.contains("n4"), "{message}");
    assert_eq!(further(&s).len(), 0, "nothing runs by itself");
    edit(&mut s, json!({"debug": true}));
    carried_out(&mut s, |_| {});
    assert_eq!(further(&s).len(), 1);
}

/// It looked at its NodeOp twice a minute.
#[test]
fn an_upgrade_that_lags_behind_its_nodeop_ends_as_that_has() {
    let lags = |change: Value| {
        let mut s = left(change, json!({}), at_n1("Completed", "Completed"));
        s.nodes.retain(|name, _| name == "n1");
        let key = ("ns".to_owned(), "op".to_owned());
        let mut upgrade = s.upgrades[&key].as_ref().clone();
        upgrade.status = serde_json::from_value(at_n1("Running", "Running")).unwrap();
        s.upgrades.insert(key, Arc::new(upgrade));
        carried_out(&mut s, |_| {});
        assert_eq!(further(&s).len(), 0);
        (status(&s).phase, condition(&s, "Ready"))
    };
    assert_eq!(lags(json!({})), (Some(UpgradePhase::Completed), "True".into()));
    assert_eq!(lags(json!({"image": "kairos:v2"})), (Some(UpgradePhase::Failed), "False".into()));
}

/// The NodeOp goes on, whatever its upgrade was called.
#[test]
fn an_upgrade_is_not_over_before_its_nodeop_is() {
    let n2 = json!({"phase": "Running", "jobName": "op-n2-x7k2q", "rebootStatus": "not-requested"});
    let mut both = at_n1("Failed", "Failed");
    both["nodeStatuses"]["n2"] = n2;
    let mut s = left(json!({}), json!({}), both);
    job(&mut s, "n2", JobState::Active);
    carried_out(&mut s, |_| {});
    assert_eq!(status(&s).phase, Some(UpgradePhase::Running));
    job(&mut s, "n2", JobState::Complete);
    carried_out(&mut s, |_| {});
    assert_eq!((status(&s).phase, further(&s).len()), (Some(UpgradePhase::Failed), 0));
    assert_eq!(status(&s).node_statuses.get("n2").unwrap().phase, Phase::Completed);
}

//! What `kubectl apply` warns of.

use std::collections::BTreeSet;

use kairos_operator::api::{
    child, run,
    upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec},
};
use kube::CustomResourceExt;

use super::*;

/// What is said of an operation, as it is created or as it was before; the server's defaults stand in both.
pub fn warned(kind: &str, old: Option<Value>, new: Value) -> bool {
    let object = |spec: Value| {
        let mut object =
            json!({"metadata": {"name": "op", "namespace": "default"}, "spec": {"concurrency": 0}});
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    };
    let policies = Policy::read_all("all-at-once-warning.yaml", "Warn");
    let verdicts = policies.iter().map(|policy| {
        policy.judge(&User::admin(), kind, old.clone().map(object).as_ref(), Some(&object(new.clone())))
    });
    let mut concerned: Vec<Verdict> = verdicts.filter(|verdict| *verdict != Verdict::NotConcerned).collect();
    match (concerned.pop(), concerned.pop()) {
        (None, _) | (Some(Verdict::Passes), None) => false,
        (Some(Verdict::Refused(said)), None) => said.contains("set concurrency: 1"),
        verdicts => panic!("{verdicts:?}"),
    }
}

#[test]
fn an_operation_that_takes_all_nodes_at_once_is_warned_of() {
    let (cordon, reboot) = (json!({"cordon": true}), json!({"rebootOnSuccess": true}));
    for spec in [
        cordon.clone(),
        reboot,
        json!({"cordon": true, "drainOptions": {"enabled": true}, "nodeSelector": {"matchLabels": {"a": "b"}}}),
    ] {
        assert!(warned("nodeops", None, spec.clone()), "{spec}");
    }
    let one_by_one = json!({"cordon": true, "concurrency": 1});
    let one_node = json!({"cordon": true, "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n1"}}});
    let by_name = |names: Value| json!({"cordon": true, "nodeNames": names});
    assert!(warned("nodeops", None, by_name(json!(["n1", "n2"]))));
    assert!(!warned("nodeops", None, by_name(json!(["n1"]))));
    for spec in [one_by_one.clone(), one_node, json!({}), json!({"cordon": false, "rebootOnSuccess": false})]
    {
        assert!(!warned("nodeops", None, spec.clone()), "{spec}");
    }
    let drained = json!({"upgradeActive": false, "upgradeRecovery": true, "drainOptions": {"enabled": true}});
    for spec in [json!({}), json!({"upgradeActive": true, "nodeSelector": {}}), drained] {
        assert!(warned("nodeopupgrades", None, spec.clone()), "{spec}");
    }
    for spec in [json!({"concurrency": 2}), json!({"upgradeActive": false, "upgradeRecovery": true})] {
        assert!(!warned("nodeopupgrades", None, spec.clone()), "{spec}");
    }
    // What is changed while it runs.
    let paused = json!({"cordon": true, "paused": true});
    assert!(warned("nodeops", Some(paused.clone()), cordon.clone()), "its pause ends");
    assert!(
        warned("nodeopupgrades", Some(json!({"paused": true})), json!({"paused": false})),
        "its pause ends"
    );
    assert!(
        warned("nodeops", Some(one_by_one), cordon.clone()),
        "where the CRD of an older release lets it pass"
    );
    for new in [cordon.clone(), paused, json!({"cordon": true, "stopOnFailure": true})] {
        assert!(!warned("nodeops", Some(cordon.clone()), new.clone()), "said once: {new}");
    }
}

#[test]
fn the_nodeop_of_an_upgrade_is_not_warned_of_again() {
    let child = json!({"metadata": {"name": "up", "ownerReferences": [{"kind": "NodeOpUpgrade", "name": "up", "uid": "u"}]},
        "spec": {"concurrency": 0, "cordon": true, "rebootOnSuccess": true}});
    for policy in Policy::read_all("all-at-once-warning.yaml", "Warn") {
        assert_eq!(policy.judge(&User::operator(), "nodeops", None, Some(&child)), Verdict::NotConcerned);
        assert_eq!(
            policy.judge(&User::operator(), "nodeops/status", Some(&child), Some(&child)),
            Verdict::NotConcerned
        );
        assert_eq!(policy.0["failurePolicy"], "Ignore", "a warning refuses nothing");
    }
}

/// A NodeOpUpgrade drains unless it is told not to, and a NodeOp only if it is told so: whoever says how, and not
/// that, loses nothing but the drain.
#[test]
fn a_nodeop_that_says_how_to_drain_and_not_that_it_drains_is_warned_of() {
    let policies = Policy::read_all("drain-warning.yaml", "Warn");
    let [policy] = policies.as_slice() else { panic!("{} policies", policies.len()) };
    assert_eq!(policy.0["failurePolicy"], "Ignore", "a warning refuses nothing");
    // With what the API server fills in.
    let defaults = json!({"enabled": false, "force": false, "deleteEmptyDirData": false, "ignoreDaemonSets": true, "strict": false});
    let judged = |options: Value, owner: Value| {
        let mut all = defaults.clone();
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let op = json!({"metadata": {"name": "op", "ownerReferences": owner}, "spec": {"cordon": true, "drainOptions": all}});
        policy.judge(&User::admin(), "nodeops", None, Some(&op))
    };
    let selector = || json!({"matchLabels": {"a": "b"}});
    for how in [
        json!({"force": true, "deleteEmptyDirData": true, "timeoutSeconds": 300}),
        json!({"force": true}),
        json!({"deleteEmptyDirData": true}),
        json!({"strict": true}),
        json!({"ignoreDaemonSets": false}),
        json!({"timeoutSeconds": 300}),
        json!({"gracePeriodSeconds": -1}),
        json!({"podSelector": selector()}),
        json!({"skip": selector()}),
        json!({"skipWaitForDeleteTimeoutSeconds": 5}),
    ] {
        let Verdict::Refused(said) = judged(how.clone(), json!([])) else { panic!("{how} passes") };
        assert!(said.contains("set drainOptions.enabled: true"), "{said}");
        let mut meant = how;
        meant["enabled"] = true.into();
        assert_eq!(judged(meant, json!([])), Verdict::NotConcerned);
    }
    assert_eq!(judged(json!({}), json!([])), Verdict::NotConcerned, "a drain that is told not to be one");
    let upgrade = json!([{"kind": "NodeOpUpgrade", "name": "up", "uid": "u"}]);
    assert_eq!(judged(json!({"force": true}), upgrade), Verdict::NotConcerned);
    let none = json!({"metadata": {"name": "op"}, "spec": {"cordon": true}});
    assert_eq!(policy.judge(&User::admin(), "nodeops", None, Some(&none)), Verdict::NotConcerned);
}

/// Each field of a NodeOpUpgrade, and something that it may be changed to.
fn edits() -> Value {
    json!({"image": "kairos:v2", "imagePullPolicy": "Never", "imagePullSecrets": [{"name": "s"}],
        "nodeSelector": {"matchLabels": {"a": "b"}}, "mode": "Continuous", "concurrency": 0, "paused": true, "stopOnFailure": true,
        "notAfter": "2027-01-31T00:00:00Z", "upgradeActive": false, "upgradeRecovery": true, "force": true, "debug": true,
        "uncordonOnFailure": true, "excludePaths": ["/a"], "drainOptions": {"enabled": true, "force": true},
        "loadBalancer": {"exclude": true, "waitSeconds": 5},
        "backoffLimit": 1, "preflightTimeoutSeconds": 1, "pullTimeoutSeconds": 1, "activeDeadlineSeconds": 1,
        "rebootTimeoutSeconds": 1, "verifyTimeoutSeconds": 1, "minReadySeconds": 1, "notReadyTimeoutSeconds": 1,
        "preflightConcurrency": 1, "historyLimit": 1})
}

/// An edit of a NodeOpUpgrade that is a run on all nodes is as good as a new one.
#[test]
fn an_edit_that_is_another_run_is_warned_of_and_one_that_steers_is_not() {
    let old = json!({"image": "kairos:v1", "concurrency": 0, "drainOptions": {"enabled": true}});
    let hash = |spec: &Value| {
        let spec: NodeOpUpgradeSpec = serde_json::from_value(spec.clone()).unwrap();
        run::hash(&child::spec(&spec))
    };
    let with = |field: &str, value: &Value| {
        let mut spec = old.clone();
        spec[field] = value.clone();
        spec
    };
    for (field, value) in edits().as_object().unwrap() {
        let new = with(field, value);
        let another = hash(&new) != hash(&old);
        assert_eq!(warned("nodeopupgrades", Some(old.clone()), new.clone()), another, "{field} is set");
        assert_eq!(
            warned("nodeopupgrades", Some(new.clone()), old.clone()),
            another || field == "paused",
            "{field} is unset"
        );
        assert!(!warned("nodeopupgrades", Some(new.clone()), new), "{field} stays");
    }
    let crd = serde_json::to_value(NodeOpUpgrade::crd()).unwrap();
    let fields = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    let named = |fields: &Value| fields.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(named(fields), named(&edits()), "a field is new: does it make another run?");
    let one = json!({"kubernetes.io/hostname": "n1"});
    let narrow = with("nodeSelector", &json!({"matchLabels": one}));
    assert!(warned("nodeopupgrades", Some(narrow.clone()), old.clone()), "widened to all nodes");
    assert!(!warned("nodeopupgrades", Some(old.clone()), narrow), "narrowed down to one");
}

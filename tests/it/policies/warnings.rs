//! What `kubectl apply` warns of.

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

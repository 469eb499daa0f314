//! Keys that no label can have, where the CRDs' own rules cannot look.

use super::*;

fn judge(kind: &str, spec: Value) -> Verdict {
    let object = json!({"metadata": {"name": "op", "namespace": "default"}, "spec": spec});
    Policy::read("selector-policy.yaml").judge(&User::admin(), kind, None, Some(&object))
}

fn selectors(key: &str) -> [Value; 3] {
    let selector = json!({"matchLabels": {"good": "a", key: "b"}});
    [
        json!({ "nodeSelector": selector }),
        json!({"drainOptions": {"enabled": true, "podSelector": selector}}),
        json!({"nodeSelector": {"matchExpressions": []}, "drainOptions": {"skip": selector}}),
    ]
}

#[test]
fn a_key_that_no_label_can_have_is_refused_in_every_selector() {
    let long = "x".repeat(64);
    let domain = format!("{}/x", "d".repeat(254));
    for key in ["a b", "a/b/c", "/a", "a/", "-a", "a.", "A.example.com/a", "a=b", "", &long, &domain] {
        for spec in selectors(key) {
            for kind in ["nodeops", "nodeopupgrades"] {
                let verdict = judge(kind, spec.clone());
                assert!(
                    matches!(&verdict, Verdict::Refused(said) if said.contains("for example")),
                    "{spec}: {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn every_other_selector_passes() {
    let long = format!("{}/{}", "d".repeat(253), "x".repeat(63));
    for key in
        ["a", "A", "kubernetes.io/hostname", "node-role.kubernetes.io/control-plane", "a_b.c-d", "1/2", &long]
    {
        for spec in selectors(key) {
            assert_eq!(judge("nodeops", spec.clone()), Verdict::Passes, "{spec}");
        }
    }
    for spec in [json!({}), json!({"nodeSelector": {}, "drainOptions": {}})] {
        assert_eq!(judge("nodeopupgrades", spec), Verdict::Passes);
    }
}

/// The operator creates the NodeOp of the run that an edit asks for, and could not with such a key.
#[test]
fn a_key_that_an_edit_brings_is_refused_and_one_that_stands_there_is_left() {
    let policy = Policy::read("selector-policy.yaml");
    let object = |spec: Value| json!({"metadata": {"name": "up", "namespace": "default"}, "spec": spec});
    let judge = |old: Value, new: Value| {
        policy.judge(&User::admin(), "nodeopupgrades", Some(&object(old)), Some(&object(new)))
    };
    for (spec, good) in selectors("a b").into_iter().zip(selectors("a")) {
        for old in [json!({}), good.clone()] {
            assert!(matches!(judge(old, spec.clone()), Verdict::Refused(_)), "{spec}");
        }
        let mut other = spec.clone();
        other["paused"] = true.into();
        assert_eq!(judge(spec.clone(), other), Verdict::Passes, "{spec}");
        assert_eq!(judge(spec.clone(), good), Verdict::Passes, "{spec}");
    }
    let verdict = policy.judge(&User::operator(), "nodeopupgrades/status", None, Some(&object(json!({}))));
    assert_eq!(verdict, Verdict::NotConcerned);
}

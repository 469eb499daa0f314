//! The NodeOp of a NodeOpUpgrade is steered through that one.

use kairos_operator::api::{child, nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kube::CustomResourceExt;

use super::*;

/// As the operator makes it, and a server completes it.
fn of_upgrade() -> Value {
    let upgrade: NodeOpUpgrade = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": "up", "namespace": "fleet", "uid": "u-1", "generation": 1},
        "spec": {"image": "kairos:v2", "concurrency": 1},
    }))
    .unwrap();
    let mut op = json!(child::node_op(&upgrade, "up-12345678"));
    op["spec"]["paused"] = false.into();
    op["spec"]["stopOnFailure"] = false.into();
    op
}

fn judge(user: &User, old: &Value, new: &Value) -> Verdict {
    Policy::read("child-policy.yaml").judge(user, "nodeops", Some(old), Some(new))
}

const CHANGES: [(&str, &str); 4] = [
    ("paused", "true"),
    ("concurrency", "3"),
    ("stopOnFailure", "true"),
    ("notAfter", "\"2030-01-01T00:00:00Z\""),
];

fn changed(field: &str, value: &str) -> Value {
    with(of_upgrade(), &format!("/spec/{field}"), serde_json::from_str(value).unwrap())
}

#[test]
fn who_steers_it_is_told_which_object_decides() {
    let editor = User { rights: Some(BTreeSet::new()), ..User::new("bob") };
    for user in [User::admin(), editor] {
        for (field, value) in CHANGES {
            let said = "NodeOp fleet/up-12345678 belongs to NodeOpUpgrade up, which decides: change concurrency, paused, stopOnFailure \
                        and notAfter there (kubectl edit nodeopupgrade up -n fleet)";
            for (old, new) in [(of_upgrade(), changed(field, value)), (changed(field, value), of_upgrade())] {
                assert_eq!(judge(&user, &old, &new), Verdict::Refused(said.into()), "{field} {}", user.name);
            }
        }
    }
    let (one, other) =
        (changed("notAfter", "\"2030-01-01T00:00:00Z\""), changed("notAfter", "\"2031-01-01T00:00:00Z\""));
    assert!(matches!(judge(&User::admin(), &one, &other), Verdict::Refused(_)));
}

#[test]
fn the_operator_and_whoever_changes_nothing_of_that_are_let_alone() {
    for (field, value) in CHANGES {
        assert_eq!(
            judge(&User::operator(), &of_upgrade(), &changed(field, value)),
            Verdict::NotConcerned,
            "{field}"
        );
    }
    let unset =
        ["paused", "stopOnFailure"].into_iter().fold(of_upgrade(), |op, field| without(op, "/spec", field));
    let meta = |key: &str, value: Value| with(of_upgrade(), &format!("/metadata/{key}"), value);
    let user = User::new("system:serviceaccount:kube-system:generic-garbage-collector");
    for new in [
        of_upgrade(),
        unset,
        meta("finalizers", json!([])),
        meta("labels", json!({"a": "b"})),
        meta("deletionTimestamp", json!("2030-01-01T00:00:00Z")),
        meta("ownerReferences", json!([])),
    ] {
        assert_eq!(judge(&user, &of_upgrade(), &new), Verdict::NotConcerned, "{new}");
    }
    let policy = Policy::read("child-policy.yaml");
    let steered = changed("paused", "true");
    for (resource, old, new) in [
        ("nodeops/status", Some(&steered), Some(&steered)),
        ("nodeops", None, Some(&steered)),
        ("nodeops", Some(&steered), None),
    ] {
        assert_eq!(policy.judge(&User::admin(), resource, old, new), Verdict::NotConcerned, "{resource}");
    }
    assert_eq!(policy.0["failurePolicy"], "Ignore", "said in its header");
}

#[test]
fn a_nodeop_that_nothing_controls_is_its_users() {
    let own = |op: Value| with(op, "/metadata/ownerReferences", json!([]));
    let other = |op: Value| {
        let owner = json!([{"apiVersion": "example.com/v1", "kind": "NodeOpUpgrade", "name": "up", "uid": "u", "controller": true}]);
        with(op, "/metadata/ownerReferences", owner)
    };
    let (old, new) = (of_upgrade(), changed("paused", "true"));
    for (old, new) in [
        (own(old.clone()), own(new.clone())),
        (other(old.clone()), other(new.clone())),
        (without(old, "/metadata", "ownerReferences"), without(new, "/metadata", "ownerReferences")),
    ] {
        assert_eq!(judge(&User::admin(), &old, &new), Verdict::NotConcerned, "{old}");
    }
}

/// A field that may be changed of a run, and is not held here, would be taken back without a word.
#[test]
fn the_policy_is_about_all_that_may_be_changed() {
    let crd = json!(NodeOp::crd()).to_string();
    let (_, rest) = crd.split_once("cannot be changed once created, except concurrency").unwrap();
    let named = format!("concurrency{}", rest.split(':').next().unwrap()).replace(" and ", ", ");
    let named: BTreeSet<&str> = named.split(", ").collect();
    assert_eq!(named, CHANGES.iter().map(|(field, _)| *field).collect());
}

//! What stands on nodes and the operator believes: its records, and which role a node has. Neither does a
//! kubelet write once its node is there.

use super::*;

fn node() -> Value {
    json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}, "annotations": {"node.alpha.kubernetes.io/ttl": "0",
            names::CLAIMED_BY: "ns/op@u", names::RELEASE: "v1"}}, "spec": {}, "status": {"conditions": []}})
}

fn annotated(node: Value, key: &str, value: &str) -> Value {
    with(node, &format!("/metadata/annotations/{}", key.replace('/', "~1")), json!(value))
}

/// Every annotation by which the operator decides something.
const RECORDS: [&str; 6] = [
    names::CLAIMED_BY,
    names::CORDONED_BY,
    names::AUTOSCALER_HINTS,
    names::FACTS_OF,
    names::RELEASE,
    names::BOOT_STATE_OF,
];

#[test]
fn only_the_operator_and_administrators_write_its_records_on_nodes() {
    let policy = Policy::read("node-policy.yaml");
    let kubelet = User::new("system:node:n1");
    let bare = without(node(), "/metadata", "annotations");
    for key in RECORDS {
        let (set, gone) = (
            annotated(node(), key, "forged"),
            without(annotated(node(), key, "was"), "/metadata/annotations", key),
        );
        let was = annotated(node(), key, "was");
        for resource in ["nodes", "nodes/status"] {
            for (old, new) in [
                (Some(&was), &set),
                (Some(&was), &gone),
                (Some(&was), &bare),
                (Some(&bare), &set),
                (None, &set),
            ] {
                let judge = |user: &User| policy.judge(user, resource, old, Some(new));
                assert!(
                    matches!(judge(&kubelet), Verdict::Refused(said) if said.contains("operator's")),
                    "{key} {resource} {:?}",
                    judge(&kubelet)
                );
                assert!(matches!(judge(&User::waiter("u1")), Verdict::Refused(_)), "{key} {resource}");
                assert_eq!(
                    (judge(&User::operator()), judge(&User::admin())),
                    (Verdict::Passes, Verdict::Passes),
                    "{key} {resource}"
                );
            }
        }
    }
    let said = policy.judge(&kubelet, "nodes", Some(&node()), Some(&bare));
    let Verdict::Refused(said) = said else { panic!("{said:?}") };
    assert!(RECORDS.iter().all(|key| said.contains(key.trim_start_matches("operator.kairos.io/"))), "{said}");
}

#[test]
fn kubelets_and_people_go_on_as_before() {
    let policy = Policy::read("node-policy.yaml");
    let fresh = json!({"metadata": {"name": "n2", "annotations": {"k3s.io/internal-ip": "10.0.0.2"}}});
    let bare = json!({"metadata": {"name": "n2"}});
    let cases = [
        (
            "a heartbeat",
            "nodes/status",
            Some(node()),
            with(node(), "/status/conditions", json!([{"type": "Ready"}])),
        ),
        (
            "a kubelet's own annotation",
            "nodes/status",
            Some(node()),
            annotated(node(), "volumes.kubernetes.io/controller-managed-attach-detach", "true"),
        ),
        ("a cordon", "nodes", Some(node()), with(node(), "/spec/unschedulable", json!(true))),
        (
            "hands off",
            "nodes",
            Some(node()),
            with(node(), "/metadata/labels/kairos.io~1managed", json!("false")),
        ),
        ("a registration", "nodes", None, fresh.clone()),
        ("a bare registration", "nodes", None, bare.clone()),
        ("a first annotation", "nodes", Some(bare.clone()), fresh.clone()),
        ("the last annotation", "nodes", Some(fresh), bare),
    ];
    for (what, resource, old, new) in cases {
        for user in [User::new("system:node:n1"), User::new("someone")] {
            assert_eq!(
                policy.judge(&user, resource, old.as_ref(), Some(&new)),
                Verdict::NotConcerned,
                "{what}"
            );
        }
    }
    assert_eq!(
        policy.judge(&User::new("system:node:n1"), "nodes", Some(&node()), None),
        Verdict::NotConcerned,
        "its deletion"
    );
    assert_eq!(policy.0["failurePolicy"], "Ignore", "said in its header");
}

/// Labels of the control plane that NodeRestriction lets a kubelet set on its own Node: it guards the domains
/// kubernetes.io and k8s.io with all below them, except those of `node.kubernetes.io` and
/// `kubelet.kubernetes.io`.
fn unguarded() -> Vec<(&'static str, &'static str)> {
    let is_guarded = |label: &str| {
        let domain = label.split_once('/').unwrap().0;
        let below = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
        let left_to_kubelets = below("node.kubernetes.io") || below("kubelet.kubernetes.io");
        (below("kubernetes.io") || below("k8s.io")) && !left_to_kubelets
    };
    let labels = names::CONTROL_PLANE_LABELS.into_iter().map(|label| (label, ""));
    labels.chain(names::CONTROL_PLANE_ROLES).filter(|(label, _)| !is_guarded(label)).collect()
}

#[test]
fn a_kubelet_cannot_make_its_node_one_of_the_control_plane() {
    let policy = Policy::read("node-role-policy.yaml");
    let kubelet = User { groups: &["system:nodes", "system:authenticated"], ..User::new("system:node:n1") };
    let bare = json!({"metadata": {"name": "n1"}});
    let labelled = |labels: Value| json!({"metadata": {"name": "n1", "labels": labels}});
    let worker = || labelled(json!({"kubernetes.io/os": "linux"}));
    assert_eq!(unguarded().len(), 5, "{:?}", unguarded());
    for (key, value) in unguarded() {
        let is = labelled(json!({"kubernetes.io/os": "linux", key: value}));
        let other = labelled(json!({"kubernetes.io/os": "linux", key: "worker"}));
        for resource in ["nodes", "nodes/status"] {
            let judge =
                |user: &User, old: &Value, new: &Value| policy.judge(user, resource, Some(old), Some(new));
            for old in [&bare, &worker(), &other] {
                let verdict = judge(&kubelet, old, &is);
                assert!(
                    matches!(&verdict, Verdict::Refused(said) if said.contains("which role")),
                    "{key}: {verdict:?}"
                );
                assert_eq!(judge(&User::admin(), old, &is), Verdict::NotConcerned, "{key}");
            }
            let ready = with(is.clone(), "/metadata/annotations", json!({"a": "b"}));
            for (old, new) in [(&is, &ready), (&is, &worker()), (&bare, &worker()), (&worker(), &bare)] {
                assert_eq!(judge(&kubelet, old, new), Verdict::Passes, "{key}: a heartbeat");
            }
        }
        let joins = policy.judge(&kubelet, "nodes", None, Some(&is));
        assert_eq!(joins, Verdict::NotConcerned, "it registers, with --node-labels");
    }
    assert_eq!(policy.0["failurePolicy"], "Ignore", "said in its header");
}

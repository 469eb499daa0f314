//! Which content a node asks for whose image no preflight looks at.

use super::*;

/// No preflight looks at its image first: the tag may have moved since the first node asked the registry.
#[test]
fn without_a_preflight_a_node_asks_for_the_content_that_the_first_one_ran() {
    let of = |digit: &str| format!("quay.io/tool@sha256:{}", digit.repeat(DIGITS));
    let content = |told_by: Option<&str>| {
        json!({"architecture": "arm64", "image": "quay.io/tool", "digest": of("a"),
        "toldBy": told_by})
    };
    for (change, told_by, architecture, is_bound) in [
        (json!({}), None, "arm64", true),
        (json!({"imagePullPolicy": "Always"}), None, "arm64", true),
        (json!({}), None, "amd64", false),
        (json!({}), Some("n1"), "arm64", false),
        (json!({"imagePullPolicy": "IfNotPresent"}), None, "arm64", false),
        (json!({"image": "quay.io/another"}), None, "arm64", false),
    ] {
        let mut spec = json!({"image": "quay.io/tool", "command": ["true"]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let mut object = (*op(spec)).clone();
        let images = json!([content(told_by)]);
        object.status.get_or_insert_default().images = serde_json::from_value(images).unwrap();
        let wanted = is_bound.then(|| of("a"));
        assert_eq!(
            bound(&Snapshot::default(), &object, architecture),
            wanted,
            "{change} {told_by:?} {architecture}"
        );
    }
}

/// `kubectl kairos run` names no image. The registry is asked while the node waits, drained.
#[test]
fn a_node_asks_for_the_content_of_the_default_image_that_its_preflight_ran() {
    let busybox = format!("docker.io/library/busybox@sha256:{}", "a".repeat(DIGITS));
    let pod = ran(Role::Preflight, "n1", &busybox);
    for (default, is_pinned) in [
        ("busybox:latest", true),
        ("busybox", true),
        ("busybox:1.37", false),
        ("registry.example/busybox:latest", false),
        ("", false),
    ] {
        let mut snapshot = Snapshot::default();
        snapshot.config.default_image = default.into();
        let wanted = is_pinned.then(|| busybox.clone());
        for spec in [json!({"command": ["true"]}), json!({"image": "", "command": ["true"]})] {
            assert_eq!(pinned(&snapshot, &op(spec), &pod), wanted, "{default:?}");
        }
        assert_eq!(pinned(&snapshot, &op(json!({"image": "tool"})), &pod), None, "another one is named");
        let mut object = (*op(json!({"command": ["true"]}))).clone();
        let images = json!([{"architecture": "amd64", "image": "", "digest": busybox}]);
        object.status.get_or_insert_default().images = serde_json::from_value(images).unwrap();
        assert_eq!(bound(&snapshot, &object, "amd64"), wanted, "{default:?}");
    }
}

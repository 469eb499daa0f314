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
        assert_eq!(bound(&object, architecture), wanted, "{change} {told_by:?} {architecture}");
    }
}

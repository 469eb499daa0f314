//! The pod that reads what a node says of itself: the host's `/etc` and `/usr`, read-only, no token, no
//! privilege.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{RenderConfig, parts};
use crate::{
    api::names::{self, container},
    contract::{self, applet},
};

/// The facts pod of a node, of which this is the name and the UID; it goes when the node goes.
pub fn pod(
    (node, node_uid): (&str, &str),
    name: &str,
    attempt: i32,
    waited_for: bool,
    config: &RenderConfig,
) -> Pod {
    let deadline = if waited_for { contract::WAITED_FACTS_DEADLINE } else { contract::FACTS_DEADLINE };
    let labels = [(names::APP, names::LABELER.to_owned()), ("node", names::label_value(node))];
    let annotations = [(names::NODE_NAME, node.to_owned()), (names::ATTEMPT, attempt.to_string())];
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    let meta = ObjectMeta {
        name: Some(name.into()),
        namespace: Some(config.namespace.clone()),
        labels: Some(BTreeMap::from(labels.map(owned))),
        annotations: Some(BTreeMap::from(annotations.map(owned))),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: node.into(),
            uid: node_uid.into(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    };
    let reader = Container {
        name: container::FACTS.into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some(config.operator_pull_policy.clone()),
        command: parts::applet(applet::NODE_LABELER),
        args: Some(contract::facts_args()),
        // Root without a capability: on some hosts these files are not for everybody.
        security_context: Some(parts::plain_root()),
        volume_mounts: Some(vec![
            parts::mount("etc", &format!("{}/etc", contract::HOST_MOUNT), true),
            parts::mount("usr", &format!("{}/usr", contract::HOST_MOUNT), true),
        ]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    };
    Pod {
        metadata: parts::pod_meta(meta, container::FACTS),
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            active_deadline_seconds: Some(deadline),
            termination_grace_period_seconds: Some(1),
            image_pull_secrets: parts::pull_secrets(&[], config, [&reader]),
            containers: vec![reader],
            volumes: Some(vec![
                parts::host_path("etc", "/etc", "Directory"),
                // For `/usr/lib/os-release`. Each Linux has `/usr`; NixOS has no `/usr/lib`, and a kubelet
                // starts no pod with a directory that is missing, or makes it, which would change the host.
                parts::host_path("usr", "/usr", "Directory"),
            ]),
            ..parts::pod_spec(node)
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow node takes minutes to start all of its pods after a boot.
    #[test]
    fn a_pod_that_an_upgrade_waits_for_has_more_time() {
        let config = RenderConfig::of_tests();
        let limit = |waits| pod(("n1", "u"), "f", 0, waits, &config).spec?.active_deadline_seconds;
        assert_eq!([limit(false), limit(true)], [Some(120), Some(600)]);
    }
}

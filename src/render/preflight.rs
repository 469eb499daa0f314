//! The pod that asks, before a node is touched, whether it needs the operation: unprivileged, the host's root read-only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, PodSpec, SecurityContext};

use super::{Images, parts};
use crate::{
    api::{
        names::{self, container},
        nodeop::NodeOp,
    },
    plan::intent,
};

/// Seconds after which the kubelet ends a preflight that the controller, being away, did not judge.
const BACKSTOP: i64 = 600;

/// The preflight of `op` on `node`; `None` if it asks for none.
pub fn pod(op: &NodeOp, node: &str, name: &str, images: &Images) -> Option<Pod> {
    let spec = &op.spec;
    let preflight = spec.preflight.as_ref()?;
    let mut meta = parts::meta(op, node, name);
    meta.labels.get_or_insert_with(BTreeMap::new).insert(names::PREFLIGHT.into(), "true".into());
    let pull = i64::from(spec.pull_timeout_seconds.unwrap_or(intent::PULL_TIMEOUT));
    let run = i64::from(preflight.active_deadline_seconds.unwrap_or(intent::PREFLIGHT_DEADLINE));
    let image = preflight.image.clone().filter(|image| !image.is_empty()).unwrap_or_else(|| parts::image(spec, images));
    Some(Pod {
        metadata: meta,
        spec: Some(PodSpec {
            node_name: Some(node.into()),
            // A verdict is the command's own exit code, once.
            restart_policy: Some("Never".into()),
            active_deadline_seconds: Some(pull + run + BACKSTOP),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: parts::pull_secrets(spec),
            tolerations: Some(parts::tolerate_everything()),
            containers: vec![Container {
                name: container::PREFLIGHT.into(),
                image: Some(image),
                image_pull_policy: parts::pull_policy(),
                command: Some(preflight.command.clone()).filter(|command| !command.is_empty()),
                env: Some(vec![parts::host_dir(op)]),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
                    ..SecurityContext::default()
                }),
                volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, intent::host_mount(op), true)]),
                ..Container::default()
            }],
            volumes: Some(vec![parts::host_path(parts::HOST_ROOT, "/", "Directory")]),
            ..PodSpec::default()
        }),
        status: None,
    })
}

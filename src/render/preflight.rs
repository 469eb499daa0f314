//! The pod that asks, before a node is touched, whether it needs the operation: unprivileged, the host's root
//! read-only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, PodSpec, SecurityContext};

use super::{RenderConfig, parts, upgrade};
use crate::{
    api::{
        names::{self, container},
        nodeop::{NodeOp, Preflight},
    },
    plan::model::intent::{self, Intent},
};

/// Seconds after which the kubelet ends a preflight that the controller, being away, did not judge.
const BACKSTOP: i64 = 600;

/// The preflight of `op` on `node`; `None` if it asks for none.
pub fn pod(op: &NodeOp, node: &str, name: &str, site: &RenderConfig) -> Option<Pod> {
    let spec = &op.spec;
    let mut volumes = vec![parts::host_path(parts::HOST_ROOT, "/", "Directory")];
    let (install, check) = match (&spec.preflight, &spec.upgrade) {
        (Some(preflight), _) => (None, check(op, preflight, site)),
        (None, Some(options)) => {
            volumes.push(upgrade::volume());
            (Some(vec![upgrade::install(site)]), upgrade::check(op, options, site))
        }
        (None, None) => return None,
    };
    let mut meta = parts::meta(op, node, name);
    meta.labels.get_or_insert_with(BTreeMap::new).insert(names::PREFLIGHT.into(), "true".into());
    let intent = Intent::of(op);
    let run = intent.preflight.map_or(0, |preflight| preflight.deadline.as_secs());
    Some(Pod {
        metadata: parts::pod_meta(meta, container::PREFLIGHT),
        spec: Some(PodSpec {
            // A verdict is the command's own exit code, once.
            restart_policy: Some("Never".into()),
            // More than a pod may have means: as long as it may.
            active_deadline_seconds: Some(
                (intent.pull_timeout.as_secs() + run + BACKSTOP).min(intent::MAX_SECONDS),
            ),
            image_pull_secrets: parts::pull_secrets(
                &spec.image_pull_secrets,
                site,
                install.iter().flatten().chain([&check]),
            ),
            init_containers: install,
            containers: vec![check],
            volumes: Some(volumes),
            ..parts::pod_spec(node)
        }),
        status: None,
    })
}

/// The user's own check.
fn check(op: &NodeOp, preflight: &Preflight, site: &RenderConfig) -> Container {
    let image = preflight.image.clone().filter(|image| !image.is_empty());
    Container {
        name: container::PREFLIGHT.into(),
        image: Some(image.unwrap_or_else(|| parts::image(&op.spec, site))),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: Some(preflight.command.clone()).filter(|command| !command.is_empty()),
        env: Some(vec![parts::host_dir(op)]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, intent::host_mount(op), true)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

//! The pod that looks at a node before it is touched: whether it needs the operation, or at least whether it
//! has the image. Not privileged, the host's root read-only if it is there at all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use super::{RenderConfig, parts, upgrade};
use crate::{
    api::{
        names::{self, container},
        nodeop::{NodeOp, Preflight},
    },
    contract::applet,
    plan::model::intent::{self, Intent},
};

/// Seconds after which the kubelet ends a preflight that the controller, being away, did not judge.
const BACKSTOP: i64 = 600;

/// The preflight of `op` on `node`.
pub fn pod(op: &NodeOp, node: &str, name: &str, config: &RenderConfig) -> Pod {
    let spec = &op.spec;
    let host = || parts::host_path(parts::HOST_ROOT, "/", "Directory");
    let installed = || Some(vec![upgrade::install(config)]);
    let (install, check, volumes, restart) = match (&spec.preflight, &spec.upgrade) {
        // What fails may be the moment's: the kubelet runs it again until it succeeds or its time is over.
        (Some(preflight), _) => (None, check(op, preflight, config), vec![host()], "OnFailure"),
        // What our own check refuses, it refuses each time.
        (None, Some(options)) => {
            (installed(), upgrade::check(op, options, config), vec![host(), upgrade::volume()], "Never")
        }
        (None, None) => (installed(), image_check(op, config), vec![upgrade::volume()], "Never"),
    };
    let mut meta = parts::meta(op, node, name);
    meta.labels.get_or_insert_with(BTreeMap::new).insert(names::PREFLIGHT.into(), "true".into());
    let intent = Intent::of(op);
    let run = intent.preflight.deadline.as_secs();
    Pod {
        metadata: parts::pod_meta(meta, container::PREFLIGHT),
        spec: Some(PodSpec {
            restart_policy: Some(restart.into()),
            // More than a pod may have means: as long as it may.
            active_deadline_seconds: Some(
                (intent.pull_timeout.as_secs() + run + BACKSTOP).min(intent::MAX_SECONDS),
            ),
            image_pull_secrets: parts::pull_secrets(
                &spec.image_pull_secrets,
                config,
                install.iter().flatten().chain([&check]),
            ),
            init_containers: install,
            containers: vec![check],
            volumes: Some(volumes),
            ..parts::pod_spec(node)
        }),
        status: None,
    }
}

/// Runs our binary in the user's image: so the image is there, and a container of it starts. Nothing else is
/// asked of the image, and nothing of the user's runs.
fn image_check(op: &NodeOp, config: &RenderConfig) -> Container {
    Container {
        name: container::PREFLIGHT.into(),
        image: Some(parts::image(&op.spec, config)),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: upgrade::installed(applet::IMAGE_CHECK),
        security_context: Some(parts::unprivileged()),
        volume_mounts: Some(vec![upgrade::binary(true)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

/// The user's own check, with what the Go operator gave it: its scripts run `chroot /host`, and read what
/// only root may. A capability that is missing would not fail them. They would find nothing, exit with 0 and
/// say nothing, which means that the node is to be drained and rebooted. For the same reason what is mounted
/// below the host's root (on Kairos `/var`, `/tmp`, `/run`) is as writable as the container finds it: a tool
/// of the host that cannot write its lock or its cache says nothing, too.
fn check(op: &NodeOp, preflight: &Preflight, config: &RenderConfig) -> Container {
    let image = preflight.image.clone().filter(|image| !image.is_empty());
    let host = parts::mount(parts::HOST_ROOT, intent::host_mount(op), true);
    Container {
        name: container::PREFLIGHT.into(),
        image: Some(image.unwrap_or_else(|| parts::image(&op.spec, config))),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: Some(preflight.command.clone()).filter(|command| !command.is_empty()),
        env: Some(vec![parts::host_dir(op)]),
        volume_mounts: Some(vec![VolumeMount { recursive_read_only: None, ..host }]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

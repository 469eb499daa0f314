//! The container that holds the node's lock for a user's command, see `node::lock`.
//!
//! A native sidecar: an init container that the kubelet does not wait for to end. It starts the next
//! container once the startup probe of this one has succeeded, and ends this one after all others; neither
//! its end nor its exit code is part of what becomes of the pod. A kubelet that knows no such containers, one
//! of Kubernetes 1.28 or before, would wait for it for ever, and gets the Job without it.
//!
//! It costs a container without requests, of an image that is there. The command starts up to a second later,
//! at the first probe. The pod ends a moment later, once the kubelet has ended this container. A hook
//! (`postStart`) would spare the wait for the probe. But a kubelet is deaf for a pod as long as its hook
//! runs, and says nothing of it, not even that it waits.

use k8s_openapi::api::core::v1::{Container, ExecAction, Probe, Volume};

use super::{RenderConfig, parts};
use crate::{
    api::names::container,
    contract::{self, NodeLock},
};

/// The volume with the lock's file.
const LOCK: &str = "node-lock";

/// Seconds for one look at a file by a process that a loaded node has to start first.
const PROBE_TIMEOUT: i32 = 10;

/// The volume with the lock's file, and with nothing else.
pub fn volume() -> Volume {
    parts::host_path(LOCK, contract::LOCK_DIR, "DirectoryOrCreate")
}

/// Takes the lock, and holds it until the kubelet ends it, for a command that is an init container or not.
pub fn holder(beside_init: bool, config: &RenderConfig) -> Container {
    let holds = if beside_init { NodeLock::HoldBesideInit } else { NodeLock::Hold };
    let mut look = parts::applet(contract::applet::NODE_LOCK).unwrap_or_default();
    look.extend(contract::node_lock_args(NodeLock::Check));
    Container {
        name: container::NODE_LOCK.into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some(config.operator_pull_policy.clone()),
        command: parts::applet(contract::applet::NODE_LOCK),
        args: Some(contract::node_lock_args(holds)),
        env: Some(vec![parts::env_from(contract::env::POD_UID, "metadata.uid")]),
        restart_policy: Some("Always".into()),
        startup_probe: Some(Probe {
            exec: Some(ExecAction { command: Some(look) }),
            period_seconds: Some(1),
            timeout_seconds: Some(PROBE_TIMEOUT),
            // However long it waits, starting it again would not help. The operator has a limit for that.
            failure_threshold: Some(i32::MAX),
            ..Probe::default()
        }),
        security_context: Some(parts::host_writer()),
        volume_mounts: Some(vec![parts::mount(LOCK, contract::LOCK_MOUNT, false)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

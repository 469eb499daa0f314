//! What an upgrade adds to a Job and to a preflight: our binary, copied into the Kairos image's container.
//!
//! The Kairos image brings the agent and no more is asked of it: no shell, no tool. A first container copies
//! our static binary into a volume in memory, and the Kairos image runs it from there. The volume is mounted
//! below `/mnt`, which the agent leaves out of the image that it writes.

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, SecurityContext, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{RenderConfig, parts};
use crate::{
    api::{
        names::container,
        nodeop::{NodeOp, UpgradeOptions},
    },
    contract::{self, UpgradeOrder, applet},
};

/// The volume with our binary.
const BINARY: &str = "operator-binary";
/// Seconds that an agent which is writing gets to end: its image is gigabytes, and killing it leaves half of
/// one.
pub const GRACE_SECONDS: i64 = 900;

fn order(options: &UpgradeOptions) -> UpgradeOrder {
    UpgradeOrder {
        active: options.active,
        recovery: options.recovery,
        force: options.force,
        debug: options.debug,
        exclude_paths: options.exclude_paths.clone(),
    }
}

/// The volume with our binary; in memory, so that nothing is left on the disk and no filesystem forbids to
/// run it.
pub fn volume() -> Volume {
    let memory =
        EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity("64Mi".into())) };
    Volume { name: BINARY.into(), empty_dir: Some(memory), ..Volume::default() }
}

pub fn binary(read_only: bool) -> VolumeMount {
    parts::mount(BINARY, contract::INSTALL_MOUNT, read_only)
}

/// Copies our binary into the volume.
pub fn install(config: &RenderConfig) -> Container {
    Container {
        name: container::INSTALL.into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some(config.operator_pull_policy.clone()),
        command: parts::applet(applet::INSTALL),
        args: Some(contract::install_args()),
        security_context: Some(parts::plain_root()),
        volume_mounts: Some(vec![binary(false)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

pub fn installed(applet: &str) -> Option<Vec<String>> {
    Some(vec![contract::INSTALLED.into(), applet.into()])
}

/// Runs the agent of the Kairos image on the host, once.
pub fn operation(op: &NodeOp, options: &UpgradeOptions, job: &str, config: &RenderConfig) -> Container {
    Container {
        name: container::NODEOP.into(),
        image: Some(parts::image(&op.spec, config)),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: installed(applet::UPGRADE),
        args: parts::arguments(contract::upgrade_args(job, &config.state_dir, &order(options))),
        env: Some(vec![parts::host_dir(op), parts::job_uid()]),
        // The agent is root's; an image whose USER is another one would only break it.
        security_context: Some(SecurityContext {
            privileged: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, contract::HOST_MOUNT, false), binary(true)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

/// Looks whether the node needs the upgrade, and whether the image could do it.
pub fn check(op: &NodeOp, options: &UpgradeOptions, config: &RenderConfig) -> Container {
    let everywhere = op.spec.node_selector.as_ref().is_none_or(|selector| *selector == <_>::default());
    Container {
        name: container::PREFLIGHT.into(),
        image: Some(parts::image(&op.spec, config)),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: installed(applet::UPGRADE),
        args: parts::arguments(contract::check_args(&config.state_dir, &order(options), everywhere)),
        env: Some(vec![parts::host_dir(op)]),
        security_context: Some(SecurityContext { run_as_user: Some(0), ..parts::unprivileged() }),
        volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, contract::HOST_MOUNT, true), binary(true)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

//! The pod that reboots its node once its Job is `Complete`.
//!
//! It sees the host's processes, to ask init; it has two capabilities, to signal init and to call
//! `reboot(2)`; and it sees one directory of the host. It is never privileged.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, Pod, PodSpec, SeccompProfile, SecurityContext,
};

use super::{RenderConfig, parts};
use crate::{
    api::{
        names::{self, container},
        nodeop::NodeOp,
    },
    contract,
    plan::model::intent,
};

/// Seconds that init gets to reboot before the kernel is asked: systemd itself gives units 90 s to stop, and
/// kills twice.
const GRACE_SECONDS: u32 = 600;

/// The Job that a waiter is for, and what the controller has recorded of it.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    pub job: &'a str,
    pub succeeded: Option<&'a contract::Succeeded>,
}

/// The waiter of `op` on `node`, with the rights of this account.
pub fn pod(op: &NodeOp, node: &str, name: &str, of: For<'_>, account: &str, config: &RenderConfig) -> Pod {
    let mut meta = parts::meta(op, node, name);
    meta.labels.get_or_insert_with(BTreeMap::new).insert(names::REBOOT.into(), "true".into());
    parts::keep_node(&mut meta);
    let (parent, _) = config.state_dir_parts();
    let waiter = reboot(op, of, config);
    Pod {
        metadata: parts::pod_meta(meta, container::REBOOT),
        spec: Some(PodSpec {
            restart_policy: Some("OnFailure".into()),
            host_pid: Some(true),
            service_account_name: Some(account.into()),
            automount_service_account_token: Some(true),
            image_pull_secrets: parts::pull_secrets(&op.spec.image_pull_secrets, config, [&waiter]),
            termination_grace_period_seconds: Some(10),
            containers: vec![waiter],
            volumes: Some(vec![parts::host_path(parts::STATE, parent, "DirectoryOrCreate")]),
            ..parts::pod_spec(node)
        }),
        status: None,
    }
}

fn reboot(op: &NodeOp, of: For<'_>, config: &RenderConfig) -> Container {
    let (_, dir) = config.state_dir_parts();
    let owner = op.metadata.uid.as_deref().unwrap_or_default();
    let timeout = op.spec.reboot_timeout_seconds.unwrap_or(intent::REBOOT_TIMEOUT).max(0).unsigned_abs();
    Container {
        name: container::REBOOT.into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some(config.operator_pull_policy.clone()),
        command: parts::applet(contract::applet::REBOOT_WAITER),
        args: parts::arguments(contract::reboot_waiter_args(
            of.job,
            owner,
            dir,
            (timeout, GRACE_SECONDS),
            of.succeeded,
        )),
        env: Some(vec![
            parts::env_from(contract::env::POD_NAME, "metadata.name"),
            parts::env_from(contract::env::POD_NAMESPACE, "metadata.namespace"),
            parts::env_from(contract::env::POD_UID, "metadata.uid"),
        ]),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: Some(vec!["SYS_BOOT".into(), "KILL".into()]),
            }),
            // The default AppArmor profile and SELinux domain may forbid a container to signal init.
            app_armor_profile: Some(AppArmorProfile { type_: "Unconfined".into(), localhost_profile: None }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..parts::host_writer()
        }),
        volume_mounts: Some(vec![parts::mount(parts::STATE, contract::WAITER_MOUNT, false)]),
        // Its termination message is for people; the annotation is what the controller reads.
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

//! The pod that looks at a node before it is touched: whether it needs the operation, or at least whether it
//! has the image. Not privileged, the host's root read-only if it is there at all.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use super::{RenderConfig, parts, upgrade};
use crate::{
    api::{
        names::{self, container},
        nodeop::{NodeOp, Preflight},
    },
    contract::{self, applet},
    plan::model::intent::{self, Intent},
};

/// Seconds after which the kubelet ends a preflight that the controller, being away, did not judge.
const BACKSTOP: i64 = 600;

/// The preflight of `op` on `node`.
pub fn pod(op: &NodeOp, node: &str, name: &str, config: &RenderConfig) -> Pod {
    let spec = &op.spec;
    let host = || parts::host_path(parts::HOST_ROOT, "/", "Directory");
    let image_check = |name: &str| image_check(op, name, config);
    let (image, check, restart) = match (&spec.preflight, &spec.upgrade) {
        // What fails may be the moment's: the kubelet runs it again until it succeeds or its time is over.
        (Some(preflight), _) => {
            (Some(image_check(container::IMAGE_CHECK)), check(op, preflight, config), "OnFailure")
        }
        // What our own check refuses, it refuses each time.
        (None, Some(options)) => (None, upgrade::check(op, options, config), "Never"),
        (None, None) => (None, image_check(container::PREFLIGHT), "Never"),
    };
    let before: Vec<_> = [upgrade::install(config)].into_iter().chain(image).collect();
    let mut meta = parts::meta(op, node, name);
    meta.labels.get_or_insert_with(BTreeMap::new).insert(names::PREFLIGHT.into(), "true".into());
    let intent = Intent::of(op);
    let run = intent.preflight.deadline.as_secs();
    // A pull may take as long as the Job.
    let starts = intent.pull_timeout.as_secs().max(intent.job_deadline);
    Pod {
        metadata: parts::pod_meta(meta, container::PREFLIGHT),
        spec: Some(PodSpec {
            restart_policy: Some(restart.into()),
            // More than a pod may have means: as long as it may.
            active_deadline_seconds: Some((starts + run + BACKSTOP).min(intent::MAX_SECONDS)),
            image_pull_secrets: parts::pull_secrets(
                &spec.image_pull_secrets,
                config,
                before.iter().chain([&check]),
            ),
            init_containers: Some(before),
            containers: vec![check],
            volumes: Some(vec![host(), upgrade::volume()]),
            ..parts::pod_spec(node)
        }),
        status: None,
    }
}

/// Runs our binary in the user's image: so the image is there, and a container of it starts. It looks whether
/// the image can run the command. Nothing of the user's runs.
fn image_check(op: &NodeOp, name: &str, config: &RenderConfig) -> Container {
    let mut mounts = vec![upgrade::binary(true)];
    let path = intent::host_mount(op);
    let mut command = op.spec.command.iter().flatten();
    // The command may be the host's, or need what is there. Where our binary would be below the host's root,
    // which is read-only here, there is no place for it, and the command is not looked for.
    let program = (!Path::new(contract::INSTALL_MOUNT).starts_with(path)).then(|| {
        mounts.push(parts::mount(parts::HOST_ROOT, path, true));
        command.next().filter(|_| op.spec.upgrade.is_none())
    });
    Container {
        name: name.into(),
        image: Some(parts::image(&op.spec, config)),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: upgrade::installed(applet::IMAGE_CHECK),
        // The kubelet puts variables into it as it does in the command itself.
        args: Some(contract::image_check_args(program.flatten().map(String::as_str))),
        env: Some(vec![parts::host_dir(op)]),
        security_context: Some(parts::unprivileged()),
        volume_mounts: Some(mounts),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_image_is_looked_at_with_the_command_and_what_it_will_see_of_the_host() {
        let config = RenderConfig::of_tests();
        let look = |spec: Value| {
            let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": "op"}, "spec": spec});
            let pod = pod(&serde_json::from_value(op).unwrap(), "n1", "pod", &config).spec.unwrap();
            let mut all = pod.init_containers.into_iter().flatten().chain(pod.containers);
            let look = all.find(|found| found.command == upgrade::installed(applet::IMAGE_CHECK));
            look.map(|look| {
                let hosts =
                    look.volume_mounts.iter().flatten().filter(|mount| mount.name == parts::HOST_ROOT);
                let hosts: Vec<_> = hosts.map(|mount| (mount.mount_path.clone(), mount.read_only)).collect();
                (look.image.unwrap(), look.args.unwrap(), hosts)
            })
        };
        let host = |path: &str| vec![(path.to_owned(), Some(true))];
        let program = vec!["--program=/host/bin/x".to_owned()];
        let command = json!(["/host/bin/x", "-y"]);
        let seen = look(json!({"image": "tool", "command": command}));
        assert_eq!(seen, Some(("tool".into(), program.clone(), host("/host"))));
        let spec = json!({"image": "tool", "command": command, "hostMountPath": "/node", "preflight": {"image": "other", "command": ["x"]}});
        assert_eq!(look(spec), Some(("tool".into(), program, host("/node"))), "also ahead of a user's check");
        for spec in [json!({"image": "tool"}), json!({"image": "tool", "command": []})] {
            assert_eq!(look(spec), Some(("tool".into(), vec![], host("/host"))));
        }
        let spec = json!({"image": "tool", "command": command, "hostMountPath": "/mnt"});
        assert_eq!(look(spec), Some(("tool".into(), vec![], vec![])), "our binary has no place below it");
        assert_eq!(look(json!({"image": "os", "upgrade": {"active": true}})), None);
    }
}

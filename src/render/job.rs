//! The Job that runs an operation on one node.
//!
//! The user's image and command as they are, privileged, the host's root writable. With a reboot the command
//! becomes an init container, and the container after it writes the sentinel: that the Job is `Complete` and
//! that the sentinel is there are then one and the same success. Beside both a container of ours holds the
//! node's lock, see [`lock`]. Where the command has succeeded and the sentinel could not be written, another
//! Job writes it and runs no command.

use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{Container, PodSecurityContext, PodSpec, PodTemplateSpec, SecurityContext},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{RenderConfig, lock, parts, upgrade};
use crate::{
    api::{
        names::container,
        nodeop::{NodeOp, NodeStatus},
    },
    contract,
    plan::model::intent::{self, Intent},
};

/// The node that a Job is for.
#[derive(Clone, Copy, Debug)]
pub struct On<'a> {
    pub node: &'a str,
    /// Its kubelet can hold the node's lock beside a command: it knows native sidecars.
    pub locks: bool,
}

/// The Job of `op` on a node, suspended: it may run once its UID is recorded.
pub fn job(op: &NodeOp, on: On<'_>, name: &str, config: &RenderConfig) -> Job {
    let node = on.node;
    let pod = pod(op, on, name, config);
    let template = pod_meta(op, node, name);
    let template =
        ObjectMeta { labels: template.labels, annotations: template.annotations, ..ObjectMeta::default() };
    Job {
        metadata: parts::meta(op, node, name),
        spec: Some(JobSpec {
            suspend: Some(true),
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(op.spec.backoff_limit.unwrap_or(intent::BACKOFF_LIMIT)),
            active_deadline_seconds: Some(Intent::of(op).job_deadline),
            // A pod that is still ending must not run beside its successor: both would work on the same disk.
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: failure_policy(op, &pod),
            template: PodTemplateSpec { metadata: Some(template), spec: Some(pod) },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn entry<'a>(op: &'a NodeOp, node: &str) -> Option<&'a NodeStatus> {
    op.status.as_ref()?.node_statuses.get(node)
}

/// The boot in which the command has succeeded, if the Job is only to record that. An upgrade needs no such
/// Job, and what follows no reboot has no record.
fn succeeded_in<'a>(op: &'a NodeOp, node: &str) -> Option<&'a str> {
    let is_recorded = op.spec.upgrade.is_none() && op.spec.reboot_on_success.unwrap_or(false);
    entry(op, node)?.succeeded_in.as_deref().filter(|_| is_recorded)
}

/// Metadata of the Job's pod.
pub fn pod_meta(op: &NodeOp, node: &str, name: &str) -> ObjectMeta {
    let main = if succeeded_in(op, node).is_some() { container::SENTINEL } else { container::NODEOP };
    let mut meta = parts::pod_meta(parts::meta(op, node, name), main);
    parts::keep_node(&mut meta);
    meta
}

/// The pod of the Job; the dry run before a rollout creates it by itself, since a Job's template is not
/// admitted with it.
pub fn pod(op: &NodeOp, on: On<'_>, job: &str, config: &RenderConfig) -> PodSpec {
    let (spec, node) = (&op.spec, on.node);
    if let Some(boot) = succeeded_in(op, node) {
        return record(op, (node, boot), job, config);
    }
    let reboot = spec.reboot_on_success.unwrap_or(false);
    let mut volumes = vec![parts::host_path(parts::HOST_ROOT, "/", "Directory")];
    let mut containers = match &spec.upgrade {
        Some(options) => {
            volumes.push(upgrade::volume());
            vec![upgrade::install(config), upgrade::operation(op, options, job, config)]
        }
        None if on.locks => {
            volumes.push(lock::volume());
            vec![lock::holder(reboot, config), operation(op, config)]
        }
        None => vec![operation(op, config)],
    };
    if reboot {
        volumes.push(parts::host_path(parts::STATE, &config.state_dir, "DirectoryOrCreate"));
        containers.push(sentinel(op, job, None, config));
    }
    let found = entry(op, node).and_then(|entry| entry.image.clone());
    if let (Some(operation), Some(image)) =
        (containers.iter_mut().find(|container| container.name == container::NODEOP), found)
    {
        operation.image = Some(image);
    }
    let image_pull_secrets = parts::pull_secrets(&spec.image_pull_secrets, config, &containers);
    // All but the last run one after the other, each only if the one before succeeded, or holds the lock.
    let last = containers.split_off(containers.len() - 1);
    PodSpec {
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: spec.upgrade.as_ref().map(|_| upgrade::GRACE_SECONDS),
        image_pull_secrets,
        security_context: Some(PodSecurityContext::default()),
        init_containers: Some(containers).filter(|containers| !containers.is_empty()),
        containers: last,
        volumes: Some(volumes),
        ..parts::pod_spec(node)
    }
}

/// The pod that only records that the command has succeeded in that boot, where the container that comes
/// after the command could not.
fn record(op: &NodeOp, (node, boot): (&str, &str), job: &str, config: &RenderConfig) -> PodSpec {
    let containers = vec![sentinel(op, job, Some(boot), config)];
    PodSpec {
        restart_policy: Some("Never".into()),
        image_pull_secrets: parts::pull_secrets(&op.spec.image_pull_secrets, config, &containers),
        security_context: Some(PodSecurityContext::default()),
        containers,
        volumes: Some(vec![parts::host_path(parts::STATE, &config.state_dir, "DirectoryOrCreate")]),
        ..parts::pod_spec(node)
    }
}

/// After which failures the Job fails at once, though `backoffLimit` would allow another try. A user's
/// command may end with any code.
///
/// - An upgrade says by its code that no retry can help. After the agent's success a retry only reports it,
///   and may.
/// - The sentinel of a command comes after the command's success, and a retry would run the command again:
///   there is none, whatever kept the success from being recorded.
/// - A container that somebody else added may fail a pod in which the command has succeeded, and a retry
///   would run it again. So a pod that failed neither of our own containers nor of being ended as a whole
///   fails its Job. The operator sees what became of the command; one that had not begun gets another Job.
fn failure_policy(op: &NodeOp, pod: &PodSpec) -> Option<PodFailurePolicy> {
    let (upgrade, reboot) = (op.spec.upgrade.is_some(), op.spec.reboot_on_success.unwrap_or(false));
    let permanent = i32::from(contract::EXIT_PERMANENT);
    let mut rules = Vec::new();
    if upgrade {
        rules.extend(
            [container::INSTALL, container::NODEOP]
                .map(|name| rule(FAIL, on_exit(Some(name), "In", permanent))),
        );
    }
    if reboot {
        let (operator, code) = if upgrade { ("In", permanent) } else { ("NotIn", 0) };
        rules.push(rule(FAIL, on_exit(Some(container::SENTINEL), operator, code)));
    }
    let has = |name: &str| {
        let mut all = pod.init_containers.iter().flatten().chain(&pod.containers);
        all.any(|container| container.name == name)
    };
    // One that only records a success has no command.
    if !upgrade && has(container::NODEOP) {
        rules.push(PodFailurePolicyRule {
            action: COUNT.into(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                status: "True".into(),
                type_: "DisruptionTarget".into(),
            }]),
        });
        let ours = [container::NODEOP, container::NODE_LOCK].into_iter().filter(|name| has(name));
        rules.extend(ours.map(|name| rule(COUNT, on_exit(Some(name), "NotIn", 0))));
        rules.push(rule(FAIL, on_exit(None, "NotIn", 0)));
    }
    (!rules.is_empty()).then_some(PodFailurePolicy { rules })
}

/// What a rule does: the Job fails; or the failure counts towards `backoffLimit`, as without a rule.
const FAIL: &str = "FailJob";
const COUNT: &str = "Count";

fn rule(action: &str, on: PodFailurePolicyOnExitCodesRequirement) -> PodFailurePolicyRule {
    PodFailurePolicyRule { action: action.into(), on_exit_codes: Some(on), on_pod_conditions: None }
}

/// A container ended badly, with such a code; `None`: any of them.
fn on_exit(container: Option<&str>, operator: &str, code: i32) -> PodFailurePolicyOnExitCodesRequirement {
    PodFailurePolicyOnExitCodesRequirement {
        container_name: container.map(Into::into),
        operator: operator.into(),
        values: vec![code],
    }
}

fn operation(op: &NodeOp, config: &RenderConfig) -> Container {
    Container {
        name: container::NODEOP.into(),
        image: Some(parts::image(&op.spec, config)),
        image_pull_policy: parts::pull_policy(&op.spec),
        command: op.spec.command.clone().filter(|command| !command.is_empty()),
        env: Some(vec![parts::host_dir(op)]),
        security_context: Some(SecurityContext { privileged: Some(true), ..SecurityContext::default() }),
        volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, intent::host_mount(op), false)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

/// The container that says that the operation succeeded, and in which boot.
fn sentinel(op: &NodeOp, job: &str, succeeded_in: Option<&str>, config: &RenderConfig) -> Container {
    Container {
        name: container::SENTINEL.into(),
        image: Some(config.operator_image.clone()),
        image_pull_policy: Some(config.operator_pull_policy.clone()),
        command: parts::applet(contract::applet::SENTINEL),
        args: Some(contract::sentinel_args(job, op.spec.upgrade.is_some(), succeeded_in)),
        env: Some(vec![parts::job_uid()]),
        security_context: Some(parts::host_writer()),
        volume_mounts: Some(vec![parts::mount(parts::STATE, contract::SENTINEL_MOUNT, false)]),
        termination_message_policy: parts::termination_message(),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_operation_runs_the_content_that_the_preflight_of_its_node_found() {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": "op", "namespace": "ns", "uid": "u"},
            "spec": {"image": "os:latest", "upgrade": {"active": true}, "rebootOnSuccess": true},
            "status": {"nodeStatuses": {"n1": {"phase": "Running", "image": "os@sha256:1"}, "n2": {"phase": "Running"}}},
        }))
        .unwrap();
        let config = RenderConfig::of_tests();
        for (node, image) in [("n1", "os@sha256:1"), ("n2", "os:latest")] {
            let pod = pod(&op, On { node, locks: true }, "job", &config);
            let operation =
                pod.init_containers.iter().flatten().find(|container| container.name == container::NODEOP);
            assert_eq!(operation.and_then(|operation| operation.image.as_deref()), Some(image));
            assert_eq!(pod.containers[0].image.as_deref(), Some("operator:v1"));
        }
    }
}

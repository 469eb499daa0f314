//! The Job that runs an operation on one node.
//!
//! The user's image and command as they are, privileged, the host's root writable. With a reboot the command becomes an
//! init container, and the container after it writes the sentinel: that the Job is `Complete` and that the sentinel is
//! there are then one and the same success.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
        core::v1::{Container, PodSecurityContext, PodSpec, PodTemplateSpec, SecurityContext},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Site, parts, upgrade};
use crate::{
    api::{names::container, nodeop::NodeOp},
    contract,
    plan::model::intent::{self, Intent},
};

/// The Job of `op` on `node`, suspended: it may run once its UID is recorded.
pub fn job(op: &NodeOp, node: &str, name: &str, site: &Site) -> Job {
    let meta = parts::meta(op, node, name);
    let mut template = ObjectMeta { labels: meta.labels.clone(), annotations: meta.annotations.clone(), ..ObjectMeta::default() };
    parts::keep_node(&mut template);
    Job {
        metadata: meta,
        spec: Some(JobSpec {
            suspend: Some(true),
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(op.spec.backoff_limit.unwrap_or(intent::BACKOFF_LIMIT)),
            active_deadline_seconds: Some(Intent::of(op).job_deadline),
            // A pod that is still ending must not run beside its successor: both would work on the same disk.
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: failure_policy(op),
            template: PodTemplateSpec { metadata: Some(template), spec: Some(pod(op, node, name, site)) },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The pod of the Job; the dry run before a rollout creates it by itself, since a Job's template is not admitted with it.
pub fn pod(op: &NodeOp, node: &str, job: &str, site: &Site) -> PodSpec {
    let spec = &op.spec;
    let mut volumes = vec![parts::host_path(parts::HOST_ROOT, "/", "Directory")];
    let mut containers = match &spec.upgrade {
        Some(options) => {
            volumes.push(upgrade::volume());
            vec![upgrade::install(site), upgrade::operation(op, options, job, site)]
        }
        None => vec![operation(op, site)],
    };
    if spec.reboot_on_success.unwrap_or(false) {
        volumes.push(parts::host_path(parts::STATE, &site.state_dir, "DirectoryOrCreate"));
        containers.push(sentinel(op, job, site));
    }
    let found = op.status.as_ref().and_then(|status| status.node_statuses.get(node)).and_then(|entry| entry.image.clone());
    if let (Some(operation), Some(image)) = (containers.iter_mut().find(|container| container.name == container::NODEOP), found) {
        operation.image = Some(image);
    }
    // All but the last run one after the other, each only if the one before succeeded.
    let last = containers.split_off(containers.len() - 1);
    PodSpec {
        node_name: Some(node.into()),
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: spec.upgrade.as_ref().map(|_| upgrade::GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: parts::pull_secrets(spec),
        tolerations: Some(parts::tolerate_everything()),
        security_context: Some(PodSecurityContext::default()),
        init_containers: Some(containers).filter(|containers| !containers.is_empty()),
        containers: last,
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// An upgrade that says that no retry can mend it is not tried again. A user's command may end with any code.
fn failure_policy(op: &NodeOp) -> Option<PodFailurePolicy> {
    op.spec.upgrade.as_ref()?;
    let permanent = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(container::NODEOP.into()),
        operator: "In".into(),
        values: vec![i32::from(contract::EXIT_PERMANENT)],
    };
    Some(PodFailurePolicy {
        rules: vec![PodFailurePolicyRule { action: "FailJob".into(), on_exit_codes: Some(permanent), on_pod_conditions: None }],
    })
}

fn operation(op: &NodeOp, site: &Site) -> Container {
    Container {
        name: container::NODEOP.into(),
        image: Some(parts::image(&op.spec, site)),
        image_pull_policy: parts::pull_policy(),
        command: op.spec.command.clone().filter(|command| !command.is_empty()),
        env: Some(vec![parts::host_dir(op)]),
        security_context: Some(SecurityContext { privileged: Some(true), ..SecurityContext::default() }),
        volume_mounts: Some(vec![parts::mount(parts::HOST_ROOT, intent::host_mount(op), false)]),
        // What a failed command said last ends up in the node's message.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

/// The container that says that the operation succeeded, and in which boot.
fn sentinel(op: &NodeOp, job: &str, site: &Site) -> Container {
    Container {
        name: container::SENTINEL.into(),
        image: Some(site.operator.clone()),
        image_pull_policy: parts::pull_policy(),
        command: parts::applet(contract::applet::SENTINEL),
        args: Some(contract::sentinel_args(job, op.spec.upgrade.is_some())),
        env: Some(vec![parts::job_uid()]),
        security_context: Some(parts::plain_root()),
        volume_mounts: Some(vec![parts::mount(parts::STATE, contract::SENTINEL_MOUNT, false)]),
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
        let site = Site {
            operator: "operator:v1".into(),
            labeler: "operator:v1".into(),
            namespace: "operator-system".into(),
            default: "busybox".into(),
            state_dir: "/usr/local/.kairos".into(),
        };
        for (node, image) in [("n1", "os@sha256:1"), ("n2", "os:latest")] {
            let pod = pod(&op, node, "job", &site);
            let operation = pod.init_containers.iter().flatten().find(|container| container.name == container::NODEOP);
            assert_eq!(operation.and_then(|operation| operation.image.as_deref()), Some(image));
            assert_eq!(pod.containers[0].image.as_deref(), Some("operator:v1"));
        }
    }
}

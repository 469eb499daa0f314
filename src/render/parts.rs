//! What our Jobs and pods have in common: labels, owner, tolerations, volumes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, EnvVarSource, HostPathVolumeSource, LocalObjectReference,
        ObjectFieldSelector, PodReadinessGate, PodSpec, SELinuxOptions, SecurityContext, Toleration, Volume,
        VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;

use super::RenderConfig;
use crate::{
    api::{
        names,
        nodeop::{NodeOp, NodeOpSpec},
    },
    contract,
    plan::model::intent,
};

/// The volume with the host's root.
pub const HOST_ROOT: &str = "host-root";
/// The volume with the state directory (or its parent, for waiters).
pub const STATE: &str = "sentinel-volume";

/// The labels of everything that we make for one NodeOp on one node.
pub fn labels(op: &NodeOp, node: &str) -> BTreeMap<String, String> {
    let name = op.metadata.name.as_deref().unwrap_or_default();
    BTreeMap::from([
        (names::NODEOP.into(), names::label_value(name)),
        (names::NODE.into(), names::label_value(node)),
    ])
}

/// Metadata of an object that we make for one NodeOp on one node; it goes when the NodeOp goes.
pub fn meta(op: &NodeOp, node: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: op.metadata.namespace.clone(),
        labels: Some(labels(op, node)),
        annotations: Some(BTreeMap::from([(names::NODE_NAME.into(), node.into())])),
        owner_references: Some(vec![owner(op)]),
        ..ObjectMeta::default()
    }
}

/// Metadata of a pod of ours whose container `main` does what the pod is for: nobody adds a container to it,
/// and `kubectl logs` shows that one.
pub fn pod_meta(mut meta: ObjectMeta, main: &str) -> ObjectMeta {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    meta.labels.get_or_insert_with(BTreeMap::new).extend(names::LEAVE_ALONE_LABELS.map(owned));
    let annotations = meta.annotations.get_or_insert_with(BTreeMap::new);
    annotations.extend(names::LEAVE_ALONE_ANNOTATIONS.map(owned));
    annotations.insert(names::DEFAULT_CONTAINER.into(), main.into());
    meta
}

/// What every pod of ours is. It has no priority of its own and asks for no resources: the node that it is
/// bound to may be full and not drained, and a kubelet makes room for a critical pod by killing others,
/// whatever their budgets say. So ours is what is refused, or evicted first, and is made again. It is never
/// Ready, see [`names::NO_REPLICA`].
pub fn pod_spec(node: &str) -> PodSpec {
    PodSpec {
        node_name: Some(node.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        tolerations: Some(tolerate_everything()),
        readiness_gates: Some(vec![PodReadinessGate { condition_type: names::NO_REPLICA.into() }]),
        ..PodSpec::default()
    }
}

/// Tells autoscalers to leave the node alone as long as the pod of these metadata is on it.
pub fn keep_node(meta: &mut ObjectMeta) {
    let keeps = names::KEEPS_NODE.map(|(name, value)| (name.to_owned(), value.to_owned()));
    meta.annotations.get_or_insert_with(BTreeMap::new).extend(keeps);
}

/// A controller reference to the NodeOp. Deleting the NodeOp in the foreground does not wait for its objects:
/// that would delete a running upgrade's pod under it.
pub fn owner(op: &NodeOp) -> OwnerReference {
    OwnerReference { block_owner_deletion: Some(false), ..op.controller_owner_ref(&()).unwrap_or_default() }
}

/// The image of the operation.
pub fn image(spec: &NodeOpSpec, config: &RenderConfig) -> String {
    spec.image.clone().filter(|image| !image.is_empty()).unwrap_or_else(|| config.default_image.clone())
}

/// Our pods go to the node that they are for, whatever its taints: that node is cordoned by us, and may be
/// not ready.
fn tolerate_everything() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]
}

/// For the user's images. Without a word of theirs the server decides, as for any pod: with `:latest` the
/// image that is named is what the registry has now, not what a node still has of an earlier pull.
pub fn pull_policy(spec: &NodeOpSpec) -> Option<String> {
    spec.image_pull_policy.map(|policy| policy.as_str().to_owned())
}

/// What a pod pulls with: the user's Secrets, and those for our own image where one of its containers runs
/// it. One that is not there in the pod's namespace is passed over by the kubelet.
pub fn pull_secrets<'a>(
    of_user: &[LocalObjectReference],
    config: &RenderConfig,
    containers: impl IntoIterator<Item = &'a Container>,
) -> Option<Vec<LocalObjectReference>> {
    let ours = |image: &String| *image == config.operator_image;
    let needed = containers.into_iter().any(|container| container.image.as_ref().is_some_and(ours));
    let own =
        config.pull_secrets.iter().filter(|_| needed).map(|name| LocalObjectReference { name: name.clone() });
    let mut secrets = of_user.to_vec();
    secrets.extend(own.filter(|secret| !of_user.contains(secret)));
    Some(secrets).filter(|secrets| !secrets.is_empty())
}

pub fn host_path(name: &str, path: &str, type_: &str) -> Volume {
    Volume {
        name: name.into(),
        host_path: Some(HostPathVolumeSource { path: path.into(), type_: Some(type_.into()) }),
        ..Volume::default()
    }
}

/// A mount. Read-only means what is mounted below it, too, wherever kubelet and runtime can do that: on
/// Kairos `/usr/local` and parts of `/etc` are mounts of their own below the host's root.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        recursive_read_only: read_only.then(|| "IfPossible".into()),
        ..VolumeMount::default()
    }
}

/// The end of a container's log becomes its termination message if it failed and left none, so that a message
/// can say why.
pub fn termination_message() -> Option<String> {
    Some("FallbackToLogsOnError".into())
}

pub fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

pub fn env_from(name: &str, field: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: field.into(), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value: None, value_from: Some(source) }
}

/// The UID of the Job that the pod belongs to.
pub fn job_uid() -> EnvVar {
    env_from(contract::env::JOB_UID, &format!("metadata.labels['{}']", contract::JOB_UID_LABEL))
}

/// `HOST_DIR`, which scripts and kairos-agent read.
pub fn host_dir(op: &NodeOp) -> EnvVar {
    env(contract::env::HOST_DIR, intent::host_mount(op))
}

/// No right that a process has not by itself.
pub fn unprivileged() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Root, because the files on the host are root's; nothing else.
pub fn plain_root() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        read_only_root_filesystem: Some(true),
        ..unprivileged()
    }
}

/// What [`plain_root`] says, for a container that writes into directories of the host: where SELinux is
/// enforced, the domain that containers have by default may not.
pub fn host_writer() -> SecurityContext {
    let domain = SELinuxOptions { type_: Some("spc_t".into()), ..SELinuxOptions::default() };
    SecurityContext { se_linux_options: Some(domain), ..plain_root() }
}

/// Our binary as one of its applets.
pub fn applet(name: &str) -> Option<Vec<String>> {
    Some(vec![contract::BINARY.into(), name.into()])
}

/// Arguments as they are meant: the kubelet takes `$(NAME)` for a variable, and two dollar signs for one.
pub fn arguments(args: Vec<String>) -> Option<Vec<String>> {
    Some(args.into_iter().map(|arg| arg.replace('$', "$$")).collect())
}

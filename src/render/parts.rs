//! What our Jobs and pods have in common: labels, owner, tolerations, volumes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        EnvVar, EnvVarSource, HostPathVolumeSource, LocalObjectReference, ObjectFieldSelector, SecurityContext, Toleration, Volume,
        VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;

use super::Site;
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
    BTreeMap::from([(names::NODEOP.into(), names::label_value(name)), (names::NODE.into(), names::label_value(node))])
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

/// Tells autoscalers to leave the node alone as long as the pod of these metadata is on it.
pub fn keep_node(meta: &mut ObjectMeta) {
    let keeps = names::KEEPS_NODE.map(|(name, value)| (name.to_owned(), value.to_owned()));
    meta.annotations.get_or_insert_with(BTreeMap::new).extend(keeps);
}

/// A controller reference to the NodeOp. Deleting the NodeOp in the foreground does not wait for its objects: that
/// would delete a running upgrade's pod under it.
pub fn owner(op: &NodeOp) -> OwnerReference {
    OwnerReference { block_owner_deletion: Some(false), ..op.controller_owner_ref(&()).unwrap_or_default() }
}

/// The image of the operation.
pub fn image(spec: &NodeOpSpec, site: &Site) -> String {
    spec.image.clone().filter(|image| !image.is_empty()).unwrap_or_else(|| site.default.clone())
}

/// Our pods go to the node that they are for, whatever its taints: that node is cordoned by us, and may be not ready.
pub fn tolerate_everything() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]
}

/// Never `Always`, which Kubernetes takes for `:latest`: a node without a registry could not start what it already has.
pub fn pull_policy() -> Option<String> {
    Some("IfNotPresent".into())
}

pub fn pull_secrets(spec: &NodeOpSpec) -> Option<Vec<LocalObjectReference>> {
    (!spec.image_pull_secrets.is_empty()).then(|| spec.image_pull_secrets.clone())
}

pub fn host_path(name: &str, path: &str, type_: &str) -> Volume {
    Volume {
        name: name.into(),
        host_path: Some(HostPathVolumeSource { path: path.into(), type_: Some(type_.into()) }),
        ..Volume::default()
    }
}

pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), read_only: read_only.then_some(true), ..VolumeMount::default() }
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

/// Root, because the files on the host are root's; nothing else.
pub fn plain_root() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(k8s_openapi::api::core::v1::Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Our binary as one of its applets.
pub fn applet(name: &str) -> Option<Vec<String>> {
    Some(vec![contract::BINARY.into(), name.into()])
}

/// Arguments as they are meant: the kubelet takes `$(NAME)` for a variable, and two dollar signs for one.
pub fn arguments(args: Vec<String>) -> Option<Vec<String>> {
    Some(args.into_iter().map(|arg| arg.replace('$', "$$")).collect())
}

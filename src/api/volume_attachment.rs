//! A VolumeAttachment, as much of it as is read. A cluster has thousands of them, and a driver's own status
//! and who manages which field are most of each.

use k8s_openapi::{api::storage::v1 as storage, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

use super::read_as::read_as;

/// Which volume is attached to which node. It is read and never written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    /// None of it is read.
    #[serde(skip)]
    metadata: ObjectMeta,
    pub spec: VolumeAttachmentSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachmentSpec {
    pub node_name: String,
    pub source: VolumeAttachmentSource,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachmentSource {
    /// Nothing for a volume that stands in a pod itself.
    pub persistent_volume_name: Option<String>,
}

read_as!(VolumeAttachment, storage::VolumeAttachment);

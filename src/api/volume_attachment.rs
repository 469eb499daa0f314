//! A VolumeAttachment, as much of it as is read. A cluster has thousands of them, and a driver's own status and
//! who manages which field are most of each.

use std::borrow::Cow;

use k8s_openapi::{api::storage::v1 as storage, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

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

impl Resource for VolumeAttachment {
    type DynamicType = ();
    type Scope = <storage::VolumeAttachment as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        storage::VolumeAttachment::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        storage::VolumeAttachment::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        storage::VolumeAttachment::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        storage::VolumeAttachment::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

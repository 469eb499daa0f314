//! A PersistentVolumeClaim, as much of it as is read.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

use super::read_as::read_as;

/// Which volume a claim has. It is read and never written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaim {
    /// None of it is read.
    #[serde(skip)]
    metadata: ObjectMeta,
    pub spec: Option<PersistentVolumeClaimSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaimSpec {
    pub volume_name: Option<String>,
}

read_as!(PersistentVolumeClaim, core::PersistentVolumeClaim);

//! A Pod, as much of it as is read. Most of one is what its containers are to run, which decides nothing
//! here; and whoever writes a pod, or its status, can write nothing into what is read that makes it
//! unreadable.

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{bounded::few, metadata, read_as::read_as, times::near};

/// Volumes, tolerations and conditions of a pod that are looked at: far more than a pod of a use has.
const MAX_VOLUMES: usize = 512;
const MAX_TOLERATIONS: usize = 256;
const MAX_CONDITIONS: usize = 64;
/// Containers of a pod that are looked at, and as many that run before them. Ours have four at most, and what
/// webhooks add.
pub const MAX_CONTAINERS: usize = 32;

/// The part of a Pod that decides something. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "metadata::in_part")]
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub node_name: Option<String>,
    #[serde(deserialize_with = "few::<_, _, MAX_VOLUMES>")]
    pub volumes: Option<Vec<Volume>>,
    #[serde(deserialize_with = "few::<_, _, MAX_TOLERATIONS>")]
    pub tolerations: Option<Vec<Toleration>>,
}

/// Where a volume comes from, as far as a drain asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    /// That there is one is all that is asked.
    pub ephemeral: Option<IgnoredAny>,
    /// That there is one is all that is asked.
    pub empty_dir: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSource {
    pub claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toleration {
    pub key: Option<String>,
    pub operator: Option<String>,
    pub value: Option<String>,
    pub effect: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    #[serde(deserialize_with = "few::<_, _, MAX_CONDITIONS>")]
    pub conditions: Option<Vec<PodCondition>>,
    #[serde(deserialize_with = "few::<_, _, MAX_CONTAINERS>")]
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    #[serde(deserialize_with = "few::<_, _, MAX_CONTAINERS>")]
    pub container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    pub state: Option<ContainerState>,
    pub last_state: Option<ContainerState>,
    pub restart_count: i32,
    pub started: Option<bool>,
    #[serde(rename = "imageID")]
    pub image_id: String,
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<Waiting>,
    pub running: Option<Running>,
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    #[serde(deserialize_with = "near")]
    pub started_at: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    pub exit_code: i32,
    pub reason: Option<String>,
    pub message: Option<String>,
}

read_as!(Pod, core::Pod);

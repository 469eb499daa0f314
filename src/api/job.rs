//! A Job, as much of it as is read: not the pods that it is to make, and no time that we cannot hold.

use k8s_openapi::{
    api::batch::v1 as batch,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{bounded::few, metadata, read_as::read_as, times::near};

/// Pods that are counted one by one; the controller of Jobs counts at most 500 at once.
const MAX_UNCOUNTED: usize = 1000;

/// Conditions of a Job that are looked at. The controller of Jobs knows seven.
const MAX_CONDITIONS: usize = 64;

/// The part of a Job that decides something. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    #[serde(deserialize_with = "metadata::in_part")]
    pub metadata: ObjectMeta,
    pub spec: Option<JobSpec>,
    pub status: Option<JobStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    pub suspend: Option<bool>,
    pub parallelism: Option<i32>,
    pub active_deadline_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    #[serde(deserialize_with = "near")]
    pub start_time: Option<Time>,
    pub failed: Option<i32>,
    pub active: Option<i32>,
    pub ready: Option<i32>,
    pub uncounted_terminated_pods: Option<UncountedPods>,
    #[serde(deserialize_with = "few::<_, _, MAX_CONDITIONS>")]
    pub conditions: Option<Vec<JobCondition>>,
}

/// The UIDs of pods that have ended: those are gone perhaps, and not counted yet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UncountedPods {
    #[serde(deserialize_with = "few::<_, _, MAX_UNCOUNTED>")]
    pub failed: Option<Vec<IgnoredAny>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

read_as!(Job, batch::Job);

//! A Role, as much of it as is read.

use k8s_openapi::{
    api::rbac::v1::{self as rbac, PolicyRule},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;

use super::{metadata, read_as::read_as};

/// Whose Role it is, and what it allows. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Role {
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    pub rules: Option<Vec<PolicyRule>>,
}

read_as!(Role, rbac::Role);

//! A Role and a RoleBinding, as much of each as is read.

use k8s_openapi::{
    api::rbac::v1::{self as rbac, PolicyRule, RoleRef, Subject},
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

/// Whose RoleBinding it is, and to whom it grants what. It is read and never written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleBinding {
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    pub role_ref: RoleRef,
    pub subjects: Option<Vec<Subject>>,
}

impl RoleBinding {
    /// Whether it grants the same to the same ones.
    pub fn grants_as(&self, wanted: &rbac::RoleBinding) -> bool {
        self.role_ref == wanted.role_ref && self.subjects == wanted.subjects
    }
}

read_as!(RoleBinding, rbac::RoleBinding);

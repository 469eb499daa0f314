//! What a NodeOp's waiters may do: read and annotate their own pods, read and watch their own Jobs, by name, and say
//! one kind of Event. One account per NodeOp, for as long as it runs.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::parts;
use crate::{
    api::{names, nodeop::NodeOp},
    plan::model::{action::Grant, object_name::account as account_name},
};

/// The name of the account, its Role and its RoleBinding.
pub fn account(op: &NodeOp) -> String {
    account_name((op.metadata.name.as_deref().unwrap_or_default(), op.metadata.uid.as_deref().unwrap_or_default()))
}

fn meta(op: &NodeOp) -> ObjectMeta {
    let name = op.metadata.name.as_deref().unwrap_or_default();
    ObjectMeta {
        name: Some(account(op)),
        namespace: op.metadata.namespace.clone(),
        labels: Some([(names::NODEOP.to_owned(), names::label_value(name))].into()),
        owner_references: Some(vec![parts::owner(op)]),
        ..ObjectMeta::default()
    }
}

pub fn service_account(op: &NodeOp) -> ServiceAccount {
    ServiceAccount { metadata: meta(op), ..ServiceAccount::default() }
}

/// The rules of the waiters in hand. What stands here must also stand in the operator's own ClusterRole: nobody can
/// grant what they do not hold.
pub fn role(op: &NodeOp, grant: &Grant) -> Role {
    let rule = |group: &str, resource: &str, verbs: &[&str], names: Option<&[String]>| PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: names.map(<[String]>::to_vec),
        verbs: verbs.iter().map(|verb| (*verb).into()).collect(),
        ..PolicyRule::default()
    };
    Role {
        metadata: meta(op),
        rules: Some(vec![
            rule("", "pods", &["get", "patch"], Some(&grant.waiters)),
            rule("batch", "jobs", &["get", "list", "watch"], Some(&grant.jobs)),
            rule("events.k8s.io", "events", &["create"], None),
        ]),
    }
}

pub fn role_binding(op: &NodeOp) -> RoleBinding {
    let namespace = op.metadata.namespace.clone();
    RoleBinding {
        metadata: meta(op),
        role_ref: RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: "Role".into(), name: account(op) },
        subjects: Some(vec![Subject { kind: "ServiceAccount".into(), name: account(op), namespace, api_group: None }]),
    }
}

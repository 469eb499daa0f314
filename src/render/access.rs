//! What a NodeOp's waiters may do: read and annotate their own pods, read and watch their own Jobs, by name,
//! and say one kind of Event. One account per NodeOp, for as long as it runs.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::parts;
use crate::{
    api::{names, nodeop::NodeOp},
    plan::model::action::WaiterGrant,
};

/// `account` is the name of all three.
fn meta(op: &NodeOp, account: &str) -> ObjectMeta {
    let name = op.metadata.name.as_deref().unwrap_or_default();
    ObjectMeta {
        name: Some(account.into()),
        namespace: op.metadata.namespace.clone(),
        labels: Some([(names::NODEOP.to_owned(), names::label_value(name))].into()),
        owner_references: Some(vec![parts::owner(op)]),
        ..ObjectMeta::default()
    }
}

pub fn service_account(op: &NodeOp, account: &str) -> ServiceAccount {
    ServiceAccount { metadata: meta(op, account), ..ServiceAccount::default() }
}

/// The rules of the waiters in hand. What stands here must also stand in the operator's own ClusterRole:
/// nobody can grant what they do not hold. A rule without a name would hold for all of them, so there is
/// none.
pub fn role(op: &NodeOp, account: &str, grant: &WaiterGrant) -> Role {
    let rule = |group: &str, resource: &str, verbs: &[&str], names: Option<&[String]>| PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: names.map(<[String]>::to_vec),
        verbs: verbs.iter().map(|verb| (*verb).into()).collect(),
        ..PolicyRule::default()
    };
    let rules = [
        rule("", "pods", &["get", "patch"], Some(&grant.waiters)),
        rule("batch", "jobs", &["get", "list", "watch"], Some(&grant.jobs)),
        rule("events.k8s.io", "events", &["create"], None),
    ];
    let named = |rule: &PolicyRule| rule.resource_names.as_ref().is_none_or(|names| !names.is_empty());
    Role { metadata: meta(op, account), rules: Some(rules.into_iter().filter(named).collect()) }
}

pub fn role_binding(op: &NodeOp, account: &str) -> RoleBinding {
    let namespace = op.metadata.namespace.clone();
    RoleBinding {
        metadata: meta(op, account),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: account.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: account.into(),
            namespace,
            api_group: None,
        }]),
    }
}

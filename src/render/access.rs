//! What a NodeOp's waiters may do: read and annotate their own pods, read and watch their own Jobs, by name,
//! and say one kind of Event. One account per NodeOp, for as long as it runs.

use std::collections::BTreeSet;

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

/// A right of the waiters, and why they have it.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    pub reason: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    on: On,
}

/// Which objects a right is about.
#[derive(Clone, Copy, Debug)]
enum On {
    Waiters,
    Jobs,
    /// What is created cannot be named in a Role.
    New,
}

impl Right {
    /// The objects as a reader knows them.
    pub fn objects(self) -> &'static str {
        match self.on {
            On::Waiters => "the waiters at work, by name",
            On::Jobs => "their Jobs, by name",
            On::New => "any",
        }
    }

    /// The names in a Role; `None` where there can be none.
    fn names(self, grant: &WaiterGrant) -> Option<&BTreeSet<String>> {
        match self.on {
            On::Waiters => Some(&grant.waiters),
            On::Jobs => Some(&grant.jobs),
            On::New => None,
        }
    }
}

/// All that waiters may do. What stands here must also stand in the operator's own ClusterRole: nobody can
/// grant what they do not hold.
pub const RIGHTS: [Right; 3] = [
    Right {
        reason: "A waiter reads its own pod, to know whether it is wanted still, and announces there what it is about to do.",
        group: "",
        resource: "pods",
        verbs: &["get", "patch"],
        on: On::Waiters,
    },
    Right {
        reason: "It reboots once its Job is complete, and not before.",
        group: "batch",
        resource: "jobs",
        verbs: &["get", "list", "watch"],
        on: On::Jobs,
    },
    Right {
        reason: "It says in one Event that it had to ask the kernel because the node's init did not reboot.",
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create"],
        on: On::New,
    },
];

/// The rules of the waiters at work. A rule with an empty list of names would hold for all objects, so it is
/// left out.
pub fn role(op: &NodeOp, account: &str, grant: &WaiterGrant) -> Role {
    let named = |right: &Right| right.names(grant).is_none_or(|names| !names.is_empty());
    let rule = |right: Right| PolicyRule {
        api_groups: Some(vec![right.group.into()]),
        resources: Some(vec![right.resource.into()]),
        resource_names: right.names(grant).map(|names| names.iter().cloned().collect()),
        verbs: right.verbs.iter().map(|verb| (*verb).into()).collect(),
        ..PolicyRule::default()
    };
    Role { metadata: meta(op, account), rules: Some(RIGHTS.into_iter().filter(named).map(rule).collect()) }
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

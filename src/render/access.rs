//! What a reboot waiter may do: read and annotate its own pod, read and watch its own Job, by name, and say
//! one kind of Event. Each node's waiter has an account of its own, for as long as the NodeOp runs.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};

use super::parts;
use crate::api::nodeop::NodeOp;

/// To whom something is granted: the waiter of one node, and the Job that it waits for.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    pub node: &'a str,
    pub waiter: &'a str,
    pub job: &'a str,
}

/// `account` is the name of this, of the Role and of the RoleBinding.
pub fn service_account(op: &NodeOp, account: &str, grant: Grant<'_>) -> ServiceAccount {
    ServiceAccount { metadata: parts::meta(op, grant.node, account), ..ServiceAccount::default() }
}

/// A right of a waiter, and why it has it.
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
    Waiter,
    Job,
    /// What is created cannot be named in a Role.
    New,
}

impl Right {
    /// The objects as a reader knows them.
    pub fn objects(self) -> &'static str {
        match self.on {
            On::Waiter => "its own pod, by name",
            On::Job => "its own Job, by name",
            On::New => "any",
        }
    }

    /// The name in a Role; `None` where there can be none.
    fn name<'a>(self, grant: Grant<'a>) -> Option<&'a str> {
        match self.on {
            On::Waiter => Some(grant.waiter),
            On::Job => Some(grant.job),
            On::New => None,
        }
    }
}

/// All that a waiter may do. What stands here must also stand in the operator's own ClusterRole: nobody can
/// grant what they do not hold.
pub const RIGHTS: [Right; 3] = [
    Right {
        reason: "A waiter reads its own pod, to know whether it is wanted still, and announces there what it is about to do.",
        group: "",
        resource: "pods",
        verbs: &["get", "patch"],
        on: On::Waiter,
    },
    Right {
        reason: "It reboots once its Job is complete, and not before.",
        group: "batch",
        resource: "jobs",
        verbs: &["get", "list", "watch"],
        on: On::Job,
    },
    Right {
        reason: "It says in one Event that it had to ask the kernel because the node's init did not reboot.",
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create"],
        on: On::New,
    },
];

/// The rules of one waiter.
pub fn role(op: &NodeOp, account: &str, grant: Grant<'_>) -> Role {
    let rule = |right: Right| PolicyRule {
        api_groups: Some(vec![right.group.into()]),
        resources: Some(vec![right.resource.into()]),
        resource_names: right.name(grant).map(|name| vec![name.to_owned()]),
        verbs: right.verbs.iter().map(|verb| (*verb).into()).collect(),
        ..PolicyRule::default()
    };
    Role { metadata: parts::meta(op, grant.node, account), rules: Some(RIGHTS.map(rule).into()) }
}

pub fn role_binding(op: &NodeOp, account: &str, grant: Grant<'_>) -> RoleBinding {
    let namespace = op.metadata.namespace.clone();
    RoleBinding {
        metadata: parts::meta(op, grant.node, account),
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

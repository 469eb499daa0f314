//! Who may do what: the operator, a NodeOp's waiters, and users. Each grant has its reason.
//!
//! The operator holds what it does itself and what it must hold to grant to waiters: a server lets nobody
//! create a Role with more than its creator has. No secrets, no wildcard, no `escalate`, no `bind`. That
//! nothing stands here that nobody uses is tested on a run of everything (`tests/it/reconcile/rights.rs`).

use k8s_openapi::{
    api::{
        core::v1::ServiceAccount,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

use super::yaml;
use crate::api::names;

/// Verbs on resources, and why.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub reason: &'static str,
    pub group: &'static str,
    pub resources: &'static [&'static str],
    /// Empty: all objects.
    pub names: &'static [&'static str],
    pub verbs: &'static [&'static str],
}

const fn grant(
    reason: &'static str,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Grant {
    Grant { reason, group, resources, names: &[], verbs }
}

const CORE: &str = "";
const BATCH: &str = "batch";
const RBAC: &str = "rbac.authorization.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const EVENTS: &str = "events.k8s.io";

/// What the operator does, in any namespace (a NodeOp may stand in each), and what it grants: see
/// [`crate::render::access`].
pub const OPERATOR: &[Grant] = &[
    grant(
        "Targets, their readiness and boot ids; patch: cordon, claim, what autoscalers, load balancers and remediators are asked, labels \
         with what a node runs. An admission policy lets it change nothing else there.",
        CORE,
        &["nodes"],
        &["get", "list", "watch", "patch"],
    ),
    grant(
        "With --node-conditions=auto: the conditions MaintenanceInProgress, DrainInProgress and Drained. An admission policy lets it change nothing else there.",
        CORE,
        &["nodes/status"],
        &["patch"],
    ),
    grant(
        "Waiters, preflight and facts pods, the pods of a node that is drained, the static pods of a control plane. Patch is held to be granted: a waiter annotates itself.",
        CORE,
        &["pods"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    grant(
        "Drains wait until the volumes of evicted pods are detached. A list, since attachments cannot be selected by node.",
        STORAGE,
        &["volumeattachments"],
        &["list"],
    ),
    grant(
        "The volumes of the pods that stay on a drained node are not waited for.",
        CORE,
        &["persistentvolumeclaims"],
        &["get"],
    ),
    grant(
        "Drains: evictions obey PodDisruptionBudgets, a plain delete would not.",
        CORE,
        &["pods/eviction"],
        &["create"],
    ),
    grant(
        "The operation on each node; get, list and watch are granted to waiters too.",
        BATCH,
        &["jobs"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    grant(
        "What users ask for; create: the NodeOp of a NodeOpUpgrade; patch: finalizers, and concurrency, paused, stopOnFailure and notAfter passed on to that NodeOp; \
         delete: one that is over, after its ttlSecondsAfterFinished, or of a run of an upgrade that is not kept.",
        names::GROUP,
        &["nodeops"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    grant("What users ask for.", names::GROUP, &["nodeopupgrades"], &["list", "watch"]),
    grant("What came of it.", names::GROUP, &["nodeops/status", "nodeopupgrades/status"], &["patch"]),
    grant(
        "A NodeOp holds up the deletion of its NodeOpUpgrade; asked for where OwnerReferencesPermissionEnforcement is on.",
        names::GROUP,
        &["nodeopupgrades/finalizers"],
        &["update"],
    ),
    grant(
        "The account of each node's reboot waiter; list: to find those of a NodeOp that is over.",
        CORE,
        &["serviceaccounts"],
        &["get", "list", "create", "delete"],
    ),
    grant(
        "What that waiter may do, with its own pod and its own Job, by name; patch: a waiter that was lost has a successor.",
        RBAC,
        &["roles"],
        &["get", "list", "create", "patch", "delete"],
    ),
    grant("To whom it is given.", RBAC, &["rolebindings"], &["get", "list", "create", "delete"]),
    grant(
        "What happens, for kubectl describe. Create is also granted to waiters. List: why a pod of ours has no \
         container, and a Job of ours no pod, which their kubelet and controller tell in Events alone.",
        EVENTS,
        &["events"],
        &["list", "create"],
    ),
];

/// What the operator does in its own namespace.
pub const LEADER: &[Grant] = &[
    Grant {
        reason: "Leader election: the one Lease is watched, so that a standby takes over when it is released.",
        group: COORDINATION,
        resources: &["leases"],
        names: &[names::LEASE],
        verbs: &["get", "list", "watch", "update"],
    },
    grant(
        "The Lease is made at first start. A create cannot be limited to a name.",
        COORDINATION,
        &["leases"],
        &["create"],
    ),
];

const KINDS: &[&str] = &["nodeops", "nodeopupgrades"];
const STATUS: &[&str] = &["nodeops/status", "nodeopupgrades/status"];
const READ: &[&str] = &["get", "list", "watch"];
const EDIT: &[&str] = &["get", "list", "watch", "create", "patch", "update", "delete"];
const ADMIN: &[&str] = &["get", "list", "watch", "create", "patch", "update", "delete", "deletecollection"];

const ROOT: &str = "Whoever creates a NodeOp or NodeOpUpgrade runs any command as root on the nodes. So this role is not aggregated to the\n\
     cluster's own: a user with `edit` in one namespace would own every node. Bind it to people; who wants it aggregated all\n\
     the same uses the component manifests/aggregated-roles.";

/// Roles for users: name, why it is as it is, verbs, and the label that makes it a part of a role of the
/// cluster.
pub(super) const USERS: [(&str, &str, &[&str], Option<&str>); 3] = [
    ("nodeop-admin-role", ROOT, ADMIN, None),
    ("nodeop-editor-role", ROOT, EDIT, None),
    (
        "nodeop-viewer-role",
        "An operation shows no more than the pods that it makes, so whoever may view a namespace may view it.",
        READ,
        Some("rbac.authorization.k8s.io/aggregate-to-view"),
    ),
];

/// Whether the operator holds all of `granted` in every namespace: a server lets nobody create a Role with
/// more than they hold.
pub fn operator_holds(granted: &[PolicyRule]) -> bool {
    let holds = |group: &str, resource: &str, verb: &str| {
        OPERATOR.iter().any(|grant| {
            grant.group == group && grant.resources.contains(&resource) && grant.verbs.contains(&verb)
        })
    };
    granted.iter().all(|rule| {
        let groups = rule.api_groups.iter().flatten();
        let mut wanted =
            groups.flat_map(|group| rule.resources.iter().flatten().map(move |resource| (group, resource)));
        wanted.all(|(group, resource)| rule.verbs.iter().all(|verb| holds(group, resource, verb)))
    })
}

impl Grant {
    /// The grant as a rule of a Role.
    pub fn rule(&self) -> PolicyRule {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(vec![self.group.to_owned()]),
            resources: Some(owned(self.resources)),
            resource_names: (!self.names.is_empty()).then(|| owned(self.names)),
            verbs: owned(self.verbs),
            non_resource_urls: None,
        }
    }
}

/// File names and texts of `manifests/rbac`.
pub(super) fn files() -> anyhow::Result<Vec<(String, String)>> {
    let operator = [
        yaml::document(&ServiceAccount { metadata: in_namespace(ACCOUNT), ..ServiceAccount::default() })?,
        role(&ClusterRole { metadata: named("manager-role"), ..ClusterRole::default() }, OPERATOR)?,
        yaml::document(&ClusterRoleBinding {
            metadata: named("kairos-operator-rolebinding"),
            role_ref: reference("ClusterRole", "manager-role"),
            subjects: Some(vec![account()]),
        })?,
        role(&Role { metadata: in_namespace("leader-election-role"), ..Role::default() }, LEADER)?,
        yaml::document(&RoleBinding {
            metadata: in_namespace("leader-election-rolebinding"),
            role_ref: reference("Role", "leader-election-role"),
            subjects: Some(vec![account()]),
        })?,
    ];
    let mut users = Vec::new();
    for (name, why, verbs, aggregate) in USERS {
        let mut metadata = named(name);
        if let (Some(labels), Some(label)) = (&mut metadata.labels, aggregate) {
            labels.insert(label.to_owned(), "true".to_owned());
        }
        let grants = [
            grant("The operations.", names::GROUP, KINDS, verbs),
            grant("Their outcome.", names::GROUP, STATUS, &["get"]),
        ];
        users.push(format!(
            "{}{}",
            comment(why, ""),
            role(&ClusterRole { metadata, ..ClusterRole::default() }, &grants)?
        ));
    }
    Ok(vec![
        ("operator.yaml".to_owned(), operator.join("---\n")),
        ("users.yaml".to_owned(), users.join("---\n")),
    ])
}

const ACCOUNT: &str = "kairos-operator";
/// Kustomize puts the real one; see `manifests/default`.
const NAMESPACE: &str = "system";

/// A role without rules, and its rules below it, each with its reason as a comment.
fn role<T: Serialize>(head: &T, grants: &[Grant]) -> anyhow::Result<String> {
    let mut text = yaml::document(head)?;
    text.push_str("rules:\n");
    for grant in grants {
        text.push_str(&comment(grant.reason, ""));
        text.push_str(&yaml::document(&[grant.rule()])?);
    }
    Ok(text)
}

fn comment(text: &str, indent: &str) -> String {
    text.lines().map(|line| format!("{indent}# {}\n", line.trim())).collect()
}

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/name", ACCOUNT), (names::MANAGED_BY, "kustomize")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

fn in_namespace(name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(NAMESPACE.to_owned()), ..named(name) }
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: RBAC.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn account() -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: ACCOUNT.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        ..Subject::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wildcard_no_secret_no_escalation() {
        for grant in OPERATOR.iter().chain(LEADER) {
            let message = grant.resources.iter().chain(grant.verbs).chain([&grant.group]);
            for word in message {
                assert!(!["*", "secrets", "escalate", "bind", "impersonate"].contains(word), "{grant:?}");
            }
            assert!(grant.reason.ends_with('.'), "{grant:?}");
        }
    }

    #[test]
    fn only_reading_is_aggregated() {
        for (name, _, verbs, aggregate) in USERS {
            assert!(aggregate.is_none() || verbs.iter().all(|verb| READ.contains(verb)), "{name}");
        }
    }
}

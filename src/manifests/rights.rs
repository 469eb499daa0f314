//! The page of docs/ that says who may do what, and why: the same constants of which the roles are made.

use super::{
    markdown::{code, table},
    rbac::{Grant, LEADER, OPERATOR, USERS},
};
use crate::render::access::RIGHTS;

/// The page.
pub(super) fn page() -> String {
    let parts = [
        INTRODUCTION.to_owned(),
        "## The operator, in all namespaces\n\n".to_owned() + &grants(OPERATOR),
        "## The operator, in its own namespace\n\n".to_owned() + &grants(LEADER),
        "## A reboot waiter, in the namespace of its NodeOp\n\n".to_owned() + WAITERS + &waiters(),
        "## All other pods\n\n".to_owned() + OTHERS,
        "## People\n\n".to_owned() + &users() + PEOPLE,
    ];
    parts.join("\n")
}

const INTRODUCTION: &str = "# Rights

Every right that the operator, its helpers and its users get from `manifests/default`, with the reason for it. A test runs
everything that the operator can do and compares the rights that were used with these: no right stands here without a use,
apart from the one that is held only to be granted. `kubectl auth can-i --list
--as=system:serviceaccount:operator-system:operator-kairos-operator` shows the same on a cluster, beside what a cluster gives
to every account. What the rights mean for you is said in [Security](security.md).

There is no wildcard and no right to read Secrets, and the operator can grant nothing that it does not hold itself.
";

const WAITERS: &str = "Each node's reboot waiter has an account of its own, made with the waiter and deleted when the NodeOp is over. It names one
pod and one Job, so that a compromised node can do nothing with it to another node, whatever policies the cluster has. The
token is bound to the pod: with the pod it ends.

That costs three objects, and so six writes, for each node that is rebooted.

";

const OTHERS: &str =
    "Jobs, preflights and the pods that read what a node runs have no token, and so no rights at all.\n";

const PEOPLE: &str = "
**The editor and the admin role make their holders root on the nodes.** They are not aggregated to the cluster's own roles,
since everybody with `edit` in any namespace would then own every node. Bind them to people; if you want them aggregated
all the same, use the component `manifests/aggregated-roles` in an overlay. `manifests/default` puts `operator-` before each
name.
";

fn grants(grants: &[Grant]) -> String {
    let row = |grant: &Grant| {
        let resources: Vec<String> = grant.resources.iter().map(|resource| code(resource)).collect();
        let names: Vec<String> = grant.names.iter().map(|name| code(name)).collect();
        let limit = if names.is_empty() { String::new() } else { format!(", only {}", names.join(", ")) };
        vec![
            format!("{}{limit}", resources.join(", ")),
            group(grant.group),
            grant.verbs.join(", "),
            grant.reason.to_owned(),
        ]
    };
    table(&["resources", "API group", "verbs", "why"], &grants.iter().map(row).collect::<Vec<_>>())
}

fn group(name: &str) -> String {
    if name.is_empty() { "core".to_owned() } else { code(name) }
}

fn waiters() -> String {
    let rows = RIGHTS.map(|right| {
        let resource = format!("{}, {}", code(right.resource), right.objects());
        vec![resource, group(right.group), right.verbs.join(", "), right.reason.to_owned()]
    });
    table(&["resources", "API group", "verbs", "why"], &rows)
}

fn users() -> String {
    let row = |(name, _, verbs, aggregate): (&str, &str, &[&str], Option<&str>)| {
        let part = aggregate.map_or_else(
            || "no".to_owned(),
            |label| code(label.rsplit("aggregate-to-").next().unwrap_or(label)),
        );
        vec![code(name), verbs.join(", "), part]
    };
    table(
        &["ClusterRole", "verbs on NodeOps and NodeOpUpgrades", "part of the cluster's own role"],
        &USERS.map(row),
    )
}

//! What each verb asks the API server for, and whether the user may.
//!
//! A test runs every verb and compares what the server was asked with this list: see
//! `tests/it/plugin/rights.rs`. What `check` and `version` read of the operator itself they tell in their own
//! place, and a completion that may read nothing completes nothing.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::{
    connection::Connection,
    failure::{Doing, Result},
};
use crate::{api::names, observe::static_pods};

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the namespace that the user works in.
    Own,
    /// In all namespaces.
    All,
    /// In this one.
    In(&'static str),
    /// The resource is in no namespace.
    Cluster,
}

/// A right, and which verbs of this program need it.
#[derive(Debug)]
pub struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    place: Place,
    /// Without it nothing can be seen.
    pub needed: bool,
    /// The verbs, by commas, with the flag that makes the difference; what is in brackets explains.
    pub verbs: &'static str,
}

const UPGRADES: (&str, &str) = (names::GROUP, "nodeopupgrades");
const OPS: (&str, &str) = (names::GROUP, "nodeops");
const NODES: (&str, &str) = ("", "nodes");
const PODS: (&str, &str) = ("", "pods");
const JOBS: (&str, &str) = ("batch", "jobs");
const EVENTS: (&str, &str) = ("", "events");

const fn right(
    verb: &'static str,
    (group, resource): (&'static str, &'static str),
    place: Place,
    verbs: &'static str,
) -> Right {
    Right { verb, group, resource, subresource: "", place, needed: false, verbs }
}

/// One without which nothing can be seen.
const fn needed(right: Right) -> Right {
    Right { needed: true, ..right }
}

const fn of(subresource: &'static str, right: Right) -> Right {
    Right { subresource, ..right }
}

/// All of them: first what is seen, then what is changed, then what a report collects.
pub const RIGHTS: [Right; 25] = [
    needed(right("list", UPGRADES, Place::Own, "status, history, wait, upgrade --wait, report")),
    needed(right("list", OPS, Place::Own, "status, history, wait, upgrade --wait, run --wait, report")),
    needed(right(
        "list",
        NODES,
        Place::Cluster,
        "nodes, plan, status (which are the control plane), upgrade --wait, run --wait, report",
    )),
    right("get", NODES, Place::Cluster, "explain"),
    right("get", UPGRADES, Place::Own, "status, wait, plan, logs, pause, resume, cancel, upgrade --wait"),
    right("get", OPS, Place::Own, "status, wait, plan, logs, pause, resume, cancel, run --wait, explain"),
    right("watch", UPGRADES, Place::Own, "status -w, wait, upgrade --wait"),
    right("watch", OPS, Place::Own, "status -w, wait, upgrade --wait, run --wait"),
    right(
        "list",
        UPGRADES,
        Place::All,
        "explain, plan (else of the namespace), status -A, history -A, report -A",
    ),
    right("list", OPS, Place::All, "explain, plan (else of the namespace), status -A, history -A, report -A"),
    right("list", PODS, Place::All, "plan (what a drain would evict), report -A"),
    of("eviction", right("create", PODS, Place::All, "plan (which budget would block it)")),
    right("list", PODS, Place::In(static_pods::NAMESPACE), "plan (whether the control plane is well)"),
    right("list", PODS, Place::Own, "logs, report"),
    of("log", right("get", PODS, Place::Own, "logs")),
    right("create", UPGRADES, Place::Own, "upgrade, plan (whether it is taken)"),
    right("create", OPS, Place::Own, "run, plan (whether it is taken)"),
    right("patch", UPGRADES, Place::Own, "pause, resume"),
    right("patch", OPS, Place::Own, "pause, resume"),
    right("delete", UPGRADES, Place::Own, "cancel"),
    right("delete", OPS, Place::Own, "cancel"),
    right("list", JOBS, Place::Own, "report"),
    right("list", JOBS, Place::All, "report -A"),
    right("list", EVENTS, Place::Own, "report"),
    right("list", EVENTS, Place::All, "report -A"),
];

impl Right {
    /// The right in words: `list nodeops in default`.
    pub fn words(&self, namespace: &str) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let place = match self.place {
            Place::Own => format!(" in {namespace}"),
            Place::All => " in all namespaces".to_owned(),
            Place::In(namespace) => format!(" in {namespace}"),
            Place::Cluster => String::new(),
        };
        format!("{} {}{slash}{}{place}", self.verb, self.resource, self.subresource)
    }

    /// Whether the user has it.
    pub async fn is_held(&self, connection: &Connection) -> Result<bool> {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attributes = ResourceAttributes {
            verb: some(self.verb),
            group: some(self.group),
            resource: some(self.resource),
            subresource: some(self.subresource),
            namespace: match self.place {
                Place::Own => some(&connection.namespace),
                Place::In(namespace) => some(namespace),
                Place::All | Place::Cluster => None,
            },
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..<_>::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api = Api::<SelfSubjectAccessReview>::all(connection.client.clone());
        let answer =
            api.create(&PostParams::default(), &review).await.doing(|| "asking what you may do".into())?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

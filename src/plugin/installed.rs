//! The operator, as it is installed: its Deployment, and who leads.

use clap::Args;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    connection::Connection,
    failure::{self, Doing, Result},
    target::checked,
};
use crate::api::names;

/// The labels of the operator's Deployment.
const DEPLOYMENT: &str = "app.kubernetes.io/name=kairos-operator";

/// Where the operator is.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// The operator's namespace
    #[arg(long, default_value = names::OPERATOR_NAMESPACE, value_name = "NAME", value_parser = checked)]
    pub operator_namespace: String,
}

/// The operator's Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The user may not look.
    Unknown(String),
    Missing,
    /// More than one, by their names. They share a Lease, and which of them leads acts.
    Several(Vec<String>),
    There {
        name: String,
        image: String,
        ready: i32,
        wanted: i32,
        /// No pod of another image is left, nor is the image's own to come.
        rolled_out: bool,
    },
}

impl Operator {
    /// What to do where the image that the Deployment names is not what runs: a pod of an earlier image, be
    /// it the Go operator's, stays for as long as the new one's does not get Ready, and goes on leading.
    pub fn not_rolled_out(&self, place: &PlaceArgs) -> Option<String> {
        let Self::There { name, image, rolled_out: false, .. } = self else { return None };
        Some(format!(
            "the rollout of {image} is not done, and pods of an earlier image run: kubectl -n {} rollout status deployment/{name}",
            place.operator_namespace
        ))
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    Unknown(String),
    None,
    Of { holder: String, expired: bool },
}

/// Reads the operator's Deployment.
pub async fn operator(connection: &Connection, place: &PlaceArgs) -> Result<Operator> {
    let namespace = &place.operator_namespace;
    let api = Api::<Deployment>::namespaced(connection.client.clone(), namespace);
    let found = match api.list(&ListParams::default().labels(DEPLOYMENT)).await {
        Err(error) if failure::is_forbidden(&error) => {
            return Ok(Operator::Unknown(format!("you may not list Deployments in namespace {namespace}")));
        }
        found => found.doing(|| format!("listing Deployments in namespace {namespace}"))?.items,
    };
    Ok(match found.as_slice() {
        [] => Operator::Missing,
        [one] => there(one),
        several => Operator::Several(several.iter().map(ResourceExt::name_any).collect()),
    })
}

fn there(deployment: &Deployment) -> Operator {
    let spec = deployment.spec.as_ref();
    let containers = spec.and_then(|spec| spec.template.spec.as_ref()).map(|spec| spec.containers.as_slice());
    let image = containers.unwrap_or_default().first().and_then(|container| container.image.clone());
    let status = deployment.status.clone().unwrap_or_default();
    let updated = status.updated_replicas.unwrap_or(0);
    Operator::There {
        name: deployment.name_any(),
        image: image.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or(0),
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        rolled_out: status.observed_generation >= deployment.metadata.generation
            && status.replicas.unwrap_or(0) <= updated,
    }
}

/// Reads the Lease by which replicas agree on who leads.
pub async fn leader(connection: &Connection, place: &PlaceArgs, now: Timestamp) -> Result<Leader> {
    let namespace = &place.operator_namespace;
    let api = Api::<Lease>::namespaced(connection.client.clone(), namespace);
    let lease = match api.get_opt(names::LEASE).await {
        Err(error) if failure::is_forbidden(&error) => {
            return Ok(Leader::Unknown(format!("you may not get leases in namespace {namespace}")));
        }
        lease => lease.doing(|| format!("reading Lease {namespace}/{}", names::LEASE))?,
    };
    Ok(held(lease.and_then(|lease| lease.spec), now))
}

/// An operator in another namespace.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    pub namespace: String,
    /// Of its Deployment, or of the pod that leads.
    pub name: String,
}

/// The operators that run in other namespaces without a Lease, as the Go operator's does with `leaderElect:
/// false`: their Deployments. None, if the user may not look.
pub async fn other_deployments(connection: &Connection, place: &PlaceArgs) -> Result<Option<Vec<Elsewhere>>> {
    let params = ListParams::default().labels(DEPLOYMENT);
    let found = match Api::<Deployment>::all(connection.client.clone()).list(&params).await {
        Err(error) if failure::is_forbidden(&error) => return Ok(None),
        found => found.doing(|| "listing Deployments in all namespaces".into())?.items,
    };
    let others = found.into_iter().filter_map(|deployment| {
        let namespace = deployment.namespace().filter(|namespace| *namespace != place.operator_namespace)?;
        let runs = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) > 0;
        runs.then(|| Elsewhere { namespace, name: deployment.name_any() })
    });
    Ok(Some(others.collect()))
}

/// The leaders in other namespaces: a Lease holds within its own, and all act on the same nodes.
/// None, if the user may not look.
pub async fn other_leaders(
    connection: &Connection,
    place: &PlaceArgs,
    now: Timestamp,
) -> Result<Option<Vec<Elsewhere>>> {
    let params = ListParams::default().fields(&format!("metadata.name={}", names::LEASE));
    let leases = match Api::<Lease>::all(connection.client.clone()).list(&params).await {
        Err(error) if failure::is_forbidden(&error) => return Ok(None),
        leases => leases.doing(|| "listing Leases in all namespaces".into())?.items,
    };
    let others = leases.into_iter().filter_map(|lease| {
        let namespace = lease.namespace().filter(|namespace| *namespace != place.operator_namespace)?;
        match held(lease.spec, now) {
            Leader::Of { holder, expired: false } => Some(Elsewhere { namespace, name: holder }),
            Leader::Of { expired: true, .. } | Leader::None | Leader::Unknown(_) => None,
        }
    });
    Ok(Some(others.collect()))
}

/// Who holds a Lease.
fn held(spec: Option<LeaseSpec>, now: Timestamp) -> Leader {
    let Some(spec) = spec else { return Leader::None };
    let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
        return Leader::None;
    };
    let lasts = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(0)));
    // The holder writes the time by its own clock, which may be behind: one more term is no reason to worry.
    let expired = spec.renew_time.is_none_or(|renewed| now.duration_since(renewed.0) > lasts + lasts);
    Leader::Of { holder, expired }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// With two replicas and the default strategy the old pod stays for as long as no new one is Ready.
    #[test]
    fn an_image_that_runs_nowhere_is_not_rolled_out() {
        let place = PlaceArgs { operator_namespace: "operator-system".into() };
        let told = |status: Value| {
            let container = json!({"name": "manager", "image": "r/op:v2"});
            let deployment: Deployment = serde_json::from_value(json!({
                "metadata": {"name": "op", "generation": 2},
                "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [container]}}},
                "status": status,
            }))
            .unwrap();
            there(&deployment).not_rolled_out(&place)
        };
        let said = "the rollout of r/op:v2 is not done, and pods of an earlier image run: kubectl -n operator-system rollout status deployment/op";
        for status in [
            json!({"observedGeneration": 2, "readyReplicas": 1, "updatedReplicas": 2, "replicas": 3}),
            json!({"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 1, "replicas": 3}),
            json!({"observedGeneration": 2, "readyReplicas": 2, "replicas": 2}),
            // Nobody has looked at the new image yet.
            json!({"observedGeneration": 1, "readyReplicas": 2, "updatedReplicas": 2, "replicas": 2}),
        ] {
            assert_eq!(told(status.clone()).as_deref(), Some(said), "{status}");
        }
        for status in [
            json!({"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 2, "replicas": 2}),
            // The first one that is installed: nothing of it is Ready, and nothing else runs.
            json!({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2}),
        ] {
            assert_eq!(told(status.clone()), None, "{status}");
        }
    }
}

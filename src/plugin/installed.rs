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
};
use crate::api::names;

/// The labels of the operator's Deployment.
const DEPLOYMENT: &str = "app.kubernetes.io/name=kairos-operator";

/// Where the operator is.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// The operator's namespace
    #[arg(long, default_value = names::OPERATOR_NAMESPACE, value_name = "NAME")]
    pub operator_namespace: String,
}

/// The operator's Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The user may not look.
    Unknown(String),
    Missing,
    There {
        name: String,
        image: String,
        ready: i32,
        wanted: i32,
    },
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
    let Some(deployment) = found.first() else { return Ok(Operator::Missing) };
    let spec = deployment.spec.as_ref();
    let containers = spec.and_then(|spec| spec.template.spec.as_ref()).map(|spec| spec.containers.as_slice());
    let image = containers.unwrap_or_default().first().and_then(|container| container.image.clone());
    Ok(Operator::There {
        name: deployment.name_any(),
        image: image.unwrap_or_default(),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
    })
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

/// The leaders in other namespaces, with theirs: a Lease holds within its own, and all act on the same nodes.
/// None, if the user may not look.
pub async fn other_leaders(
    connection: &Connection,
    place: &PlaceArgs,
    now: Timestamp,
) -> Result<Option<Vec<(String, String)>>> {
    let params = ListParams::default().fields(&format!("metadata.name={}", names::LEASE));
    let leases = match Api::<Lease>::all(connection.client.clone()).list(&params).await {
        Err(error) if failure::is_forbidden(&error) => return Ok(None),
        leases => leases.doing(|| "listing Leases in all namespaces".into())?.items,
    };
    let others = leases.into_iter().filter_map(|lease| {
        let namespace = lease.namespace().filter(|namespace| *namespace != place.operator_namespace)?;
        match held(lease.spec, now) {
            Leader::Of { holder, expired: false } => Some((namespace, holder)),
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

//! What machines, people and the network do to a rollout.

use std::time::Duration;

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::Cluster;
use kube::{Api, api::DeleteParams};

use super::{operator::Replica, run::weather, scenario::Scenario, world::World};

pub async fn make(_cluster: &Cluster, _world: &World, _scenario: &Scenario, _replicas: &[Replica]) {}

pub async fn mend(_cluster: &Cluster, world: &World, _replicas: &[Replica]) {
    weather(world, super::wire::Weather::clear);
}

/// Somebody cleans up.
pub async fn delete_all(cluster: &Cluster, _scenario: &Scenario) {
    let params = DeleteParams::background();
    let list = kube::api::ListParams::default();
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(cluster.client());
    upgrades.delete_collection(&params, &list).await.expect("deleted");
    let ops: Api<NodeOp> = Api::default_namespaced(cluster.client());
    ops.delete_collection(&params, &list).await.expect("deleted");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

//! Writes for a NodeOpUpgrade: its NodeOp, and its status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, api::Patch};
use serde_json::json;

use super::{Actor, status::params, workload::namespace};
use crate::{
    api::{
        child,
        nodeop::NodeOp,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    observe::LiveObject,
    plan::model::action::Steering,
};

impl Actor {
    /// Makes the NodeOp of a run, or hands back the one that has its name: whose it is, the next plan sees.
    pub(super) async fn create_child(
        &self,
        upgrade: &NodeOpUpgrade,
        name: &str,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let made = self.create(&child::node_op(upgrade, name)).await?;
        Ok(vec![LiveObject::Op(Box::new(made))])
    }

    /// Writes the fields of the NodeOp's spec that may be changed.
    pub(super) async fn propagate_spec(
        &self,
        child: &NodeOp,
        steering: &Steering,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let Steering { concurrency, paused, stop_on_failure, not_after } = steering;
        let spec = json!({
            "concurrency": concurrency,
            "paused": paused,
            "stopOnFailure": stop_on_failure,
            "notAfter": not_after.map(Time),
        });
        let meta = json!({"uid": child.metadata.uid, "resourceVersion": child.metadata.resource_version});
        let patch = json!({"metadata": meta, "spec": spec});
        let api = self.api::<NodeOp>(namespace(child));
        let written = self.write(api.patch(&child.name_any(), &params(), &Patch::Merge(patch))).await?;
        Ok(vec![LiveObject::Op(Box::new(written))])
    }

    pub(super) async fn patch_upgrade_status(
        &self,
        upgrade: &NodeOpUpgrade,
        status: &NodeOpUpgradeStatus,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let written = self.patch_status(upgrade, status).await?;
        Ok(written.map(|upgrade| LiveObject::Upgrade(Box::new(upgrade))).into_iter().collect())
    }
}

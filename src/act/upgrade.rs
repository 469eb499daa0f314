//! Writes for a NodeOpUpgrade: its NodeOp, and its status.

use kube::{Api, ResourceExt, api::Patch};
use serde_json::json;

use super::{
    Actor,
    status::{merge_diff, params},
};
use crate::{
    api::{
        child,
        nodeop::NodeOp,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus},
    },
    observe::Seen,
};

impl Actor {
    /// Makes the NodeOp, or hands back the one that has its name: whose it is, the next plan sees.
    pub(super) async fn make_child(&self, upgrade: &NodeOpUpgrade) -> anyhow::Result<Vec<Seen>> {
        let made = self.create(&child::node_op(upgrade)).await?;
        Ok(vec![Seen::Op(Box::new(made))])
    }

    pub(super) async fn pass_on(&self, child: &NodeOp, concurrency: i32, stop_on_failure: Option<bool>) -> anyhow::Result<Vec<Seen>> {
        let meta = json!({"uid": child.metadata.uid, "resourceVersion": child.metadata.resource_version});
        let patch = json!({"metadata": meta, "spec": {"concurrency": concurrency, "stopOnFailure": stop_on_failure}});
        let api = Api::<NodeOp>::namespaced(self.client.clone(), &child.namespace().unwrap_or_default());
        let written = self.write(api.patch(&child.name_any(), &params(), &Patch::Merge(patch))).await?;
        Ok(vec![Seen::Op(Box::new(written))])
    }

    pub(super) async fn upgrade_status(&self, upgrade: &NodeOpUpgrade, status: &NodeOpUpgradeStatus) -> anyhow::Result<Vec<Seen>> {
        let old = upgrade.status.as_ref().map(serde_json::to_value).transpose()?.unwrap_or_else(|| json!({}));
        let Some(diff) = merge_diff(&old, &serde_json::to_value(status)?) else {
            return Ok(vec![]);
        };
        let patch = json!({"metadata": {"resourceVersion": upgrade.metadata.resource_version}, "status": diff});
        let api = Api::<NodeOpUpgrade>::namespaced(self.client.clone(), &upgrade.namespace().unwrap_or_default());
        let written = self.write(api.patch_status(&upgrade.name_any(), &params(), &Patch::Merge(patch))).await?;
        Ok(vec![Seen::Upgrade(Box::new(written))])
    }
}

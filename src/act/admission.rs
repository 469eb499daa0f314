//! Dry runs: would the API server admit what a NodeOp makes? Asked before a node is touched, since Pod Security, quota,
//! limits and webhooks refuse objects only when they are created, by then on a node that is cordoned and drained.
//!
//! A Job's template is not admitted with the Job, so its pod is tried by itself.

use anyhow::Context;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, PodSpec},
};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Actor, words, workload::namespace};
use crate::{
    api::{names, nodeop::NodeOp},
    plan::model::action::Grant,
    render::{access, job, preflight, waiter},
};

/// The name of everything that is tried. Nothing of that name is ever stored.
const NAME: &str = "kairos-operator-dry-run";

impl Actor {
    /// Whether the API server would admit everything that is made for `op` on `node`. `Ok(Err(_))` holds its refusal, in
    /// its words; what is no refusal, such as a webhook that does not answer, is an error.
    pub async fn admits(&self, op: &NodeOp, node: &str) -> anyhow::Result<Result<(), String>> {
        match self.try_all(op, node).await {
            Err(error) if is_refusal(&error) => Ok(Err(words(&error))),
            answer => answer.map(Ok),
        }
    }

    async fn try_all(&self, op: &NodeOp, node: &str) -> anyhow::Result<()> {
        let job_pod = |spec: PodSpec| Pod { metadata: job::pod_meta(op, node, NAME), spec: Some(spec), status: None };
        if let Some(pod) = preflight::pod(op, node, NAME, &self.site) {
            self.try_creating(op, &pod).await.context("the preflight's pod")?;
        }
        self.try_creating(op, &job_pod(job::pod(op, node, NAME, &self.site))).await.context("the Job's pod")?;
        self.try_creating(op, &job::job(op, node, NAME, &self.site)).await.context("the Job")?;
        if op.spec.reboot_on_success.unwrap_or(false) {
            self.try_rebooting(op, node).await?;
        }
        Ok(())
    }

    async fn try_rebooting(&self, op: &NodeOp, node: &str) -> anyhow::Result<()> {
        let mut waiter = waiter::pod(op, node, NAME, NAME, &self.site);
        // Its account is made with the first waiter, and a pod without its account is refused.
        if let Some(spec) = &mut waiter.spec {
            spec.service_account_name = None;
            spec.automount_service_account_token = Some(false);
        }
        self.try_creating(op, &waiter).await.context("the reboot waiter")?;
        self.try_applying(op, &access::service_account(op)).await.context("the waiters' ServiceAccount")?;
        let grant = Grant { waiters: vec![NAME.into()], jobs: vec![NAME.into()] };
        // Not their RoleBinding: the server looks for the Role that it names, and a dry run has stored none.
        self.try_applying(op, &access::role(op, &grant)).await.context("the waiters' Role")
    }

    async fn try_creating<K>(&self, op: &NodeOp, object: &K) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PostParams { dry_run: true, field_manager: Some(names::MANAGER.into()) };
        self.write(self.api::<K>(namespace(op)).create(&params, object)).await.map(drop)
    }

    async fn try_applying<K>(&self, op: &NodeOp, object: &K) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PatchParams { dry_run: true, ..PatchParams::apply(names::MANAGER).force() };
        self.write(self.api::<K>(namespace(op)).patch(&object.name_any(), &params, &Patch::Apply(object))).await.map(drop)
    }
}

/// Whether the server means it: forbidden (Pod Security, quota, a webhook) or invalid; anything else may pass.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422))
}

//! Making and deleting the Jobs and pods of a NodeOp.
//!
//! Names are deterministic. If an object of the name is there already, it is read and handed back: whether it
//! is ours, and what to do with it, the next plan decides.

use std::fmt::Debug;

use anyhow::Context;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Actor, is_conflict, is_gone};
use crate::{
    api::{job::Job, names, nodeop::NodeOp, pod::Pod},
    observe::LiveObject,
    plan::model::{action::Target, id::OpRef},
    render::{facts, job, preflight, waiter},
};

pub(super) fn namespace(op: &NodeOp) -> &str {
    op.metadata.namespace.as_deref().unwrap_or_default()
}

/// Whether an object that a deletion answers with is there still. What goes at once is shown as it was when
/// it went: told to end, with no time left, and kept by nobody.
fn has_still_to_end(meta: &ObjectMeta) -> bool {
    let kept = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
    meta.deletion_timestamp.is_some() && (kept || meta.deletion_grace_period_seconds != Some(0))
}

impl Actor {
    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object, or returns the one that has its name: of either what is read of the kind, for the
    /// latter may be anybody's.
    pub(super) async fn create<K, Read>(&self, object: &K) -> anyhow::Result<Read>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize,
        Read: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        Read::DynamicType: Default,
    {
        let api = self.api::<Read>(object.meta().namespace.as_deref().unwrap_or_default());
        let params = PostParams { field_manager: Some(names::MANAGER.into()), dry_run: false };
        let mut request = Request::new(api.resource_url()).create(&params, serde_json::to_vec(object)?)?;
        request.extensions_mut().insert("create");
        match self.write(self.client.request::<Read>(request)).await {
            Err(error) if is_conflict(&error) => {
                self.read(api.get(&object.name_any())).await.context("reading the one that exists")
            }
            answer => answer,
        }
    }

    pub(super) async fn create_job(
        &self,
        op: &NodeOp,
        on: job::On<'_>,
        name: &str,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let made = self.create(&job::job(op, on, name, &self.config)).await?;
        Ok(vec![LiveObject::Job(Box::new(made))])
    }

    pub(super) async fn create_waiter(
        &self,
        op: &NodeOp,
        node: &str,
        name: &str,
        of: waiter::For<'_>,
        account: &str,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let made = self.create(&waiter::pod(op, node, name, of, account, &self.config)).await?;
        Ok(vec![LiveObject::Pod(Box::new(made))])
    }

    pub(super) async fn create_preflight_pod(
        &self,
        op: &NodeOp,
        node: &str,
        name: &str,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let pod = preflight::pod(op, node, name, &self.config);
        let made = self.create(&pod).await?;
        Ok(vec![LiveObject::Pod(Box::new(made))])
    }

    pub(super) async fn create_facts_pod(
        &self,
        node: (&str, &str),
        name: &str,
        attempt: i32,
        waited_for: bool,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let pod = facts::pod(node, name, attempt, waited_for, &self.config);
        let made = self.create(&pod).await?;
        Ok(vec![LiveObject::Pod(Box::new(made))])
    }

    /// Lets the Job of this UID run, if nobody has changed it since: it may have been settled.
    pub(super) async fn resume_job(
        &self,
        job: &Target,
        resource_version: &str,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let seen = json!({"resourceVersion": resource_version});
        self.patch_job(job, json!({"metadata": seen, "spec": {"suspend": false, "parallelism": 1}})).await
    }

    /// Gives the Job of this UID another deadline, in seconds from its start.
    pub(super) async fn extend_job(
        &self,
        job: &Target,
        deadline_seconds: i64,
    ) -> anyhow::Result<Vec<LiveObject>> {
        self.patch_job(job, json!({"spec": {"activeDeadlineSeconds": deadline_seconds}})).await
    }

    /// Suspends the Job of this UID, and writes on it in which boot its operation succeeded.
    pub(super) async fn settle_job(&self, job: &Target, boot: &str) -> anyhow::Result<Vec<LiveObject>> {
        self.patch_job(
            job,
            json!({"metadata": {"annotations": {(names::SETTLED_IN): boot}}, "spec": {"suspend": true}}),
        )
        .await
    }

    async fn patch_job(&self, job: &Target, mut patch: serde_json::Value) -> anyhow::Result<Vec<LiveObject>> {
        // A UID in a merge patch is as good as a precondition, since it cannot be changed: see `is_conflict`.
        patch["metadata"]["uid"] = json!(job.uid);
        let api = self.api::<Job>(&job.namespace);
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let written = self.write(api.patch(&job.name, &params, &Patch::Merge(patch))).await?;
        Ok(vec![LiveObject::Job(Box::new(written))])
    }

    pub(super) async fn delete_job(
        &self,
        job: &Target,
        after_its_pods: bool,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let params = if after_its_pods { DeleteParams::foreground() } else { DeleteParams::background() };
        let left = self.delete::<Job>(job, params).await?;
        Ok(vec![left.map_or_else(
            || LiveObject::NoJob(job.key(), job.uid.clone()),
            |job| LiveObject::Job(Box::new(job)),
        )])
    }

    pub(super) async fn delete_pod(&self, pod: &Target) -> anyhow::Result<Vec<LiveObject>> {
        let left = self.delete::<Pod>(pod, DeleteParams::background()).await?;
        Ok(vec![left.map_or_else(
            || LiveObject::NoPod(pod.key(), pod.uid.clone()),
            |pod| LiveObject::Pod(Box::new(pod)),
        )])
    }

    /// Deletes a NodeOp in the background: its Jobs and pods are over.
    pub(super) async fn delete_op(&self, op: &OpRef) -> anyhow::Result<Vec<LiveObject>> {
        let target = Target { namespace: op.namespace.clone(), name: op.name.clone(), uid: op.uid.clone() };
        let left = self.delete::<NodeOp>(&target, DeleteParams::background()).await?;
        Ok(left.map(|op| LiveObject::Op(Box::new(op))).into_iter().collect())
    }

    /// Deletes the object of this UID, and what it owns; returns it if it has still to end. That it is gone
    /// is success. A conflict (another object by now, as a rule) is the caller's to judge: planned again from
    /// a newer view, or looked at again.
    async fn delete<K>(&self, target: &Target, mut params: DeleteParams) -> anyhow::Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        params.preconditions = Some(Preconditions { uid: Some(target.uid.clone()), resource_version: None });
        match self.write(self.api::<K>(&target.namespace).delete(&target.name, &params)).await {
            Err(error) if is_gone(&error) => Ok(None),
            answer => answer.map(|answer| answer.left().filter(|left| has_still_to_end(left.meta()))),
        }
    }
}

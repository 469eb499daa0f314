//! The account of a NodeOp's waiters: a ServiceAccount, a Role and a RoleBinding of one name.
//!
//! Anything may have that name already. What does not carry our label and the NodeOp as its owner is somebody
//! else's: it is passed by for another name, and neither changed nor deleted. The name holds a hash of the
//! NodeOp's UID, so a NodeOp that is made again under the name of an earlier one shares no account with it.
//! Nothing is applied by force: an object is created, or changed at the resourceVersion at which it was seen
//! to be ours.

use std::fmt::Debug;

use anyhow::{Context, bail};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::ServiceAccount,
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Patch, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Actor, is_conflict, is_gone, status::params, workload::namespace};
use crate::{
    api::{names, nodeop::NodeOp},
    plan::model::{action::WaiterGrant, object_name::accounts},
    render::access,
};

/// What has a name.
enum Found<K> {
    Nothing,
    Ours(K),
    Foreign,
}

impl<K> Found<K> {
    fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign)
    }
}

impl Actor {
    /// Sets what the NodeOp's waiters may do, and returns the name of their account.
    pub(super) async fn grant(&self, op: &NodeOp, grant: &WaiterGrant) -> anyhow::Result<String> {
        let names = names_of(op);
        for name in &names {
            let granted = match self.grant_as(op, name, grant).await {
                // The waiter of another node may be granted the same at this moment.
                Err(error) if is_conflict(&error) => self.grant_as(op, name, grant).await?,
                answer => answer?,
            };
            if granted {
                return Ok(name.clone());
            }
        }
        bail!(
            "each name for the waiters' account is taken by a ServiceAccount, Role or RoleBinding of somebody else: {}",
            names.join(", ")
        )
    }

    /// Grants under this name, unless something of somebody else has it.
    async fn grant_as(&self, op: &NodeOp, name: &str, grant: &WaiterGrant) -> anyhow::Result<bool> {
        let account =
            self.look_for::<ServiceAccount>(op, name).await.context("reading the waiters' ServiceAccount")?;
        let role = self.look_for::<Role>(op, name).await.context("reading the waiters' Role")?;
        let binding =
            self.look_for::<RoleBinding>(op, name).await.context("reading the waiters' RoleBinding")?;
        if account.is_foreign() || role.is_foreign() || binding.is_foreign() {
            return Ok(false);
        }
        if matches!(account, Found::Nothing) {
            self.add(op, &access::service_account(op, name))
                .await
                .context("making the waiters' ServiceAccount")?;
        }
        let wanted = access::role(op, name, grant);
        match role {
            Found::Ours(found) if found.rules == wanted.rules => {}
            Found::Ours(found) => {
                self.set_rules(op, &found, &wanted).await.context("changing the waiters' Role")?
            }
            Found::Nothing | Found::Foreign => {
                self.add(op, &wanted).await.context("making the waiters' Role")?
            }
        }
        if matches!(binding, Found::Nothing) {
            self.add(op, &access::role_binding(op, name)).await.context("making the waiters' RoleBinding")?;
        }
        Ok(true)
    }

    async fn look_for<K>(&self, op: &NodeOp, name: &str) -> anyhow::Result<Found<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        Ok(match self.write(self.api::<K>(namespace(op)).get_opt(name)).await? {
            None => Found::Nothing,
            Some(found) if is_ours(op, &found) => Found::Ours(found),
            Some(_) => Found::Foreign,
        })
    }

    async fn add<K>(&self, op: &NodeOp, object: &K) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PostParams { field_manager: Some(names::MANAGER.into()), dry_run: false };
        self.write(self.api::<K>(namespace(op)).create(&params, object)).await.map(drop)
    }

    async fn set_rules(&self, op: &NodeOp, found: &Role, wanted: &Role) -> anyhow::Result<()> {
        let seen = json!({"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": seen, "rules": wanted.rules}));
        self.write(self.api::<Role>(namespace(op)).patch(&found.name_any(), &params(), &patch))
            .await
            .map(drop)
    }

    /// Takes back what the NodeOp's waiters might do. One that reboots nothing had none.
    pub(super) async fn revoke(&self, op: &NodeOp) -> anyhow::Result<()> {
        if !op.spec.reboot_on_success.unwrap_or(false) {
            return Ok(());
        }
        for name in names_of(op) {
            self.remove::<RoleBinding>(op, &name).await.context("deleting the waiters' RoleBinding")?;
            self.remove::<Role>(op, &name).await.context("deleting the waiters' Role")?;
            self.remove::<ServiceAccount>(op, &name).await.context("deleting the waiters' ServiceAccount")?;
        }
        Ok(())
    }

    /// Deletes the object of this name as it was seen to be ours, if it is.
    async fn remove<K>(&self, op: &NodeOp, name: &str) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let Found::Ours(found) = self.look_for::<K>(op, name).await? else { return Ok(()) };
        let seen = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
        let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::background() };
        match self.write(self.api::<K>(namespace(op)).delete(name, &params)).await {
            Err(error) if is_gone(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn names_of(op: &NodeOp) -> Vec<String> {
    accounts((
        op.metadata.name.as_deref().unwrap_or_default(),
        op.metadata.uid.as_deref().unwrap_or_default(),
    ))
}

/// Whether we made the object for this NodeOp, and it is not on its way out.
fn is_ours<K: Resource>(op: &NodeOp, found: &K) -> bool {
    let owned = |uid: &String| Some(uid) == op.metadata.uid.as_ref();
    found.meta().deletion_timestamp.is_none()
        && found.labels().contains_key(names::NODEOP)
        && found.owner_references().iter().any(|owner| owned(&owner.uid))
}

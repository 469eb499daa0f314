//! The account of a reboot waiter: a ServiceAccount, a Role and a RoleBinding of one name, for one node.
//!
//! Each node's waiter has an account of its own, which names one pod and one Job: what a compromised node
//! reads from its waiter is of no use against another node, whatever policies a cluster has.
//!
//! Anything may have that name already. What does not carry our label and the NodeOp as its owner is somebody
//! else's: it is passed by for another name, and neither changed nor deleted. The name holds a hash of the
//! NodeOp's UID, so a NodeOp that is made again under the name of an earlier one shares no account with it.
//! Nothing is applied by force: an object is created, or changed or deleted at the resourceVersion at which
//! it was seen to be ours.

use std::fmt::Debug;

use anyhow::{Context, bail};
use futures::{TryStreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::ServiceAccount, rbac::v1 as rbac},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Actor, is_gone, status::params, workload::namespace};
use crate::{
    api::{
        metadata::Metadata,
        names,
        nodeop::NodeOp,
        pages,
        role::{Role, RoleBinding},
    },
    plan::model::object_name::accounts,
    render::access::{self, Grant},
};

/// Accounts that are read at once when they are taken back …
const PAGE: u32 = 50;
/// … and deleted side by side: a NodeOp of a thousand nodes leaves three thousand objects.
const AT_ONCE: usize = 10;
/// How many are deleted in one action: nothing else is planned meanwhile, no other drain and no proof.
const AT_A_TIME: usize = 500;

impl Actor {
    /// Gives the waiter what it may do, and returns the name of its account.
    pub(super) async fn grant(&self, op: &NodeOp, grant: Grant<'_>) -> anyhow::Result<String> {
        let names = accounts(
            (op.metadata.name.as_deref().unwrap_or_default(), op.metadata.uid.as_deref().unwrap_or_default()),
            grant.node,
        );
        for name in &names {
            if self.grant_as(op, name, grant).await? {
                return Ok(name.clone());
            }
        }
        bail!(
            "each name for the waiter's account is taken by a ServiceAccount, Role or RoleBinding of somebody else: {}",
            names.join(", ")
        )
    }

    /// Grants under this name, unless something of somebody else has it.
    async fn grant_as(&self, op: &NodeOp, name: &str, grant: Grant<'_>) -> anyhow::Result<bool> {
        let wanted = access::role(op, name, grant);
        let role = self.ours::<_, Role>(op, &wanted).await.context("making the waiter's Role")?;
        let Some(role) = role else { return Ok(false) };
        if role.rules != wanted.rules {
            // An earlier waiter of the node had it, which is lost.
            self.set_rules(op, &role, &wanted).await.context("changing the waiter's Role")?;
        }
        let account = access::service_account(op, name, grant);
        let account = self.ours::<_, Metadata<ServiceAccount>>(op, &account).await;
        let account = account.context("making the waiter's ServiceAccount")?;
        if account.is_none() {
            return Ok(false);
        }
        let wanted = access::role_binding(op, name, grant);
        let binding = self.ours::<_, RoleBinding>(op, &wanted).await;
        let binding = binding.context("making the waiter's RoleBinding")?;
        let Some(changed) = binding.as_ref().filter(|found| !found.grants_as(&wanted)) else {
            return Ok(binding.is_some());
        };
        // What role it binds cannot be changed back. The waiter that had it is lost, or has no rights by it.
        self.remove(op, changed)
            .await
            .context("deleting the waiter's RoleBinding, which somebody changed")?;
        let again = self.ours::<_, RoleBinding>(op, &wanted).await;
        Ok(again.context("making the waiter's RoleBinding anew")?.is_some())
    }

    /// Creates the object, or returns the one of its name that we have made before. Nothing: somebody else's
    /// has the name.
    async fn ours<K, Read>(&self, op: &NodeOp, object: &K) -> anyhow::Result<Option<Read>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize,
        Read: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        Read::DynamicType: Default,
    {
        let found: Read = self.create(object).await?;
        Ok(Some(found).filter(|found| is_ours(op, found)))
    }

    async fn set_rules(&self, op: &NodeOp, found: &Role, wanted: &rbac::Role) -> anyhow::Result<()> {
        let seen = json!({"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": seen, "rules": wanted.rules}));
        self.write(self.api::<Role>(namespace(op)).patch(&found.name_any(), &params(), &patch))
            .await
            .map(drop)
    }

    /// Takes back what the NodeOp's waiters might do, or a part of it; whether it was all. One that reboots
    /// nothing had none.
    pub(super) async fn revoke(&self, op: &NodeOp) -> anyhow::Result<bool> {
        if !op.spec.reboot_on_success.unwrap_or(false) {
            return Ok(true);
        }
        let mut room = AT_A_TIME;
        self.remove_all::<Metadata<rbac::RoleBinding>>(op, &mut room)
            .await
            .context("deleting the waiters' RoleBindings")?;
        self.remove_all::<Metadata<rbac::Role>>(op, &mut room)
            .await
            .context("deleting the waiters' Roles")?;
        self.remove_all::<Metadata<ServiceAccount>>(op, &mut room)
            .await
            .context("deleting the waiters' ServiceAccounts")?;
        Ok(room > 0)
    }

    /// Deletes every object of the kind that was made for the NodeOp, whatever its name: an earlier release
    /// gave all waiters of a NodeOp one account. As many as there is room for.
    async fn remove_all<K>(&self, op: &NodeOp, room: &mut usize) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let label = names::label_value(op.metadata.name.as_deref().unwrap_or_default());
        let labelled = ListParams::default().labels(&format!("{}={label}", names::NODEOP)).limit(PAGE);
        let mut next = Some(labelled);
        while let Some(params) = next.take().filter(|_| *room > 0) {
            let page = self.read(self.api::<K>(namespace(op)).list(&params)).await?;
            next = pages::after(params, page.metadata);
            let ours = page.items.iter().filter(|found| is_ours(op, *found)).take(*room);
            let ours: Vec<&K> = ours.collect();
            *room -= ours.len();
            stream::iter(ours.into_iter().map(Ok))
                .try_for_each_concurrent(AT_ONCE, |found| self.remove(op, found))
                .await?;
        }
        Ok(())
    }

    /// Deletes the object as it was seen to be ours.
    async fn remove<K>(&self, op: &NodeOp, found: &K) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let seen = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
        let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::background() };
        match self.write(self.api::<K>(namespace(op)).delete(&found.name_any(), &params)).await {
            Err(error) if is_gone(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// Whether we made the object for this NodeOp, and it is not on its way out.
fn is_ours<K: Resource>(op: &NodeOp, found: &K) -> bool {
    let owned = |uid: &String| Some(uid) == op.metadata.uid.as_ref();
    found.meta().deletion_timestamp.is_none()
        && found.labels().contains_key(names::NODEOP)
        && found.owner_references().iter().any(|owner| owned(&owner.uid))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::Value;

    use super::*;
    use crate::act::tests::{Left, Server, actor};

    /// Five thousand nodes leave fifteen thousand objects: deleted in one go, they would stop all other
    /// operations for half a minute.
    #[tokio::test(start_paused = true)]
    async fn of_many_accounts_some_are_taken_back_at_a_time() {
        let bindings: BTreeSet<String> = (0..AT_A_TIME + 220).map(|number| format!("b{number:04}")).collect();
        let left = Arc::new(Mutex::new(bindings));
        let there = left.clone();
        let client = Server::client(move |request| {
            let mut there = there.lock().unwrap();
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            if request.method() == "DELETE" {
                let name = path.rsplit('/').next().unwrap_or_default();
                assert!(there.remove(name), "{name}");
                return (200, json!({"kind": "Status", "status": "Success"}));
            }
            let after = query.split('&').find_map(|part| part.strip_prefix("continue=")).unwrap_or_default();
            let of_kind =
                there.iter().filter(|name| path.ends_with("/rolebindings") && name.as_str() > after);
            let page: Vec<&String> = of_kind.take(PAGE as usize).collect();
            let next = page.last().filter(|_| page.len() == PAGE as usize);
            let item = |name: &&String| {
                let owner = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "op", "uid": "u"});
                json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {names::NODEOP: "op"}, "ownerReferences": [owner]}})
            };
            let items: Vec<Value> = page.iter().map(item).collect();
            (200, json!({"metadata": {"continue": next}, "items": items}))
        });
        let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(10))))));
        let op: NodeOp =
            serde_json::from_value(json!({"metadata": {"name": "op", "namespace": "ns", "uid": "u"},
            "spec": {"command": ["true"], "rebootOnSuccess": true}}))
            .unwrap();
        assert!(!actor.revoke(&op).await.unwrap(), "there are more");
        assert_eq!(left.lock().unwrap().len(), 220);
        assert!(actor.revoke(&op).await.unwrap());
        assert!(left.lock().unwrap().is_empty());
        assert!(actor.revoke(&op).await.unwrap(), "nothing is left");
    }
}

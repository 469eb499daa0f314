//! `kubectl apply`, for tests: through the API, with discovery.

use anyhow::Context;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde_json::Value;

/// Applies the documents in their order.
pub async fn apply(client: &Client, yaml: &str) -> anyhow::Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("reading YAML")?;
    for document in documents.into_iter().filter(|d| !d.is_null()) {
        let items = match document.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        };
        for item in items {
            apply_one(client, item).await?;
        }
    }
    Ok(())
}

async fn apply_one(client: &Client, document: Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(document).context("reading an object")?;
    let types = object.types.clone().context("an object without apiVersion and kind")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let name = object.name_any();
    let what = || format!("applying {} {name}", types.kind);
    let (resource, capabilities) = discovery::oneshot::pinned_kind(client, &gvk).await.with_context(what)?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(
            client.clone(),
            object.namespace().as_deref().unwrap_or("default"),
            &resource,
        ),
    };
    let parameters = PatchParams::apply("kairos-sim").force();
    let answer = api.patch(&name, &parameters, &Patch::Apply(&object)).await;
    answer.map(drop).with_context(what)?;
    Ok(())
}

//! Writes to a NodeOp: its status, its finalizers, and Events about it.

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, api::core::v1::ObjectReference};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    Actor,
    diff::{NodesStatus, status_diff},
    error_message,
    workload::namespace,
};
use crate::{
    api::{
        names,
        nodeop::{NodeOp, NodeOpStatus},
        text::clipped,
    },
    observe::LiveObject,
    plan::model::action::Notice,
};

/// Bytes of an Event's note; a server refuses a longer one.
const MAX_NOTE: usize = 1024;

impl Actor {
    pub(super) async fn status(&self, op: &NodeOp, status: &NodeOpStatus) -> anyhow::Result<Vec<LiveObject>> {
        let written = self.patch_status(op, op.status.as_ref(), status).await?;
        Ok(written.map(|op| LiveObject::Op(Box::new(op))).into_iter().collect())
    }

    /// Turns the status `old` of `object` into `new`, at the object's resourceVersion; `None` if nothing
    /// differs.
    pub(super) async fn patch_status<K, S>(
        &self,
        object: &K,
        old: Option<&S>,
        new: &S,
    ) -> anyhow::Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
        S: NodesStatus,
    {
        let Some(diff) = status_diff(old, new)? else { return Ok(None) };
        let patch = Patch::Merge(
            json!({"metadata": {"resourceVersion": object.meta().resource_version}, "status": diff}),
        );
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        self.write(api.patch_status(&object.name_any(), &params(), &patch)).await.map(Some)
    }

    pub(super) async fn finalizers(
        &self,
        op: &NodeOp,
        finalizers: &[String],
    ) -> anyhow::Result<Vec<LiveObject>> {
        let patch =
            json!({"metadata": {"resourceVersion": op.metadata.resource_version, "finalizers": finalizers}});
        let api = self.api::<NodeOp>(namespace(op));
        let written = self.write(api.patch(&op.name_any(), &params(), &Patch::Merge(patch))).await?;
        Ok(vec![LiveObject::Op(Box::new(written))])
    }

    pub(super) async fn say_one(&self, about: &ObjectReference, notice: &Notice) -> anyhow::Result<()> {
        for (event, about) in events(about, notice) {
            self.publish(event, &about).await?;
        }
        Ok(())
    }

    /// Says once, after the first failure, that a node's facts cannot be read.
    pub(super) async fn report_unreadable(&self, node: &str, attempt: i32, last_error: Option<&str>) {
        let Some(last_error) = last_error.filter(|_| attempt == 1) else { return };
        let event = Event {
            type_: EventType::Warning,
            reason: "FactsUnreadable".into(),
            note: Some(format!(
                "what the node runs could not be read, it is tried again with pauses: {last_error}"
            )),
            action: "ReadFacts".into(),
            secondary: None,
        };
        if let Err(error) = self.publish(event, &about_node(node)).await {
            tracing::warn!(error = error_message(&error), node, "an Event was lost");
        }
    }

    pub(super) async fn publish(&self, event: Event, about: &ObjectReference) -> anyhow::Result<()> {
        // A recorder keeps each Event for six minutes, to count it up if it is said again. We say each
        // once, and a rollout over thousands of nodes says many.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        self.write(recorder.publish(&fit(event), about)).await
    }
}

/// The Event with as much of its note as a server takes.
fn fit(mut event: Event) -> Event {
    event.note = event.note.map(|note| clipped(&note, MAX_NOTE));
    event
}

/// A node, as Events name it. The kubelet's Events carry the node's name as UID, and `kubectl describe node`
/// asks for that.
pub fn about_node(node: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        api_version: Some("v1".into()),
        name: Some(node.into()),
        uid: Some(node.into()),
        ..ObjectReference::default()
    }
}

/// The Events of one notice, and what each is about: the operation, and the node if it is about one.
fn events(about: &ObjectReference, notice: &Notice) -> Vec<(Event, ObjectReference)> {
    let event = |note: String, secondary: Option<ObjectReference>| Event {
        type_: if notice.warning { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.into(),
        note: Some(note),
        action: notice.reason.into(),
        secondary,
    };
    let Some(node) = &notice.node else {
        return vec![(event(notice.message.clone(), None), about.clone())];
    };
    let path = format!(
        "{}/{}",
        about.namespace.as_deref().unwrap_or_default(),
        about.name.as_deref().unwrap_or_default()
    );
    let on = about_node(node);
    vec![
        (event(notice.message.clone(), Some(on.clone())), about.clone()),
        (event(format!("NodeOp {path}: {}", notice.message), Some(about.clone())), on),
    ]
}

pub(super) fn params() -> PatchParams {
    PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_is_lost_for_its_length() {
        let op = NodeOp::new("op", Default::default()).object_ref(&());
        let notice =
            Notice {
                warning: true, reason: "NodeFailed", message: "ä".repeat(700), node: Some("n1".into())
            };
        for (event, _) in events(&op, &notice) {
            let note = fit(event).note.unwrap();
            assert!((1000..=1024).contains(&note.len()) && note.ends_with('…'), "{}", note.len());
        }
    }
}

//! Writes to a NodeOp: its status, its finalizers, and Events about it.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope, api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams, ValidationDirective},
    core::{Request, object::HasStatus},
    runtime::events::{Event, EventType, Recorder},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Actor,
    diff::{NodesStatus, status_diff},
    error::{is_unknown, is_unknown_field},
    workload::namespace,
};
use crate::{
    api::{
        metadata, names,
        nodeop::{NodeOp, NodeOpStatus},
        text::clipped,
    },
    observe::LiveObject,
    plan::model::action::Notice,
};

/// How a server is asked for an object's metadata alone.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// What it answers then.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(deserialize_with = "metadata::read")]
    metadata: ObjectMeta,
}

/// Without one of these fields a status means something else. Without `succeededIn` the Job of a command is
/// still to be made, and not only to record a success: the command would run again. Without
/// `observedGeneration`, which each write names, it is the Go operator's, and would be taken over at each
/// plan; without the others a node in progress is one of which nothing is known, or is not held any more.
const INDISPENSABLE: [&str; 9] = [
    "succeededIn",
    "observedGeneration",
    "step",
    "jobUid",
    "nodeUid",
    "boot",
    "givenUp",
    "untouched",
    "holdsSlot",
];

/// Bytes of an Event's note; a server refuses a longer one.
const MAX_NOTE: usize = 1024;

impl Actor {
    pub(super) async fn patch_op_status(
        &self,
        op: &NodeOp,
        status: &NodeOpStatus,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let written = self.patch_status(op, status).await?;
        Ok(written.map(|op| LiveObject::Op(Box::new(op))).into_iter().collect())
    }

    /// Turns the status of `object` into `new`, at the object's resourceVersion; `None` if nothing differs.
    ///
    /// What stands there then we know: the server refuses the write if the object has changed, and, asked to
    /// be strict, if its CRD has no such field. So it is asked for the object's metadata alone, not for the
    /// entries of thousands of nodes of which one has changed.
    pub(super) async fn patch_status<K, S>(&self, object: &K, new: &S) -> anyhow::Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope>
            + HasStatus<Status = S>
            + Clone
            + Debug
            + DeserializeOwned,
        K::DynamicType: Default,
        S: NodesStatus,
    {
        let old = object.status();
        let Some(diff) = status_diff(old, new)? else { return Ok(None) };
        let mut written = object.clone();
        *written.status_mut() = Some(new.as_written(old));
        let mut patch = json!({"metadata": {"resourceVersion": object.meta().resource_version}});
        patch["status"] = diff;
        let patch = Patch::Merge(patch);
        let (api, name) = (self.api::<K>(&object.namespace().unwrap_or_default()), object.name_any());
        let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..params() };
        let mut request =
            Request::new(api.resource_url()).patch_subresource("status", &name, &strict, &patch)?;
        request.headers_mut().insert("accept", METADATA.parse()?);
        match self.write(self.client.request::<Written>(request)).await {
            Ok(answer) => {
                *written.meta_mut() = answer.metadata;
                Ok(Some(written))
            }
            Err(error) => match INDISPENSABLE.into_iter().find(|field| is_unknown(&error, field)) {
                Some(field) => Err(error.context(format!(
                    "the CRDs in this cluster are older than the operator, and have no field {field}; apply those of \
                     the operator's version"
                ))),
                // A CRD older than we are keeps a part. Which one, it has to say.
                None if is_unknown_field(&error) => {
                    self.write(api.patch_status(&name, &params(), &patch)).await.map(Some)
                }
                None => Err(error),
            },
        }
    }

    pub(super) async fn set_finalizers(
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

    pub(super) fn say_one(&self, about: &ObjectReference, notice: &Notice) {
        for (event, about) in events(about, notice) {
            self.queue(event, about, None);
        }
    }

    /// Says once, after the first failure, that a node's facts cannot be read.
    pub(super) fn report_unreadable(&self, node: &str, attempt: i32, last_error: Option<&str>) {
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
        self.queue(event, about_node(node), None);
    }

    pub(super) async fn publish(&self, event: Event, about: &ObjectReference) -> anyhow::Result<()> {
        // A recorder keeps each Event for six minutes, to count it up if it is said again. We say each
        // once, and a rollout over thousands of nodes says many.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        Ok(self.answer_to(recorder.publish(&fit(event), about), super::SERVER).await??)
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
mod tests;

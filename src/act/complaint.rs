//! Events about what keeps failing, for those who look at the object and not at our log.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};

use super::Actor;
pub use super::status::about_node;
use crate::{
    api::{names::reason, nodeop::NodeOp},
    plan::model::{
        action::{Action, Target},
        id::OpRef,
    },
};

fn reference(kind: &str, api_version: &str, namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        kind: Some(kind.into()),
        api_version: Some(api_version.into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
    }
}

/// A NodeOp, as Events name it.
pub fn about_op(op: &OpRef) -> ObjectReference {
    reference(&NodeOp::kind(&()), &NodeOp::api_version(&()), &op.namespace, &op.name, &op.uid)
}

fn of_target(kind: &str, api_version: &str, target: &Target) -> ObjectReference {
    reference(kind, api_version, &target.namespace, &target.name, &target.uid)
}

/// The object that an action is done for: where somebody who waits for it will look.
pub fn about(action: &Action) -> Option<ObjectReference> {
    Some(match action {
        Action::Status { op, status: _, notices: _ }
        | Action::Finalizers { op, finalizers: _ }
        | Action::Conclude { op, finalizers: _ }
        | Action::PassOn { child: op, concurrency: _, stop_on_failure: _ }
        | Action::MakePreflight { op, node: _, name: _ }
        | Action::MakeWaiter { op, node: _, name: _, job: _, grant: _ }
        | Action::MakeJob { op, node: _, name: _ } => about_op(&OpRef::of(op)),
        Action::Node { name, resource_version: _, change } => match &change.claimed_by {
            Some(Some(op)) => about_op(op),
            Some(None) | None => about_node(name),
        },
        Action::MakeChild { upgrade } | Action::UpgradeStatus { upgrade, status: _, notices: _ } => upgrade.object_ref(&()),
        Action::MakeFacts { node, node_uid: _, name: _, attempt: _, complaint: _ } => about_node(node),
        Action::ResumeJob { job }
        | Action::ExtendJob { job, deadline_seconds: _ }
        | Action::DeleteJob { job, after_its_pods: _, why: _ } => of_target("Job", "batch/v1", job),
        Action::DeletePod { pod, why: _ } => of_target("Pod", "v1", pod),
        // What holds up an eviction stands in the message of the node that is drained.
        Action::Evict { node: _, pod: _, grace_period_seconds: _ } => return None,
    })
}

impl Actor {
    /// Says that something keeps failing. The caller says it once.
    pub async fn complain(&self, about: &ObjectReference, what: &str, words: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason::BLOCKED.into(),
            note: Some(format!("{what} keeps failing, it is tried again with pauses: {words}")),
            action: reason::BLOCKED.into(),
            secondary: None,
        };
        if let Err(error) = self.publish(event, about).await {
            tracing::warn!(error = format!("{error:#}"), what, "an Event was lost");
        }
    }
}

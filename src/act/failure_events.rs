//! Events about what keeps failing, for those who look at the object and not at our log.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};

pub use super::status::about_node;
use super::{Actor, OnWritten};
use crate::{
    api::{names::reason, nodeop::NodeOp},
    plan::model::{
        action::{About, Target},
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

/// The object, as Events name it.
pub fn reference_to(about: &About) -> ObjectReference {
    let of_target = |kind, api_version, target: &Target| {
        reference(kind, api_version, &target.namespace, &target.name, &target.uid)
    };
    match about {
        About::Op(op) => about_op(op),
        About::Upgrade(upgrade) => upgrade.object_ref(&()),
        About::Node(node) => about_node(node),
        About::Job(job) => of_target("Job", "batch/v1", job),
        About::Pod(pod) => of_target("Pod", "v1", pod),
    }
}

impl Actor {
    /// Says that something keeps failing. `told` hears whether the Event was written: the caller says it
    /// once.
    pub fn report_failure(&self, about: ObjectReference, what: &str, message: &str, told: OnWritten) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason::BLOCKED.into(),
            note: Some(format!("{what} keeps failing, it is tried again with pauses: {message}")),
            action: reason::BLOCKED.into(),
            secondary: None,
        };
        self.queue(event, about, Some(told));
    }
}

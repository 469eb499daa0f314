//! What the unit tests of several plans start from.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::{names, nodeop::NodeOp},
    plan::model::{
        object_name,
        snapshot::{JobState, JobView, NodeView, Owner, PodPhase, PodView, Role},
    },
};

/// A moment, in seconds.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A NodeOp under way in namespace `ns`, whose UID is its name, and the entries of its nodes. `spec` is what
/// it asks for besides a command, a cordon, and one node at a time.
pub fn nodeop(name: &str, spec: &Value, entries: &Value) -> NodeOp {
    let mut whole = json!({"command": ["true"], "cordon": true, "concurrency": 1});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let op = json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "finalizers": [names::FINALIZER]},
        "spec": whole,
        "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": entries},
    });
    serde_json::from_value(op).unwrap()
}

/// A node that is Ready, whose UID is its name.
pub fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), uid: name.into(), ready: true, ..NodeView::default() }
}

/// The name of the Job of NodeOp `op`, whose UID is `u`, on node n1.
pub fn job_name() -> String {
    object_name::object(("op", "u"), "n1", "", 0)
}

/// A pod that runs in namespace `ns`, named after its UID, with nothing in it yet.
pub fn pod(role: Role, uid: &str, owner: Owner, node: &str) -> PodView {
    PodView {
        namespace: "ns".into(),
        name: uid.into(),
        uid: uid.into(),
        owner,
        role,
        node: node.into(),
        phase: PodPhase::Running,
        reason: String::new(),
        deleting: false,
        created: Timestamp::UNIX_EPOCH,
        attempt: 0,
        reboot_state: None,
        waits_in: None,
        containers: vec![],
    }
}

/// A Job with UID `ju` that NodeOp `ns/op` (UID `u`) has on n1, and that may run.
pub fn job(name: &str, state: JobState) -> JobView {
    JobView {
        namespace: "ns".into(),
        name: name.into(),
        uid: "ju".into(),
        resource_version: "1".into(),
        owner: Owner::nodeop("op", "u"),
        node: "n1".into(),
        suspended: false,
        deleting: false,
        state,
        started_at: None,
        generation: Some(1),
        deadline_seconds: None,
        failed: 0,
        has_pod: false,
        has_ready_pod: false,
        settled_in: None,
    }
}

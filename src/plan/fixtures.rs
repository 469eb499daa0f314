//! What the unit tests of several plans start from.

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::{
    object_name,
    snapshot::{JobState, JobView, Owner, PodPhase, PodView, Role},
};

/// A moment, in seconds.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
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

//! Tests of the step in which the Job runs.

use std::sync::Arc;

use serde_json::json;

use crate::{
    contract::reboot_state,
    plan::{
        fixtures,
        model::{
            action::Action,
            object_name,
            snapshot::{JobState, JobView, NodeView, Owner, PodPhase, PodView, Role},
        },
        node::fixtures::World,
    },
};

fn name() -> String {
    object_name::object(("op", "u"), "n1", "", 0)
}

/// A node whose Job is recorded and suspended, and whose reboot waiter is ready.
fn suspended() -> World {
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name(), "jobUid": "ju",
        "rebootStatus": "pending"});
    let mut world = World::new(entry);
    let job = JobView { suspended: true, ..fixtures::job(&name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), name()), Arc::new(job));
    let waiter = PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) };
    world.put(waiter);
    world
}

#[test]
fn a_job_that_somebody_suspended_is_resumed_and_that_is_said() {
    let resumes = |world: &mut World| {
        let out = world.pass(1);
        assert!(out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. })), "{out:?}");
        world.pass(3);
        world.entry().message.unwrap()
    };
    assert!(resumes(&mut suspended()).contains("Job is running"), "it was made suspended, by us");
    let mut world = suspended();
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&name(), "ju"), "n1");
    world.put(PodView { phase: PodPhase::Failed, ..pod });
    let told = resumes(&mut world);
    assert!(told.starts_with("somebody suspended Job op-n1-") && told.contains("resumed"), "{told}");
}

#[test]
fn a_node_that_is_not_heard_of_is_not_said_to_run_the_job_and_no_more() {
    for phase in [PodPhase::Pending, PodPhase::Running] {
        let mut world = suspended();
        let job = JobView { suspended: false, ..fixtures::job(&name(), JobState::Active) };
        world.snapshot.jobs.insert(("ns".into(), name()), Arc::new(job));
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&name(), "ju"), "n1");
        world.put(PodView { phase, ..pod });
        world.pass(1);
        assert_eq!(world.entry().message.as_deref(), Some("Job is running"));
        let node = NodeView { ready: false, ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        world.pass(30);
        assert_eq!(world.entry().message.as_deref(), Some("Job is running; the node is not Ready"));
    }
}

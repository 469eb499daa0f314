//! A Job that runs another content than the first node of its architecture did, without a preflight.

use super::*;
use crate::api::image_content::ImageContent;

fn digest(digit: &str) -> String {
    format!("docker.io/library/busybox@sha256:{}", digit.repeat(64))
}

/// Its waiter stands.
fn another(state: JobState) -> World {
    let mut world = suspended().node(|node| node.arch = "amd64".into()).op(|op| {
        let first =
            ImageContent { architecture: "amd64".into(), digest: digest("a"), ..ImageContent::default() };
        op.status.as_mut().unwrap().images = vec![first];
    });
    world
        .snapshot
        .jobs
        .insert(("ns".into(), fixtures::job_name()), Arc::new(fixtures::job(&fixtures::job_name(), state)));
    let running = ContainerState::Running { since: at(0) };
    let container = ContainerView { image_id: digest("b"), ..ContainerView::new(container::NODEOP, running) };
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { containers: vec![container], ..pod });
    world
}

fn ends_waiter(out: &Plan) -> bool {
    let ends =
        |action: &Action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains("reboot"));
    out.actions.iter().any(ends)
}

#[test]
fn a_job_that_runs_another_content_than_the_first_node_fails_its_node_also_without_a_preflight() {
    for state in [JobState::Active, JobState::Complete] {
        let mut world = another(state);
        world.pass(1);
        let told = world.entry().given_up.unwrap();
        assert!(told.contains(&digest("a")) && told.contains(&digest("b")), "{told}");
        assert!(ends_waiter(&world.pass(2)), "with its Job, if that still runs");
    }
}

/// The agent is not killed midway; its waiter sees the Job complete before we do.
#[test]
fn an_upgrade_to_another_content_is_left_to_end_without_its_waiter() {
    let mut world = another(JobState::Active).op(|op| {
        op.spec.upgrade = serde_json::from_value(json!({"upgradeActive": true})).unwrap();
    });
    let out = world.pass(1);
    assert!(ends_waiter(&out), "{:?}", out.actions);
    assert!(
        !out.actions.iter().any(|action| matches!(action, Action::DeleteJob { .. })),
        "{:?}",
        out.actions
    );
    assert_eq!(world.entry().given_up, None);
}

//! A Job whose deadline ran out while nobody could tell that its pod had succeeded, as when the API server,
//! or the node, was away.

use super::*;

/// Its pod has succeeded, and recorded this; another one may have followed.
fn late(job_uid: &str, boot: &str, followed: bool) -> World {
    let mut world = suspended();
    world.pass(0);
    let why = "DeadlineExceeded: Job was active longer than specified deadline";
    let job = JobView {
        failed: followed.into(),
        ..fixtures::job(&fixtures::job_name(), JobState::Failed(why.into()))
    };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let record = Sentinel { job_uid: job_uid.into(), boot: boot.into(), ..Sentinel::default() };
    let message = serde_json::to_string(&record).unwrap();
    let ended = |name: &str, message| {
        ContainerView::new(name, ContainerState::Ended { code: 0, reason: "Completed".into(), message })
    };
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    let containers = vec![ended(container::NODEOP, String::new()), ended(container::SENTINEL, message)];
    if followed {
        world.put(PodView {
            name: "q".into(),
            uid: "q".into(),
            created: at(9),
            phase: PodPhase::Failed,
            ..pod.clone()
        });
    }
    world.put(PodView { phase: PodPhase::Succeeded, containers, ..pod });
    world
}

#[test]
fn what_its_pod_recorded_is_a_success() {
    for (job_uid, boot, followed, comes_to) in [
        ("ju", "b1", false, "reboots"),
        ("ju", "b1", true, "reboots"),
        ("ju", "", false, "done"),
        // The node has rebooted by itself since.
        ("ju", "b0", false, "reboots"),
        // … and there the operation was tried again, by a pod that was ended with its Job.
        ("ju", "b0", true, "failed"),
        ("another", "b1", false, "failed"),
    ] {
        let mut world = late(job_uid, boot, followed);
        world.pass(10);
        let entry = world.entry();
        let came_to = match (entry.phase, entry.step) {
            (Phase::Running, Some(Step::Reboot)) if entry.boot.as_deref() == Some(boot) => "reboots",
            (Phase::Completed, _) => "done",
            (Phase::Failed, _) => "failed",
            _ => "something else",
        };
        assert_eq!(came_to, comes_to, "{job_uid} {boot:?} {followed}: {entry:?}");
    }
}

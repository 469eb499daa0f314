//! Whether the operation may have begun in a Job: in a pod that is there, in one that was seen, or in one of
//! which the Job's status alone tells.

use super::*;
use crate::plan::{
    model::{
        identity::Identified,
        question::{Answer, Question},
        snapshot::PersistentFailure,
    },
    node::{fixtures::line, job::run},
};

fn key() -> (String, String) {
    ("ns".to_owned(), fixtures::job_name())
}

/// The Job may run, and has changed so.
fn job(world: &mut World, change: impl FnOnce(&mut JobView)) {
    let mut job = JobView { generation: Some(2), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    change(&mut job);
    world.snapshot.jobs.insert(key(), Arc::new(job));
}

fn pod(name: &str, state: ContainerState) -> PodView {
    let phase = match &state {
        ContainerState::Waiting { .. } => PodPhase::Pending,
        ContainerState::Running { .. } => PodPhase::Running,
        ContainerState::Ended { .. } => PodPhase::Failed,
    };
    let containers = vec![ContainerView::new(container::NODEOP, state)];
    let pod = fixtures::pod(Role::Job, name, Owner::job(&fixtures::job_name(), "ju"), "n1");
    PodView { phase, containers, ..pod }
}

fn runs(name: &str) -> PodView {
    pod(name, ContainerState::Running { since: at(0) })
}

fn cannot_pull(name: &str) -> PodView {
    let (reason, message) = ("ErrImagePull".into(), "no route to host".into());
    pod(name, ContainerState::Waiting { reason, message })
}

fn without_pods(world: &mut World) {
    world.snapshot.pods.retain(|_, pod| pod.role != Role::Job);
}

/// What becomes of the node: its phase once that is final, and whether its Job may have run.
fn ends(world: &mut World, seconds: impl Iterator<Item = i64>) -> (Phase, Option<bool>, String) {
    for second in seconds {
        let out = world.pass(second);
        if out.actions.iter().any(|action| matches!(action, Action::DeleteJob { .. })) {
            world.snapshot.jobs.remove(&key());
            world.snapshot.pods.clear();
        }
        let entry = world.entry();
        if entry.phase.is_final() {
            return (entry.phase, Some(entry.job_name.is_some()), entry.message.unwrap_or_default());
        }
    }
    (world.entry().phase, None, world.entry().message.unwrap_or_default())
}

/// The Job may run since second 0, and its pod runs the command since second 1.
fn began() -> World {
    let mut world = suspended();
    world.pass(0);
    job(&mut world, |_| {});
    world.pass(0);
    world.put(runs("p"));
    world.pass(1);
    world
}

/// It was deleted, which the Job counts as a failure, and the next one meets what would pass.
#[test]
fn a_command_that_ran_in_a_pod_that_is_gone_has_begun() {
    let mut world = began();
    without_pods(&mut world);
    world.put(cannot_pull("q"));
    job(&mut world, |job| job.failed = 1);
    world.pass(50);
    let entry = world.entry();
    assert_eq!((entry.phase, entry.given_up), (Phase::Running, None), "{:?}", entry.message);
    // It has as long as any pod may take to start, from when no command ran any more.
    assert_eq!(ends(&mut world, 51..89).0, Phase::Running);
    let (phase, ran, told) = ends(&mut world, 90..95);
    assert_eq!((phase, ran), (Phase::Failed, Some(true)), "{told}");
    assert!(told.starts_with("no further pod of the Job could start in 40 s: ErrImagePull"), "{told}");
    // What no waiting helps against fails it at once, and no less as one that has begun.
    let mut world = began();
    without_pods(&mut world);
    let state = ContainerState::Waiting { reason: "InvalidImageName".into(), message: String::new() };
    world.put(pod("q", state));
    job(&mut world, |job| job.failed = 1);
    let (phase, ran, told) = ends(&mut world, 50..55);
    assert_eq!((phase, ran), (Phase::Failed, Some(true)), "{told}");
    assert!(told.starts_with("no further pod of the Job can start: InvalidImageName"), "{told}");
}

/// Between two tries the Job has no pod, and a webhook that does not answer is no reason to call the node
/// untouched.
#[test]
fn a_job_without_a_pod_whose_last_one_ran_has_begun() {
    let mut world = began();
    without_pods(&mut world);
    job(&mut world, |job| job.failed = 1);
    world.pass(50);
    let told = world.entry().message.unwrap();
    assert_eq!(told, "Job is running; one try failed, and its pod is gone");
    let refused = Answer::Refused("pods: webhook does not answer".into());
    let asked = Question::Admission(world.me.clone(), "n1".into());
    let world = world.now(100).answer(asked, refused).answer(Question::Job(key()), Answer::Found);
    let told = world.decide(|ctx| line(&run::advance(ctx, &ctx.snapshot.jobs[&key()])));
    assert!(told.starts_with("gives up: no further pod of the Job could start in 40 s"), "{told}");
    assert!(told.contains("webhook does not answer"), "{told}");
}

/// Somebody suspends the Job: its controller ends the pods, and counts none of them.
#[test]
fn a_command_that_somebody_ended_by_suspending_its_job_has_begun() {
    let mut world = began();
    without_pods(&mut world);
    job(&mut world, |job| (job.suspended, job.generation) = (true, Some(3)));
    world.pass(10);
    job(&mut world, |job| job.generation = Some(4));
    world.put(cannot_pull("q"));
    let (phase, ran, told) = ends(&mut world, 50..100);
    assert_eq!((phase, ran), (Phase::Failed, Some(true)), "{told}");
}

/// Whoever leads anew has seen no pod of before, and the Job's status is all that is left.
#[test]
fn whoever_leads_anew_takes_the_word_of_the_job_for_what_it_has_not_seen() {
    for (failed, generation, pods, ran) in [
        (0, 2, vec![cannot_pull("q")], false),
        (1, 2, vec![cannot_pull("q")], true),
        // It was suspended, and resumed.
        (0, 4, vec![cannot_pull("q")], true),
        // A kubelet that starts again may refuse what ran before.
        (1, 2, vec![refused(), cannot_pull("q")], true),
    ] {
        let mut world = suspended();
        job(&mut world, |job| (job.failed, job.generation) = (failed, Some(generation)));
        pods.into_iter().for_each(|pod| world.put(pod));
        let (phase, began, told) = ends(&mut world, 0..50);
        assert_eq!((phase, began), (Phase::Failed, Some(ran)), "{failed} {generation}: {told}");
    }
}

/// What never began is given back as it was, however often somebody deletes its pods, or its node refuses
/// them.
#[test]
fn pods_of_which_none_began_are_no_try_though_they_are_counted_and_gone() {
    let mut world = suspended();
    world.pass(0);
    job(&mut world, |_| {});
    let ends_unbegun = |world: &mut World, name: &str, second| {
        world.put(PodView { phase: PodPhase::Failed, ..cannot_pull(name) });
        world.pass(second);
        without_pods(world);
    };
    world.put(cannot_pull("p"));
    world.pass(1);
    ends_unbegun(&mut world, "p", 2);
    world.put(cannot_pull("q"));
    job(&mut world, |job| job.failed = 1);
    world.pass(20);
    ends_unbegun(&mut world, "q", 20);
    world.put(PodView { name: "s".into(), uid: "s".into(), ..refused() });
    world.put(cannot_pull("r"));
    job(&mut world, |job| job.failed = 3);
    let (phase, ran, told) = ends(&mut world, 21..50);
    assert_eq!((phase, ran), (Phase::Failed, Some(false)), "{told}");
    assert!(told.starts_with("the Job's pod could not start in 40 s: ErrImagePull"), "{told}");
}

/// It was given up as untouched, and the operator stood still before it had ended the Job.
#[test]
fn what_began_after_it_was_given_up_as_untouched_is_known_by_what_the_job_counts() {
    let mut world = suspended();
    job(&mut world, |job| job.failed = 1);
    world.put(cannot_pull("q"));
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju",
        "rebootStatus": "pending", "lastUpdated": Time(at(0)), "givenUp": "the Job's pod could not start", "untouched": true});
    world = world.op(|op| {
        let entry = serde_json::from_value(entry).unwrap();
        op.status.as_mut().unwrap().node_statuses.update("n1", |it| *it = entry);
    });
    world.pass(1);
    assert_eq!(world.entry().untouched, Some(false), "{:?}", world.entry());
}

/// The API server denies that the Job is let go, as a policy may, and goes on denying it.
fn denied(mut world: World, since: i64) -> (Phase, Option<bool>, String) {
    let out = world.pass(since);
    let resume = out.actions.iter().find(|action| matches!(action, Action::ResumeJob { .. })).unwrap();
    let message = "admission webhook \"queue\" denied the request".to_owned();
    world.snapshot.failures = [(resume.id(), PersistentFailure { since: at(since), message })].into();
    ends(&mut world, since + 1..since + 60)
}

#[test]
fn a_job_that_cannot_be_let_go_has_left_its_node_as_it_was() {
    let (phase, ran, told) = denied(suspended(), 0);
    assert_eq!((phase, ran), (Phase::Failed, Some(false)), "{told}");
    assert!(told.starts_with("the operation was not started in 40 s: "), "{told}");
    assert!(told.contains("denied the request"), "{told}");
    // Its waiter was lost before, and none gets ready any more.
    let mut world = suspended();
    world.snapshot.pods.clear();
    let (phase, ran, told) = ends(&mut world, 0..100);
    assert!(told.starts_with("the reboot waiter did not get ready in 40 s"), "{told}");
    assert_eq!((phase, ran), (Phase::Failed, Some(false)), "{told}");
}

#[test]
fn a_job_that_ran_before_somebody_suspended_it_has_not() {
    // Whoever leads anew sees that it was let go before.
    let mut world = suspended();
    job(&mut world, |job| (job.suspended, job.generation) = (true, Some(3)));
    let (phase, ran, told) = denied(world, 0);
    assert_eq!((phase, ran), (Phase::Failed, Some(true)), "{told}");
    let mut world = began();
    without_pods(&mut world);
    job(&mut world, |job| (job.suspended, job.generation) = (true, Some(3)));
    let (phase, ran, told) = denied(world, 10);
    assert_eq!((phase, ran), (Phase::Failed, Some(true)), "{told}");
}

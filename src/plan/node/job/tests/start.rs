//! A Job's pod that does not begin, and of which nobody says why.

use super::{
    super::{adopted, pods::JobPods, start::began_or_waits},
    *,
};
use crate::plan::{
    model::{
        identity::Identified,
        question::{Answer, Question, Regarding},
        snapshot::PersistentFailure,
    },
    node::fixtures::line,
};

/// A Job that may run since second 0, and its pod, whose container waits. Both were watched from the
/// beginning.
fn silent() -> World {
    let mut world = suspended();
    world.pass(0);
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let waits = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let containers = vec![ContainerView::new(container::NODEOP, waits)];
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    world.put(PodView { phase: PodPhase::Pending, containers, ..pod });
    world.pass(0);
    world
}

fn says(world: &mut World, second: i64) -> String {
    let out = world.pass(second);
    out.why(&world.me.key(), "n1").map(|why| why.message.clone()).unwrap_or_default()
}

/// A pull that hangs, or a kubelet that is Ready and has not told yet that the pod runs, as after a time
/// without the API server: nobody knows which of the two.
#[test]
fn a_pod_that_does_not_start_says_so_and_is_not_given_up_for_its_silence() {
    let mut world = silent();
    assert_eq!(says(&mut world, 9), "Job is running");
    let told = "Job is running; its pod has not started yet, as while its image is pulled";
    assert_eq!((says(&mut world, 10).as_str(), says(&mut world, 39).as_str()), (told, told));
    assert_eq!(says(&mut world, 4_000), told);
    assert_eq!(world.entry().given_up, None);
}

/// What its newest Event warns of keeps a pod until `pullTimeoutSeconds` are over; that its image is being
/// pulled does not.
#[test]
fn a_pod_whose_image_is_being_pulled_says_so_and_is_not_given_up_for_that() {
    let mut world = silent();
    world.event = Answer::Pulls { since: Some(at(2)) };
    let told =
        format!("Job is running; its pod has not started yet: its image is being pulled since {:.0}", at(2));
    assert_eq!([says(&mut world, 10), says(&mut world, 4_000)], [told.clone(), told]);
    assert_eq!(world.entry().given_up, None);
}

#[test]
fn a_pod_on_a_node_that_is_away_may_have_begun_and_is_not_given_up_for_its_silence() {
    let mut world = silent().node(|node| node.ready = false);
    assert_eq!(says(&mut world, 50), "Job is running; the node is not Ready");
    assert_eq!(world.entry().given_up, None);
}

/// The kubelet refused it, and the Job controller makes the next one after a pause.
#[test]
fn between_two_pods_the_last_one_is_told_of() {
    let mut world = silent();
    world.put(refused());
    let told = says(&mut world, 11);
    assert!(told.starts_with("the Job's pod cannot start yet: OutOfpods"), "{told}");
}

/// Before its node was taken it would have ended the operation at once; a quota may be free in a moment.
#[test]
fn a_pod_that_the_api_server_refuses_for_good_is_not_waited_for() {
    let key = || ("ns".to_owned(), fixtures::job_name());
    let comes_to = |second: i64, answer: Answer| {
        let mut world = suspended();
        world.pass(0);
        let job = JobView {
            suspended: false,
            generation: Some(2),
            ..fixtures::job(&fixtures::job_name(), JobState::Active)
        };
        world.snapshot.jobs.insert(key(), Arc::new(job));
        world.pass(0);
        let asked = Question::Admission(world.me.clone(), "n1".into());
        let world = world.now(second).answer(asked, answer).answer(Question::Job(key()), Answer::Found);
        world.decide(|ctx| {
            let pods = JobPods::of(ctx, "ju");
            line(&began_or_waits(ctx, &ctx.snapshot.jobs[&key()], &pods))
        })
    };
    let refused = || Answer::Refused("pods: privileged".into());
    let waits = "waits: the Job's pod cannot start yet: the Job controller has made no pod";
    let told = [comes_to(29, refused()), comes_to(39, Answer::NotYet("pods: quota".into()))];
    assert!(told.iter().all(|told| told.starts_with(waits)), "{told:?}");
    let told = comes_to(31, refused());
    assert!(told.starts_with("gives up: the Job's pod cannot start: the Job controller"), "{told}");
}

/// An upgrade that waited for the node's lock in vain has done nothing; a command may end with any code.
#[test]
fn an_upgrade_that_could_not_have_the_nodes_lock_is_no_try() {
    let ended = |name: &str, code: u8, message: &str| {
        let state =
            ContainerState::Ended { code: code.into(), reason: String::new(), message: message.into() };
        ContainerView::new(name, state)
    };
    let why = "kairos-agent was not started; the node's lock cannot be taken: pod a on this node has held it for 960 s";
    let nodeop = || ended(container::NODEOP, EXIT_LOCKED, why);
    for (containers, again) in
        [(vec![ended(container::INSTALL, 0, ""), nodeop()], true), (vec![nodeop()], false)]
    {
        let mut world = used_up(PodView { containers, reason: String::new(), ..refused() });
        world.pass(1);
        let entry = world.entry();
        let phase = if again { Phase::Running } else { Phase::Failed };
        let told = entry.message.unwrap();
        assert_eq!((entry.phase, told.contains("pod a on this node has held it")), (phase, true), "{told}");
        assert_eq!(told.starts_with("the Job's pod cannot start yet"), again, "{told}");
    }
}

/// An agent that writes is left to end for the grace of its pod, and killed after that; and its pod goes as
/// soon as it is counted.
#[test]
fn of_an_upgrade_that_was_ended_at_its_deadline_it_is_said_that_its_image_is_not_known() {
    let why = "DeadlineExceeded: Job was active longer than specified deadline";
    let ended = |code, message: &str| {
        let state = ContainerState::Ended { code, reason: "Error".into(), message: message.into() };
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        let containers = vec![ContainerView::new(container::NODEOP, state)];
        Some(PodView { phase: PodPhase::Failed, containers, ..pod })
    };
    let unknown = "the upgrade was ended at its deadline, and what kairos-agent has written is not known";
    for (pod, is_upgrade, told, section) in [
        (None, true, unknown, "an-agent-that-was-interrupted"),
        (ended(137, "writing the image"), true, unknown, "an-agent-that-was-interrupted"),
        (ended(1, "no space left"), true, "exit code 1: no space left", "job-failed"),
        (None, false, "none of its pods is left to say why", "job-failed"),
    ] {
        let mut world = silent();
        world.snapshot.pods.retain(|(_, name), _| name != "p");
        let running = ContainerState::Running { since: at(1) };
        let pod_runs = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        let containers = vec![ContainerView::new(container::NODEOP, running)];
        world.put(PodView { phase: PodPhase::Running, containers, ..pod_runs });
        let upgrade = is_upgrade.then(|| serde_json::from_value(json!({})).unwrap());
        let mut world = world.op(|op| op.spec.upgrade = upgrade);
        world.pass(1);
        world.snapshot.pods.retain(|(_, name), _| name != "p");
        pod.into_iter().for_each(|pod| world.put(pod));
        let job = JobView { failed: 1, ..fixtures::job(&fixtures::job_name(), JobState::Failed(why.into())) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world.pass(4_000);
        world.pass(4_010);
        let (entry, message) = (world.entry(), world.entry().message.unwrap_or_default());
        let cordoned = world.snapshot.nodes["n1"].unschedulable;
        assert!(message.starts_with(&format!("Job failed ({why}): {told}")), "{message}");
        assert!(message.contains(section), "{message}");
        assert_eq!((entry.phase, entry.job_name.is_some(), cordoned), (Phase::Failed, true, true));
    }
}

/// What is refused to the Job's controller alone, and not to a dry run of ours.
#[test]
fn what_a_jobs_controller_says_of_a_pod_that_it_cannot_make_is_told_and_ends_the_wait_for_it() {
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    let mut world = suspended();
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let why = "FailedCreate: Error creating: admission webhook \"images.example.com\" denied the request";
    let told = |world: &mut World, second: i64, event: Answer| {
        world.event = event;
        world.pass(second);
        world.entry().message.unwrap_or_default()
    };
    assert!(!told(&mut world, 0, Answer::Said(why.into())).contains(why), "it may take that long");
    let message = told(&mut world, 10, Answer::Said(why.into()));
    assert_eq!(message, format!("the Job's pod cannot start yet: the Job controller can make no pod: {why}"));
    // It was away, or has made a pod that no watch shows yet.
    let message = told(&mut world, 100, Answer::Found);
    assert_eq!(message, "the Job's pod cannot start yet: the Job controller has made no pod");
    // It has one by now, and the Event that says so is late, or was lost.
    let key = ("ns".to_owned(), fixtures::job_name());
    let has_pod = |world: &mut World, has_pod| {
        let job = JobView { has_pod, ..(*world.snapshot.jobs[&key]).clone() };
        world.snapshot.jobs.insert(key.clone(), Arc::new(job));
    };
    has_pod(&mut world, true);
    assert_eq!(told(&mut world, 111, Answer::Said(why.into())), "Job is running");
    assert_eq!(world.entry().given_up, None);
    has_pod(&mut world, false);
    let message = told(&mut world, 112, Answer::Said(why.into()));
    assert!(message.starts_with("the Job's pod could not start in 40 s: "), "{message}");
    assert!(message.contains(why), "{message}");
    let entry = world.entry();
    assert!(entry.given_up.is_some() || entry.phase == Phase::Failed, "{entry:?}");
}

/// A webhook refuses nothing if none of its pods runs any more, as where the drain has evicted them: it does
/// not answer, and neither does it answer the Job's controller. That one may also be away, and then it comes
/// back.
#[test]
fn a_job_that_gets_no_pod_is_given_up_if_its_dry_run_has_failed_for_as_long_as_a_pod_may_take() {
    let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    let mut world = suspended();
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job.clone()));
    world.pass(0);
    world.snapshot.answers = [(Question::Job(("ns".into(), fixtures::job_name())), Answer::Found)].into();
    let decided = |world: &mut World, second: i64, failing: Option<i64>| {
        world.snapshot.now = at(second);
        let message = "failed calling webhook \"policy.example.com\": no endpoints available".to_owned();
        let failure = |since| PersistentFailure { since: at(since), message: message.clone() };
        let tried = Question::Admission(world.me.clone(), "n1".into()).id();
        world.snapshot.failures = failing.map(|since| (tried, failure(since))).into_iter().collect();
        line(&world.decide(|ctx| began_or_waits(ctx, &job, &JobPods::of(ctx, "ju"))))
    };
    // It may take 40 seconds.
    for (second, failing) in [(49, Some(10)), (4_000, Some(3_961)), (4_000, None)] {
        let told = decided(&mut world, second, failing);
        assert!(told.starts_with("waits: the Job's pod cannot start yet: "), "{second}: {told}");
        assert!(told.contains("asks trying with a dry run"), "it is tried again: {told}");
    }
    let told = decided(&mut world, 50, Some(10));
    assert!(told.starts_with("gives up: the Job's pod could not start in 40 s: "), "{told}");
    assert!(told.contains("keeps failing since") && told.contains("no endpoints available"), "{told}");
}

/// The pods of the Go operator's Jobs carry no label of ours, so that no watch shows them.
#[test]
fn what_keeps_the_pod_of_an_adopted_job_is_asked_for_until_it_is_ready() {
    let name = "op-n1-x7k2q";
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name, "jobUid": "ju",
        "rebootStatus": "pending", "lastUpdated": Time(at(0))});
    let mut world = World::new(entry);
    let job = |has_pod: bool, has_ready_pod: bool| JobView {
        suspended: false,
        has_pod,
        has_ready_pod,
        ..fixtures::job(name, JobState::Active)
    };
    world.snapshot.jobs.insert(("ns".into(), name.into()), Arc::new(job(false, false)));
    world.pass(0);
    let mut told = |job: &JobView, of: Regarding, answer: Option<Answer>| {
        world.snapshot.now = at(20);
        let (namespace, name, uid) = ("ns".into(), name.into(), "ju".into());
        let question = Question::Events { of, namespace, name, uid };
        world.snapshot.answers = answer.map(|answer| (question, answer)).into_iter().collect();
        line(&world.decide(|ctx| adopted::advance(ctx, job)))
    };
    let waits = job(true, false);
    assert!(told(&waits, Regarding::PodsOfJob, None).contains("asks listing the pods of Job ns/op-n1-x7k2q"));
    let said = || Some(Answer::Said("ErrImagePull: no".into()));
    assert!(told(&waits, Regarding::PodsOfJob, said()).contains("ErrImagePull: no"));
    assert!(told(&waits, Regarding::PodsOfJob, Some(Answer::Found)).starts_with("waits: Job is running"));
    assert!(!told(&job(true, true), Regarding::PodsOfJob, None).contains("asks"));
    let refused = Some(Answer::Said("FailedCreate: no".into()));
    assert!(told(&job(false, false), Regarding::Job, refused).contains("can make no pod: FailedCreate: no"));
}

/// The Job waits for another control-plane node, which a power cut has taken, and this one with it.
#[test]
fn the_boot_of_a_job_is_the_one_in_which_it_is_let_go() {
    for (generation, boot) in [(1, "b2"), (3, "b1")] {
        let mut world = suspended().node(|node| node.boot_id = "b2".into()).op(|op| {
            let nodes = &mut op.status.as_mut().unwrap().node_statuses;
            nodes.update("n1", |entry| entry.boot = Some("b1".into()));
        });
        let key = ("ns".to_owned(), fixtures::job_name());
        let job = JobView { generation: Some(generation), ..(*world.snapshot.jobs[&key]).clone() };
        world.snapshot.jobs.insert(key, Arc::new(job));
        let resumes = |world: &mut World, second| {
            let out = world.pass(second);
            out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. }))
        };
        assert_eq!(resumes(&mut world, 1), generation == 3, "what has run before is resumed as it was");
        assert_eq!(world.entry().boot.as_deref(), Some(boot));
        assert!(resumes(&mut world, 2));
        assert_eq!(world.entry().boot.as_deref(), Some(boot));
    }
}

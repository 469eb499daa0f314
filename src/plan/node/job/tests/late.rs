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
fn a_job_whose_pod_has_succeeded_gets_time_to_be_counted_once() {
    let extended = |deadline_seconds, phase| {
        let mut world = suspended().op(|op| op.spec.active_deadline_seconds = Some(900));
        let name = fixtures::job_name();
        let job =
            JobView { deadline_seconds: Some(deadline_seconds), ..fixtures::job(&name, JobState::Active) };
        world.put(PodView { phase, ..fixtures::pod(Role::Job, "p", Owner::job(&name, "ju"), "n1") });
        world.snapshot.jobs.insert(("ns".into(), name), Arc::new(job));
        world.pass(1).actions.into_iter().find_map(|action| match action {
            Action::ExtendJob { job, deadline_seconds } if job.uid == "ju" => Some(deadline_seconds),
            _ => None,
        })
    };
    assert_eq!(extended(900, PodPhase::Succeeded), Some(960));
    assert_eq!(extended(960, PodPhase::Succeeded), None, "once");
    assert_eq!((extended(900, PodPhase::Running), extended(900, PodPhase::Failed)), (None, None));
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

const WHY: &str = "DeadlineExceeded: Job was active longer than specified deadline";

/// The deadline has run out, as the Job says, while the pod ran; and how that pod is when it has ended.
fn ran_out(state: fn(String) -> JobState, ready: bool) -> (World, PodView) {
    let mut world = late("ju", "b1", false).node(|node| node.ready = ready);
    let job = fixtures::job(&fixtures::job_name(), state(WHY.into()));
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    let succeeded = (**world.snapshot.pods.values().find(|pod| pod.role == Role::Job).unwrap()).clone();
    world.put(PodView { phase: PodPhase::Running, deleting: true, containers: vec![], ..succeeded.clone() });
    (world, PodView { deleting: true, ..succeeded })
}

/// The command and the record of its success need no API server: nobody hears of them before the node is
/// back.
#[test]
fn a_pod_on_a_node_that_is_away_may_have_succeeded_and_is_waited_for() {
    for state in [JobState::Failing as fn(String) -> JobState, JobState::Failed] {
        let (mut world, succeeded) = ran_out(state, false);
        for second in [2, 1_800] {
            let out = world.pass(second);
            let told = format!("the Job has failed, its pods are ending: {WHY}; the node is not Ready");
            assert_eq!(world.entry().message.as_deref(), Some(told.as_str()));
            assert_eq!((world.entry().given_up, out.wake_at), (None, Some(at(1_802))));
        }
        world.put(succeeded.clone());
        world.pass(1_800);
        assert_eq!(world.entry().step, Some(Step::Reboot), "{:?}", world.entry());

        // Nobody waits for ever, nor where no record could help.
        let given_up =
            |world: &World| world.entry().phase == Phase::Failed || world.entry().given_up.is_some();
        let (mut world, _) = ran_out(state, false);
        world.pass(1);
        world.pass(1_801);
        assert!(given_up(&world), "{:?}", world.entry());
        let (world, _) = ran_out(state, false);
        let mut world = world.op(|op| op.spec.reboot_on_success = Some(false));
        world.pass(1);
        assert!(given_up(&world), "{:?}", world.entry());
    }
}

/// It is deleted, and gone as soon as its end is counted.
#[test]
fn what_a_pod_recorded_is_taken_while_its_job_is_still_failing() {
    let (mut world, succeeded) = ran_out(JobState::Failing, true);
    world.pass(2);
    let told = format!("the Job has failed, its pods are ending: {WHY}");
    assert_eq!(world.entry().message, Some(told));
    world.put(succeeded);
    world.pass(3);
    assert_eq!(world.entry().step, Some(Step::Reboot), "{:?}", world.entry());
}

/// Its pod was seen as it could not start; then the deadline ended it, or its node's kubelet evicted it.
#[test]
fn a_job_that_ends_before_anything_began_leaves_the_node_as_it_was_and_says_what_was_in_the_way() {
    const EVICTED: &str = "BackoffLimitExceeded: Job has reached the specified backoff limit";
    const PULL: &str = "ErrImagePull: not found";
    // A pod that is gone before it was seen to end may have begun meanwhile: a watch stood still.
    for (why, is_there, seen_to_end) in [
        (WHY, false, true),
        (WHY, true, true),
        (EVICTED, false, true),
        (EVICTED, true, true),
        (WHY, false, false),
        (EVICTED, false, false),
    ] {
        let mut world = suspended();
        world.pass(0);
        let state = ContainerState::Waiting { reason: "ErrImagePull".into(), message: "not found".into() };
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        let pod = PodView { containers: vec![ContainerView::new(container::NODEOP, state)], ..pod };
        world.put(pod.clone());
        world.pass(1);
        if seen_to_end {
            world.put(PodView { phase: PodPhase::Failed, ..pod.clone() });
            world.pass(1);
        }
        world.snapshot.pods.retain(|_, pod| pod.role != Role::Job);
        if is_there {
            let reason = "Evicted: The node was low on resource: ephemeral-storage. ".into();
            world.put(PodView { phase: PodPhase::Failed, reason, ..pod });
        }
        let job = JobView { failed: 1, ..fixtures::job(&fixtures::job_name(), JobState::Failed(why.into())) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world.pass(2);
        world.pass(10);
        let entry = world.entry();
        let message = entry.message.clone().unwrap();
        if !seen_to_end {
            assert!(entry.phase == Phase::Failed && entry.job_name.is_some(), "{entry:?}");
            continue;
        }
        assert!(message.contains(if is_there { "Evicted: The node was low" } else { PULL }), "{message}");
        if why == WHY {
            assert!(entry.untouched == Some(true) || entry.job_name.is_none(), "{entry:?}");
        } else {
            // It is made again for as long as a pod may take to start.
            assert_eq!((entry.phase, entry.step), (Phase::Running, Some(Step::Job)), "{entry:?}");
        }
    }
}

/// It counts from when the Job may run, also where nobody makes a pod of it, as while a webhook does not
/// answer.
#[test]
fn a_deadline_that_ran_out_before_there_was_a_pod_leaves_the_node_as_it_was() {
    for (failed, ran, is_untouched) in [(0, false, true), (1, false, false), (0, true, false)] {
        let mut world = suspended();
        world.pass(0);
        if ran {
            let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
            let runs = ContainerState::Running { since: at(0) };
            world.put(PodView { containers: vec![ContainerView::new(container::NODEOP, runs)], ..pod });
            world.pass(1);
            world.snapshot.pods.retain(|_, pod| pod.role != Role::Job);
        }
        let state = JobState::Failed(WHY.into());
        let job = JobView { failed, ..fixtures::job(&fixtures::job_name(), state) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world.pass(2);
        let out = world.pass(10);
        let NodeStatus { message, untouched, job_name, .. } = world.entry();
        let message = message.unwrap();
        let told =
            format!("the Job's pod could not start in 86400 s: {WHY} (see docs: the-jobs-pod-did-not-start)");
        assert_eq!(message == told, is_untouched, "{message}: {out:?}");
        assert_eq!(untouched == Some(true) || job_name.is_none(), is_untouched, "{message}");
    }
}

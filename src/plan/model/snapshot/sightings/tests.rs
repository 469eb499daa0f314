//! When things are seen first, and until when they are remembered.

use super::*;
use crate::plan::{
    fixtures::{self, at},
    model::snapshot::{ContainerView, Owner, Role},
};

pub(super) fn world(now: i64, before: &Snapshot, pods: Vec<PodView>, nodes: Vec<NodeView>) -> Snapshot {
    let mut snapshot = Snapshot {
        now: at(now),
        leading_since: at(-100),
        pods: pods
            .into_iter()
            .map(|pod| ((pod.namespace.clone(), pod.name.clone()), Arc::new(pod)))
            .collect(),
        nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
        ..Snapshot::default()
    };
    let mut sightings = (*before.sightings).clone();
    sightings.note(&snapshot);
    snapshot.sightings = Arc::new(sightings);
    snapshot
}

fn pod(state: ContainerState, restarts: i32) -> PodView {
    let containers = vec![ContainerView { restarts, ..ContainerView::new("c", state) }];
    PodView {
        containers,
        phase: PodPhase::Pending,
        ..fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), "n1")
    }
}

#[test]
fn a_container_counts_from_when_we_saw_it_run_whatever_its_node_says() {
    let years_ago = ContainerState::Running { since: at(-100_000_000) };
    let first = world(5, &Snapshot::default(), vec![pod(years_ago.clone(), 0)], vec![]);
    let second = world(9, &first, vec![pod(years_ago.clone(), 0)], vec![]);
    let running = |snapshot: &Snapshot| snapshot.running_since(snapshot.pods.values().next().unwrap(), "c");
    assert_eq!((running(&first), running(&second)), (Some(at(5)), Some(at(5))));
    let again = world(20, &second, vec![pod(years_ago, 1)], vec![]);
    assert_eq!(running(&again), Some(at(20)), "another run");
    assert_eq!(again.first_seen(again.pods.values().next().unwrap()), at(5), "the same pod");
    let gone = world(30, &again, vec![], vec![]);
    let nothing = world(30, &Snapshot::default(), vec![], vec![]);
    assert_eq!(gone.sightings, nothing.sightings, "nothing is kept of what has gone");
}

#[test]
fn a_check_counts_from_its_first_run_however_often_it_runs_again() {
    let check = |state: ContainerState, restarts: i32| {
        let mut check = pod(state, restarts);
        check.role = Role::Preflight;
        check.containers[0].name = "preflight".into();
        check
    };
    let since = |snapshot: &Snapshot| snapshot.checking_since(snapshot.pods.values().next().unwrap());
    let waiting = || ContainerState::Waiting { reason: "ImagePullBackOff".into(), message: String::new() };
    let first = world(5, &Snapshot::default(), vec![check(waiting(), 0)], vec![]);
    let running = world(9, &first, vec![check(ContainerState::Running { since: at(0) }, 0)], vec![]);
    let looping = world(20, &running, vec![check(waiting(), 1)], vec![]);
    let again = world(30, &looping, vec![check(ContainerState::Running { since: at(0) }, 1)], vec![]);
    assert_eq!([&first, &running, &looping, &again].map(since), [5, 9, 9, 9].map(at));
    let gone = world(40, &again, vec![], vec![]);
    assert_eq!(gone.sightings, world(40, &Snapshot::default(), vec![], vec![]).sightings);
}

#[test]
fn a_pod_is_silent_until_the_operations_container_runs_or_its_kubelet_says_why_not() {
    let waiting = |reason: &str| ContainerState::Waiting { reason: reason.into(), message: String::new() };
    let silent = |pod: PodView| {
        let snapshot = world(7, &Snapshot::default(), vec![pod.clone()], vec![]);
        snapshot.silent_since(&pod)
    };
    let pod = |state: ContainerState, restarts: i32| {
        let mut pod = pod(state, restarts);
        pod.containers[0].name = "nodeop".into();
        pod
    };
    assert_eq!(silent(PodView { containers: vec![], ..pod(waiting(""), 0) }), Some(at(7)));
    assert_eq!(silent(pod(waiting("ContainerCreating"), 0)), Some(at(7)));
    assert_eq!(silent(pod(waiting("ImagePullBackOff"), 0)), None, "the status says why");
    assert_eq!(silent(pod(ContainerState::Running { since: at(0) }, 0)), None);
    assert_eq!(silent(PodView { phase: PodPhase::Failed, ..pod(waiting(""), 0) }), None);
    assert_eq!(silent(PodView { deleting: true, ..pod(waiting(""), 0) }), None);
    // The image of the operation is the next one that is pulled, once ours is there.
    let after = |state: ContainerState| {
        let mut begun = pod(waiting("PodInitializing"), 0);
        begun.containers.insert(0, ContainerView::new("install", state));
        begun
    };
    let ended = || ContainerState::Ended { code: 0, reason: String::new(), message: String::new() };
    assert_eq!(silent(after(ended())), Some(at(7)));
    assert_eq!(silent(after(ContainerState::Running { since: at(0) })), None, "it works");
    let works = world(5, &Snapshot::default(), vec![after(ContainerState::Running { since: at(0) })], vec![]);
    let still = world(9, &works, vec![after(ended())], vec![]);
    let later = world(20, &still, vec![after(ended())], vec![]);
    assert_eq!([&still, &later].map(|it| it.silent_since(&after(ended()))), [Some(at(9)), Some(at(9))]);
}

#[test]
fn only_of_pods_that_we_have_watched_it_is_believed_that_the_kubelet_never_took_them() {
    let job = |suspended: bool| JobView {
        uid: "ju".into(),
        suspended,
        generation: Some(if suspended { 1 } else { 2 }),
        failed: i32::from(!suspended),
        ..fixtures::job("j", JobState::Active)
    };
    let see = |before: &Snapshot, job: &JobView, pod: &PodView| {
        let mut snapshot = world(5, before, vec![pod.clone()], vec![]);
        snapshot.jobs = [(("ns".into(), "j".into()), Arc::new(job.clone()))].into();
        let mut sightings = (*before.sightings).clone();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        snapshot
    };
    let of_job =
        |state: ContainerState| PodView { owner: Owner::job("j", "ju"), role: Role::Job, ..pod(state, 0) };
    let waiting = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let words = "OutOfpods: Pod was rejected: Node didn't have enough resource: pods";
    let rejected = PodView {
        phase: PodPhase::Failed,
        reason: words.into(),
        containers: vec![],
        ..of_job(waiting.clone())
    };
    let none = Snapshot::default();
    let never_began =
        |seen: &Snapshot, job: &JobView, pod: &PodView| !see(seen, job, pod).may_have_begun(job);
    let young = see(&none, &job(true), &of_job(waiting.clone()));
    assert!(never_began(&young, &job(false), &rejected));
    assert!(!never_began(&none, &job(false), &rejected));
    assert!(!never_began(&young, &JobView { failed: 2, ..job(false) }, &rejected), "one of its pods is gone");
    // As kubelets before 1.29 refuse one, and as each evicts one that waits for its image.
    let older = PodView { reason: "Evicted: The node was low on resource".into(), ..rejected.clone() };
    assert!(never_began(&young, &job(false), &older));
    assert!(!never_began(&none, &job(false), &older));
    let evicted = PodView { containers: of_job(waiting.clone()).containers, ..older };
    assert!(never_began(&young, &job(false), &evicted));
    // It was suspended after it had been let go: nothing was seen of it before.
    let changed = |suspended: bool, generation| JobView { generation: Some(generation), ..job(suspended) };
    let suspended = see(&none, &changed(true, 3), &rejected);
    assert!(!never_began(&suspended, &changed(false, 4), &rejected));
    // A kubelet that starts again refuses a pod that ran, and knows of no container of it.
    let ran = see(&young, &job(false), &of_job(ContainerState::Running { since: at(0) }));
    assert!(!never_began(&ran, &job(false), &rejected));
}

/// The server's clock may be hours behind ours, and a pod that has just been asked to end is no old case.
#[test]
fn a_pods_end_and_another_replicas_start_count_from_when_we_saw_them() {
    let pod = NodePod {
        uid: "p".into(),
        ends_by: Some(at(-7200)),
        created: at(-9000),
        grace_seconds: 30,
        ..NodePod::default()
    };
    let moment = |now, before: &Snapshot| {
        let mut snapshot = Snapshot {
            now: at(now),
            drained_pods: [("n1".to_owned(), vec![Arc::new(pod.clone())].into())].into(),
            answers: [(Question::OtherReplica("n1".into()), Answer::Pending)].into(),
            ..Snapshot::default()
        };
        let mut sightings = (*before.sightings).clone();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        snapshot
    };
    let first = moment(0, &Snapshot::default());
    let second = moment(50, &first);
    assert_eq!((second.ending_until(&pod), second.replica_starts_since("n1")), (at(30), at(0)));
    let mut ready =
        Snapshot { now: at(60), drained_pods: second.drained_pods.clone(), ..Snapshot::default() };
    ready.answers = [(Question::OtherReplica("n1".into()), Answer::Found)].into();
    let mut sightings = (*second.sightings).clone();
    sightings.note(&ready);
    ready.sightings = Arc::new(sightings);
    assert_eq!(ready.replica_starts_since("n1"), at(60), "another one that starts later is another one");
}

/// A plan that is made again, or after something else has changed, looks at no table twice.
#[test]
fn what_is_passed_by_would_have_come_to_the_same() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut snapshot = Snapshot::default();
    let (mut noted, mut anew) = (Sightings::default(), Sightings::default());
    let mut seen: BTreeMap<String, Timestamp> = BTreeMap::new();
    for second in 0..2000 {
        snapshot.now = at(second);
        let (facts, name) = (rng.bool(), rng.u8(..6).to_string());
        let uid = if facts { format!("facts {name}") } else { name.clone() };
        let key = ("ns".to_owned(), name.clone());
        let table = if facts { &mut snapshot.facts_pods } else { &mut snapshot.pods };
        match rng.u8(..8) {
            0 => drop(snapshot.jobs.remove(&key)),
            1 => {
                let states = [JobState::Active, JobState::Complete, JobState::Failed("m".into())];
                let job = fixtures::job(&name, rng.choice(states).unwrap());
                let (suspended, generation) = (rng.bool(), Some(rng.i64(1..4)));
                snapshot.jobs.insert(key, Arc::new(JobView { uid, suspended, generation, ..job }));
            }
            2 => drop(table.remove(&key)),
            3 | 4 => {
                let states = [
                    ContainerState::Running { since: at(0) },
                    ContainerState::Waiting { reason: String::new(), message: String::new() },
                ];
                let phase = rng.choice([PodPhase::Running, PodPhase::Succeeded]).unwrap();
                let pod = PodView { uid, phase, ..pod(rng.choice(states).unwrap(), rng.i32(0..2)) };
                table.insert(key, Arc::new(pod));
            }
            _ => {}
        }
        let ours = snapshot.pods.values().filter(|pod| pod.phase != PodPhase::Succeeded);
        let there: BTreeSet<&String> = ours.chain(snapshot.facts_pods.values()).map(|pod| &pod.uid).collect();
        seen.retain(|uid, _| there.contains(uid));
        for uid in there {
            seen.entry(uid.clone()).or_insert(snapshot.now);
        }
        noted.note(&snapshot);
        anew.noted = Default::default();
        anew.note(&snapshot);
        assert_eq!(noted, anew, "second {second}");
        assert_eq!(noted.pods, seen, "second {second}");
    }
}

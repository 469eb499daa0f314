//! Pods with which their kubelet does not go on after a boot of the node.

use super::*;
use crate::plan::{
    model::question::{Answer, Question},
    node::{fixtures::line, job::run},
};

const LOST: &str = "the node has booted since, and its kubelet does not go on with the pod";

fn waits(name: &str) -> ContainerView {
    let state = ContainerState::Waiting { reason: "PodInitializing".into(), message: String::new() };
    ContainerView::new(name, state)
}

fn ended(name: &str, code: i32) -> ContainerView {
    let state = ContainerState::Ended { code, reason: "Unknown".into(), message: String::new() };
    ContainerView::new(name, state)
}

fn runs(name: &str) -> ContainerView {
    ContainerView::new(name, ContainerState::Running { since: at(0) })
}

fn pod(containers: Vec<ContainerView>) -> PodView {
    let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
    PodView { phase: PodPhase::Pending, containers, ..pod }
}

fn job(world: &mut World, change: impl FnOnce(&mut JobView)) {
    let mut job = JobView { generation: Some(2), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
    job.has_pod = true;
    change(&mut job);
    world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
}

/// The Job was let go in boot b1, and its pod had come so far when the node lost its power; it is Ready in
/// boot b2 since second 10.
fn booted(upgrade: bool, containers: Vec<ContainerView>) -> World {
    let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju",
        "rebootStatus": "pending", "boot": "b1", "lastUpdated": Time(at(0))});
    let mut world = World::new(entry).op(|op| {
        op.spec.upgrade = upgrade.then(|| serde_json::from_value(json!({"active": true})).unwrap());
    });
    let waiter = PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) };
    world.put(waiter);
    job(&mut world, |job| (job.suspended, job.generation, job.has_pod) = (true, Some(1), false));
    world.pass(0);
    job(&mut world, |_| {});
    world.put(pod(containers));
    world.pass(1);
    let mut world = world.node(|node| node.boot_id = "b2".into());
    world.pass(10);
    world
}

fn row_a() -> Vec<ContainerView> {
    vec![ended(container::NODE_LOCK, 255), waits(container::NODEOP), waits(container::SENTINEL)]
}

fn deletes_pod(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.uid == "p"))
}

fn deletes_job(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeleteJob { job, .. } if job.uid == "ju"))
}

/// Rows: whether it is an upgrade, and what had ended in its pod.
#[test]
fn a_pod_with_which_the_kubelet_does_not_go_on_after_a_boot_is_deleted() {
    let installed = || ended(container::INSTALL, 0);
    for (upgrade, containers, told) in [
        (false, row_a(), format!("the Job's pod cannot start yet: {LOST}")),
        (
            true,
            vec![installed(), waits(container::NODEOP), waits(container::SENTINEL)],
            format!("the Job's pod cannot start yet: {LOST}"),
        ),
        (
            true,
            vec![installed(), ended(container::NODEOP, 0), waits(container::SENTINEL)],
            format!("Job is running: {LOST}"),
        ),
    ] {
        let mut world = booted(upgrade, containers.clone());
        assert!(
            !deletes_pod(&world.pass(20)) && !deletes_pod(&world.pass(39)),
            "a kubelet that has just begun may not have reported it yet"
        );
        let out = world.pass(40);
        assert!(deletes_pod(&out) && !deletes_job(&out), "{containers:?}: {:?}", out.actions);
        // Messages of one wait are not written in each second.
        let out = world.pass(49);
        assert!(deletes_pod(&out));
        assert_eq!(world.entry().message, Some(told));
        world.put(PodView { deleting: true, ..pod(containers) });
        assert!(!deletes_pod(&world.pass(50)), "it is asked for once");
    }
}

/// A command that has succeeded must not run again, and another pod of the Job would run it.
#[test]
fn a_command_that_had_succeeded_before_a_boot_is_not_tried_again() {
    let sidecar = || ended(container::NODE_LOCK, 255);
    let done = || [ended(container::NODEOP, 0), waits(container::SENTINEL)];
    for containers in [done().to_vec(), [vec![sidecar()], done().to_vec()].concat()] {
        let mut world = booted(false, containers);
        assert_eq!(world.entry().given_up, None);
        for second in 40..46 {
            let out = world.pass(second);
            assert!(!deletes_pod(&out), "the Job would make another one: {:?}", out.actions);
            if deletes_job(&out) {
                world.snapshot.jobs.clear();
                world.snapshot.pods.clear();
            }
        }
        let NodeStatus { phase, message, .. } = world.entry();
        let message = message.unwrap_or_default();
        assert_eq!(phase, Phase::Failed, "{message}");
        assert!(message.contains("succeeded in one of its tries") && message.contains(LOST), "{message}");
    }
}

/// Rows: what speaks against it.
#[test]
fn a_pod_in_which_something_may_run_is_never_deleted() {
    type Change = fn(World) -> World;
    let with = |containers: Vec<ContainerView>| {
        move |mut world: World| {
            world.put(pod(containers.clone()));
            world
        }
    };
    let rows: [(&str, Change); 4] = [
        ("the node is away", |world| world.node(|node| node.ready = false)),
        ("it is in the boot in which the Job was let go", |world| {
            world.node(|node| node.boot_id = "b1".into())
        }),
        ("it has booted again", |world| world.node(|node| node.boot_id = "b3".into())),
        ("its NodeOp is deleted, and its Job with it", |world| {
            world.op(|op| {
                op.metadata.deletion_timestamp = Some(Time(at(11)));
            })
        }),
    ];
    for (why, change) in rows {
        let mut world = change(booted(false, row_a()));
        assert!(!deletes_pod(&world.pass(40)), "{why}");
    }
    let sidecar = || runs(container::NODE_LOCK);
    for containers in [
        vec![sidecar(), waits(container::NODEOP), waits(container::SENTINEL)],
        vec![sidecar(), ended(container::NODEOP, 0), waits(container::SENTINEL)],
        vec![ended(container::NODE_LOCK, 255), runs(container::NODEOP), waits(container::SENTINEL)],
        vec![ended("proxy", 0), runs("agent"), waits(container::NODEOP)],
        vec![waits(container::NODE_LOCK), waits(container::NODEOP), waits(container::SENTINEL)],
    ] {
        let mut world = with(containers.clone())(booted(false, row_a()));
        world.pass(11);
        assert!(!deletes_pod(&world.pass(90)), "{containers:?}");
    }
}

/// A cache may be late.
#[test]
fn the_pod_is_read_before_it_is_deleted() {
    let world = booted(false, row_a()).now(40);
    let key = ("ns".to_owned(), fixtures::job_name());
    let told = |world: &World| world.decide(|ctx| line(&run::advance(ctx, &ctx.snapshot.jobs[&key])));
    let asks = told(&world);
    assert!(asks.contains("asks reading Job ns/op-n1-") && !asks.contains("deleting pod"), "{asks}");
    let world = world.answer(Question::Job(key.clone()), Answer::Found);
    assert!(told(&world).contains("deleting pod ns/p"), "{}", told(&world));
    let mut world = world;
    world.put(pod(vec![runs(container::NODE_LOCK), waits(container::NODEOP)]));
    assert!(!told(&world).contains("deleting pod"), "{}", told(&world));
}

/// An upgrade's further pod may have begun in this boot, and waits for an image. A kubelet starts the lock's
/// holder of a command again at once.
#[test]
fn of_a_further_pod_the_end_of_its_lock_alone_tells_that_its_kubelet_does_not_go_on() {
    let installed = vec![ended(container::INSTALL, 0), waits(container::NODEOP), waits(container::SENTINEL)];
    for (upgrade, containers, is_deleted) in [(true, installed, false), (false, row_a(), true)] {
        let mut world = booted(upgrade, containers);
        job(&mut world, |job| job.failed = 1);
        assert_eq!(deletes_pod(&world.pass(40)), is_deleted);
    }
}

/// The deleted pod has used the Job's last try up, and its image could not be pulled at once before the boot.
#[test]
fn no_node_fails_of_a_pod_that_is_deleted_before_anything_began() {
    let mut world = booted(false, row_a());
    let refused = ContainerState::Waiting { reason: "ErrImagePull".into(), message: "no route".into() };
    let earlier = vec![row_a()[0].clone(), ContainerView::new(container::NODEOP, refused)];
    world.put(pod(earlier));
    world.pass(11);
    world.put(pod(row_a()));
    world.pass(12);
    assert!(deletes_pod(&world.pass(42)));
    world.put(PodView { phase: PodPhase::Failed, deleting: true, ..pod(row_a()) });
    job(&mut world, |job| {
        (job.failed, job.state) = (1, JobState::Failed("BackoffLimitExceeded".into()));
    });
    world.pass(43);
    let NodeStatus { phase, job_uid, given_up, message, .. } = world.entry();
    assert_eq!((phase, job_uid, given_up), (Phase::Running, None, None), "{message:?}");
}

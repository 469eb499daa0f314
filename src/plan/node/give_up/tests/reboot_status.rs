//! What is said of a reboot of a node that was given up: that it was cancelled only where that is known.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::job;
use crate::{
    api::nodeop::{Phase, RebootStatus},
    contract::reboot_state,
    plan::{
        fixtures,
        model::snapshot::{JobState, NodeView, PodPhase, PodView},
        node::fixtures::{World, at},
    },
};

/// Its reboot was asked for, and its deadline has passed.
#[test]
fn a_reboot_that_nobody_saw_is_not_said_to_be_cancelled() {
    let expected = [
        (
            json!("b1"),
            true,
            RebootStatus::Cancelled,
            "still in the boot in which the operation succeeded: its Job was deleted",
        ),
        (json!("b1"), false, RebootStatus::Pending, "has not come back"),
        // The Job and its pod were deleted before anybody had read in which boot the operation succeeded.
        (Value::Null, true, RebootStatus::Pending, "not known"),
    ];
    for (boot, ready, reboot, said) in expected {
        let reboots = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j", "jobUid": "ju", "boot": boot,
            "rebootStatus": "pending", "deadline": "1970-01-12T13:46:40Z"});
        let mut world = World::new(reboots);
        let node = NodeView { ready, ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        world.snapshot.leading_since = at(-10_000);
        // A minute more, in which a reboot that its waiter had asked for would show.
        for second in [1, 2, 3, 70] {
            world.pass(second);
        }
        let entry = world.entry();
        assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(reboot)), "{entry:?}");
        assert!(entry.message.as_ref().is_some_and(|message| message.contains(said)), "{entry:?}");
    }
}

/// The Job has completed and its node rebooted while nobody led, and then somebody cleaned up.
#[test]
fn a_reboot_after_a_job_that_is_gone_is_not_said_to_be_cancelled() {
    for (uid, reboot) in [(json!("ju"), RebootStatus::Pending), (Value::Null, RebootStatus::Cancelled)] {
        let mut world =
            World::new(json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": "j",
            "jobUid": uid, "rebootStatus": "pending"}));
        let mut op = (**world.snapshot.ops.values().next().unwrap()).clone();
        // Without a UID the Job has never run: deleted, the NodeOp does not make it any more.
        op.metadata.deletion_timestamp = uid.is_null().then(|| Time(at(0)));
        world.snapshot.ops.insert(world.me.key(), Arc::new(op));
        for second in [1, 2, 3] {
            world.pass(second);
        }
        let entry = world.entry();
        assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(reboot)), "{entry:?}");
    }
}

/// The Job completed, and the machine went down as its waiter asked, while the operator saw neither: it
/// deleted a Job that it took for one that runs (chaos, world `continuous`, seed 90).
#[test]
fn of_a_node_that_is_away_once_its_job_was_deleted_no_reboot_is_said_to_be_cancelled() {
    for (ready, uid, boot, reboot) in [
        (false, json!("ju"), json!("b1"), RebootStatus::Pending),
        (true, json!("ju"), json!("b1"), RebootStatus::Cancelled),
        // An earlier version did not record it.
        (true, json!("ju"), Value::Null, RebootStatus::Cancelled),
        // It is back already (chaos, seed 1283).
        (true, json!("ju"), json!("b0"), RebootStatus::Pending),
        (false, Value::Null, Value::Null, RebootStatus::Cancelled),
    ] {
        let mut world = World::new(
            json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": "j", "boot": boot,
            "jobUid": uid, "rebootStatus": "pending", "givenUp": "the NodeOp was deleted"}),
        );
        let mut op = (**world.snapshot.ops.values().next().unwrap()).clone();
        op.metadata.deletion_timestamp = Some(Time(at(0)));
        world.snapshot.ops.insert(world.me.key(), Arc::new(op));
        let node = NodeView { ready, ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        let waiter = PodView { deleting: true, ..world.waiter(0) };
        world.put(if ready { PodView { phase: PodPhase::Failed, ..waiter } } else { waiter });
        for second in [1, 2, 3] {
            world.pass(second);
        }
        let entry = world.entry();
        assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(reboot)), "{entry:?}");
    }
}

/// The Job has completed while nobody led, and the machine that its waiter rebooted joined as another Node.
#[test]
fn the_reboot_of_a_node_that_was_lost_after_its_job_had_completed_is_not_said_to_be_cancelled() {
    for (state, reboot) in [
        (JobState::Complete, RebootStatus::Pending),
        (JobState::Failed("X: y".into()), RebootStatus::Cancelled),
    ] {
        let mut world =
            World::new(json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": "j",
            "jobUid": "ju", "rebootStatus": "pending"}));
        let job = fixtures::job("j", state);
        world.snapshot.jobs.insert((job.namespace.clone(), job.name.clone()), Arc::new(job));
        let node = NodeView { uid: "n2".into(), claimed_by: None, ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
        world.pass(1);
        let entry = world.entry();
        assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(reboot)), "{entry:?}");
    }
}

/// The waiter has asked for the reboot, and was deleted by hand; its NodeOp is deleted before the node is
/// seen to go down. Nobody was leading meanwhile.
#[test]
fn a_node_that_may_be_going_down_is_neither_given_back_nor_said_to_stay() {
    let deleted = || {
        let mut world =
            World::new(json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": "j",
            "jobUid": "ju", "boot": "b1", "rebootStatus": "pending", "deadline": Time(at(1800))}));
        let mut op = (**world.snapshot.ops.values().next().unwrap()).clone();
        op.metadata.deletion_timestamp = Some(Time(at(0)));
        world.snapshot.ops.insert(world.me.key(), Arc::new(op));
        let done = job(JobState::Complete);
        world.snapshot.jobs.insert((done.namespace.clone(), done.name.clone()), Arc::new(done));
        world
    };
    let boot = |world: &mut World, boot: &str| {
        let node = NodeView { boot_id: boot.into(), ..(*world.snapshot.nodes["n1"]).clone() };
        world.snapshot.nodes.insert("n1".into(), Arc::new(node));
    };
    let mut stays = deleted();
    for second in [1, 2, 3, 60] {
        stays.pass(second);
        let told = stays.entry().message.unwrap();
        assert_eq!(stays.entry().phase, Phase::Running, "{second}: {told}");
    }
    assert!(stays.entry().message.unwrap().contains("may have begun the reboot"), "{:?}", stays.entry());
    stays.pass(62);
    assert_eq!(stays.entry().reboot_status, Some(RebootStatus::Cancelled), "{:?}", stays.entry());

    let mut goes = deleted();
    (1..4).for_each(|second| drop(goes.pass(second)));
    boot(&mut goes, "b2");
    (30..60).for_each(|second| drop(goes.pass(second)));
    assert_eq!(goes.entry().reboot_status, Some(RebootStatus::Completed), "{:?}", goes.entry());

    let mut ended = deleted();
    let waiter = PodView { reboot_state: Some(reboot_state::WAITING.into()), ..ended.waiter(0) };
    ended.put(PodView { phase: PodPhase::Failed, ..waiter });
    (1..4).for_each(|second| drop(ended.pass(second)));
    assert_eq!(ended.entry().reboot_status, Some(RebootStatus::Cancelled), "its last state is known");
}

/// What the Job brought is refused once it is complete, and its waiter saw that first.
#[test]
fn a_reboot_that_may_be_under_way_is_awaited_before_a_node_fails_for_what_its_job_brought() {
    let refused = || {
        let mut world = World::new(json!({"phase": "Running", "step": "Job", "nodeUid": "n1",
            "jobName": fixtures::job_name(), "jobUid": "ju", "boot": "b1", "rebootStatus": "pending",
            "givenUp": "its result is not taken"}));
        let done = job(JobState::Complete);
        world.snapshot.jobs.insert((done.namespace.clone(), done.name.clone()), Arc::new(done));
        world
    };
    let mut stays = refused();
    for second in [1, 2, 3, 60] {
        stays.pass(second);
        assert_eq!(stays.entry().phase, Phase::Running, "{second}: {:?}", stays.entry());
    }
    stays.pass(62);
    assert_eq!(stays.entry().reboot_status, Some(RebootStatus::Cancelled), "{:?}", stays.entry());

    let mut goes = refused();
    (1..4).for_each(|second| drop(goes.pass(second)));
    goes = goes.node(|node| node.ready = false);
    goes.pass(30);
    let entry = goes.entry();
    assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(RebootStatus::Pending)), "{entry:?}");

    let mut untold = refused();
    let mut op = (**untold.snapshot.ops.values().next().unwrap()).clone();
    op.status.as_mut().unwrap().node_statuses.update("n1", |entry| entry.boot = None);
    untold.snapshot.ops.insert(untold.me.key(), Arc::new(op));
    (1..4).for_each(|second| drop(untold.pass(second)));
    let entry = untold.entry();
    assert_eq!((entry.phase, entry.reboot_status), (Phase::Failed, Some(RebootStatus::Pending)), "{entry:?}");

    let mut ended = refused();
    let waiter = PodView { reboot_state: Some(reboot_state::WAITING.into()), ..ended.waiter(0) };
    ended.put(PodView { phase: PodPhase::Failed, ..waiter });
    (1..4).for_each(|second| drop(ended.pass(second)));
    assert_eq!(ended.entry().reboot_status, Some(RebootStatus::Cancelled), "its last state is known");
}

//! Tests of changes that meet an operator that is killed, a status that is lost, a cache that is late, and
//! what earlier versions left.

use serde_json::json;

use super::{super::*, world::World};
use crate::{
    api::{
        child, run,
        upgrade::{RunResult, UpgradePhase},
    },
    plan::model::{action::Action, id::OpRef},
};

/// Killed at any moment: whoever goes on from what stands in the cluster makes no second NodeOp of a run, and
/// none of another run is at work before it.
#[test]
fn whoever_is_killed_between_two_writes_makes_no_run_twice() {
    let mut world = World::new();
    world.completes();
    world.edit(json!({"image": "kairos:v2"}));
    world.step();
    let announced = world.status().node_op_name.unwrap();
    // The NodeOp is made, and its UID is not recorded; meanwhile something is steered.
    world.makes_and_is_killed();
    assert!(!world.may_start(&world.snapshot.ops[&("ns".into(), announced.clone())]));
    world.edit(json!({"paused": true}));
    world.until_stable();
    assert_eq!(world.names(), ["up".to_owned(), announced.clone()]);
    assert_eq!(world.status().node_op_name, Some(announced.clone()));

    // The same, and another run is asked for: what was made never starts, and goes once that run is recorded.
    world.completes();
    world.edit(json!({"image": "kairos:v3"}));
    world.step();
    world.makes_and_is_killed();
    let never = world.status().node_op_name.unwrap();
    world.edit(json!({"image": "kairos:v4"}));
    world.until_stable();
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v4"));
    assert!(!world.names().contains(&never), "{:?}", world.names());
    assert_eq!(world.status().history.len(), 2, "one that never began is no run");
}

#[test]
fn a_status_that_was_lost_is_found_again_in_the_nodeops() {
    let mut world = World::new();
    world.completes();
    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    world.works();
    let (before, names) = (world.status(), world.names());
    let mut bare = world.upgrade().clone();
    bare.status = None;
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(bare));
    world.until_stable();
    let after = world.status();
    assert_eq!(
        (after.node_op_name, after.node_op_uid, after.run),
        (before.node_op_name, before.node_op_uid, before.run)
    );
    assert_eq!(world.names(), names);
}

/// A cache that is late shows an upgrade as it was before a run was decided on.
#[test]
fn an_older_view_of_the_upgrade_ends_no_run_and_deletes_none() {
    let mut world = World::new();
    world.completes();
    let before = world.upgrade().clone();
    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    world.works();
    let op = world.current();
    assert_eq!(world.superseded(&op), None);
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(before));
    assert_eq!(world.superseded(&op), None);
    // Nor is it one that was announced and never began.
    let bare = NodeOp { status: None, ..op.clone() };
    world.snapshot.ops.insert(OpRef::of(&bare).key(), Arc::new(bare));
    let out = plan_upgrades(&world.snapshot);
    let deletes = out.actions.iter().any(|action| matches!(action, Action::DeleteOp { .. }));
    assert!(!deletes && !world.may_start(&op));
}

#[test]
fn after_its_nodeop_was_deleted_only_another_run_goes_on() {
    let mut world = World::new();
    world.works();
    world.snapshot.ops.remove(&("ns".into(), "up".into()));
    world.until_stable();
    assert_eq!(world.status().phase, Some(UpgradePhase::Failed));
    world.edit(json!({"paused": true}));
    world.until_stable();
    assert_eq!((world.status().phase, world.names().len()), (Some(UpgradePhase::Failed), 0));
    world.edit(json!({"paused": false, "image": "kairos:v2"}));
    world.until_stable();
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v2"));
    // The same while the next run is asked for already.
    world.works();
    let name = world.status().node_op_name.unwrap();
    world.edit(json!({"image": "kairos:v3"}));
    world.snapshot.ops.remove(&("ns".into(), name.clone()));
    world.until_stable();
    let status = world.status();
    assert_eq!((status.history[0].result, &status.history[0].node_op), (RunResult::Deleted, &name));
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v3"));
}

/// What an earlier version, or the Go operator, left: nothing runs because this version is there.
#[test]
fn what_was_over_before_runs_were_told_apart_runs_again_only_for_an_edit() {
    for (status, first) in [
        (json!({"phase": "Completed", "nodeOpName": "up", "message": "m"}), Some(UpgradePhase::Completed)),
        (
            json!({"phase": "Failed", "nodeOpName": "up", "nodeOpUid": "x", "observedGeneration": 3}),
            Some(UpgradePhase::Failed),
        ),
        // Somebody edited it between the two versions.
        (json!({"phase": "Completed", "nodeOpName": "up", "nodeOpUid": "x", "observedGeneration": 2}), None),
    ] {
        let mut world = World::new();
        world.snapshot.ops = Default::default();
        let mut upgrade = world.upgrade().clone();
        upgrade.status = Some(serde_json::from_value(status.clone()).unwrap());
        upgrade.metadata.generation = Some(3);
        world.snapshot.upgrades.insert(world.key.clone(), Arc::new(upgrade));
        world.until_stable();
        let Some(phase) = first else {
            assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v1"), "{status}");
            continue;
        };
        assert_eq!((world.status().phase, world.names().len()), (Some(phase), 0), "{status}");
        let ready = if phase == UpgradePhase::Completed { "True" } else { "False" };
        assert_eq!(world.condition("Ready").unwrap().0, ready);
        world.edit(json!({"image": "kairos:v2"}));
        world.until_stable();
        assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v2"), "{status}");
    }
}

/// One under way, of an earlier version: its NodeOp tells which run it is.
#[test]
fn one_under_way_of_an_earlier_version_goes_on_and_an_edit_supersedes_it() {
    let mut world = World::new();
    world.works();
    let mut op = world.current();
    op.metadata.annotations = None;
    world.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    let mut upgrade = world.upgrade().clone();
    upgrade.status.as_mut().unwrap().run = None;
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(upgrade.clone()));
    world.until_stable();
    assert_eq!(world.status().run, Some(run::hash(&child::spec(&upgrade.spec))));
    assert_eq!(world.condition("Progressing").unwrap().1, "RollingOut");
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(upgrade));
    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    assert_eq!(world.condition("Progressing").unwrap().1, "Superseded");
}

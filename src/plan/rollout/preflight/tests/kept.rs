//! Nodes that are kept from being looked at by what only their turn changes: they are full, or another
//! operation has them.

use super::{
    tries::{REFUSED, waits},
    *,
};

/// Only the drain makes the room.
#[test]
fn a_full_node_is_drained_without_a_look_at_the_image_and_with_no_other_check_left_out() {
    const PRESSURE: &str = "Evicted: The node had condition: [DiskPressure].";
    const RAN: &str = "Evicted: The node was low on resource: ephemeral-storage.";
    const BUSY: &str = "UnexpectedAdmissionError: Allocate failed due to no devices";
    let drains = json!({"preflight": null, "cordon": true, "drainOptions": {"enabled": true}});
    let with = |more: Value| {
        let mut spec = drains.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for (spec, reason, taken) in [
        (drains.clone(), REFUSED, true),
        (drains.clone(), PRESSURE, true),
        (drains.clone(), RAN, false),
        (drains.clone(), BUSY, false),
        (with(json!({"drainOptions": null})), REFUSED, false),
        (with(json!({"preflight": {"command": ["check"]}})), REFUSED, false),
        (with(json!({"command": null, "upgrade": {"active": true}})), REFUSED, false),
    ] {
        let mut world = World::new();
        let entry = serde_json::to_value(world.status("op")).unwrap();
        world.op("op", 0, spec.clone(), entry);
        let mut made = vec![];
        for second in 0..20 {
            if !world.plan(second).1.is_empty() {
                made.push(second);
                world.refused(reason);
                world.plan(second);
            }
        }
        let expected: &[i64] = if taken { &[0, 5] } else { &[0, 5, 15] };
        assert_eq!(made, expected, "{spec} {reason}");
        let status = world.status("op");
        assert_eq!(status.phase == Phase::Running, taken, "{spec} {reason}: {status:?}");
    }
}

/// It may be what brings the image: a registry's certificate, the image itself, room for it.
#[test]
fn a_node_that_another_operation_has_does_not_fail_for_its_image_before_its_turn() {
    let holder = OpRef { namespace: "ns".into(), name: "other".into(), uid: "other".into() };
    let image = json!({"preflight": null, "pullTimeoutSeconds": 600});
    let pulls_not = || waits("ErrImagePull", "x509: certificate signed by unknown authority");
    let mut world = World::new();
    let entry = serde_json::to_value(world.status("op")).unwrap();
    let beside = |world: &mut World| {
        world.op("op", 0, image.clone(), entry.clone());
        world.op("other", -5, json!({}), json!({"phase": "Completed", "nodeUid": "n1"}));
        world.node(|node| node.claimed_by = Some(holder.clone()));
    };
    beside(&mut world);
    world.plan(0);
    world.container(pulls_not());
    world.plan(1);
    let (phase, message) = world.comes_to(60);
    assert!(phase == Phase::Preflight && message.contains("x509"), "{message}");
    let waits_for = (Phase::Pending, "waiting for NodeOp ns/other, which has claimed the node".to_owned());
    for second in [61, 62, 700, 1801] {
        assert_eq!(world.comes_to(second), waits_for, "{second}");
        assert!(world.plan(second).1.is_empty(), "{second}: it is not asked again before that");
    }
    // It has given the node back, and the whole time is left.
    world.node(|node| node.claimed_by = None);
    assert_eq!(world.plan(1802).1.len(), 1);
    world.container(pulls_not());
    world.plan(1803);
    assert_eq!(world.comes_to(2402).0, Phase::Preflight);
    assert_eq!(world.comes_to(2403).0, Phase::Failed, "nobody else has it");

    // What no other operation changes, and a pull that goes on.
    let mut world = World::new();
    beside(&mut world);
    world.event = Answer::Pulls { since: None };
    world.pod(|_| {});
    world.plan(0);
    assert_eq!(world.comes_to(100).0, Phase::Preflight);
    world.container(waits("InvalidImageName", "no"));
    assert_eq!(world.comes_to(101).0, Phase::Failed);
}

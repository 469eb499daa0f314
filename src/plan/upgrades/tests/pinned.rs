//! Tests of what later rounds of a run install: what the run has, whatever its tag means by then.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    rounds::{done, is_still, over, ready, skipped},
    world::World,
};
use crate::{
    api::{child, run},
    plan::model::id::OpRef,
};

const AMD: &str =
    "docker.io/library/kairos@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ARM: &str =
    "docker.io/library/kairos@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn pinned(digest: &str) -> String {
    format!("kairos:v1@{}", digest.split_once('@').unwrap().1)
}

fn content(architecture: &str, digest: &str) -> Value {
    json!({"architecture": architecture, "image": "kairos:v1", "digest": digest})
}

/// The first run is over, in which nodes ran these contents.
fn ran(change: Value, contents: Value) -> World {
    let mut world = over(change);
    let mut op = world.current();
    op.status.as_mut().unwrap().images = serde_json::from_value(contents).unwrap();
    world.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    // As if they had been seen while it went on.
    let mut upgrade = world.upgrade().clone();
    upgrade.status.as_mut().unwrap().phase = Some(crate::api::upgrade::UpgradePhase::Running);
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(upgrade));
    world.until_stable();
    world
}

fn joins(world: &mut World, name: &str, architecture: &str) {
    world.joins(name);
    world.runs(name, "v0");
    world.node(name, |node| node.arch = architecture.into());
}

#[test]
fn a_round_names_its_image_by_the_digest_that_its_run_has_run_on_the_architecture_of_its_nodes() {
    let mut world = ran(json!({}), json!([content("amd64", AMD), content("arm64", ARM)]));
    assert_eq!(world.status().images.len(), 2);
    let run = world.status().run;
    for (name, arch) in [("n3", "amd64"), ("n4", "arm64"), ("n5", "amd64")] {
        joins(&mut world, name, arch);
    }
    world.until_stable();
    let round = world.current();
    assert_eq!(round.spec.node_names, ["n3", "n5"]);
    assert_eq!(round.spec.image, Some(pinned(AMD)));
    assert!(world.superseded(&round).is_none() && world.status().run == run);
    assert!(round.status.unwrap().images.is_empty(), "its name says it");
    // Were it to bring another release all the same, that is not what the run brings.
    for name in ["n3", "n5"] {
        world.tried(name);
        world.runs(name, "v1");
    }
    let other = json!({"phase": "Completed", "jobName": "j", "target": "v1.1", "verified": true});
    world.says(json!({"n3": done(), "n5": other}));
    let mut op = world.current();
    op.status.as_mut().unwrap().release = Some("v1.1".into());
    world.snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    world.until_stable();
    let round = world.current();
    assert_eq!((round.spec.node_names, round.spec.image), (vec!["n4".to_owned()], Some(pinned(ARM))));
    world.tried("n4");
    world.runs("n4", "v1");
    world.says(json!({"n4": done()}));
    world.until_stable();
    let status = world.status();
    assert_eq!((status.release.as_deref(), status.images.len()), (Some("v1"), 2));
    assert_eq!(ready(&world), ("True".into(), "Completed".into()));
    is_still(&mut world);

    // Another run means by its tag what it means then.
    world.edit(json!({"debug": true}));
    world.until_stable();
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v1"));
    assert!(world.status().images.is_empty());
    world.says(json!({"n1": skipped()}));
    world.until_stable();
}

#[test]
fn where_no_digest_can_be_pulled_a_round_begins_with_what_its_run_has_run() {
    let by_file = AMD.split_once('@').unwrap().1;
    for (change, digest, arch) in [
        (json!({}), by_file, "amd64"),
        (json!({"imagePullPolicy": "Never"}), AMD, "amd64"),
        (json!({}), AMD, "riscv64"),
    ] {
        let mut world = ran(change, json!([content("amd64", digest)]));
        joins(&mut world, "n3", arch);
        world.until_stable();
        let round = world.current();
        assert_eq!(
            (round.spec.node_names, round.spec.image.as_deref()),
            (vec!["n3".into()], Some("kairos:v1"))
        );
        let images = round.status.unwrap().images;
        assert_eq!(images.iter().map(|image| image.digest.as_str()).collect::<Vec<_>>(), [digest]);
    }
}

#[test]
fn a_status_that_was_lost_is_found_again_with_the_digest() {
    let mut world = ran(json!({}), json!([content("amd64", AMD)]));
    joins(&mut world, "n3", "amd64");
    world.until_stable();
    let before = world.status().round.unwrap();
    let mut bare = world.upgrade().clone();
    bare.status = None;
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(bare));
    world.until_stable();
    let after = world.status();
    assert_eq!(after.round.unwrap().image, before.image);
    assert_eq!(after.run, Some(run::hash(&child::spec(&world.upgrade().spec))));
    assert_eq!(world.current().spec.image, Some(pinned(AMD)));
}

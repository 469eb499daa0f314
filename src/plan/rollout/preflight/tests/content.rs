//! Which content of an image is run, and what our own check says of it.

use super::*;

#[test]
fn nodes_of_one_architecture_run_one_content() {
    let digest = |digit: char| format!("docker.io/library/os@sha256:{}", digit.to_string().repeat(64));
    let ends = |world: &mut World, image_id: String| {
        let ended =
            ContainerState::Ended { code: 0, reason: "Completed".into(), message: "up to date".into() };
        world.pod(|pod| {
            pod.containers =
                vec![ContainerView { image_id, ..ContainerView::new(container::PREFLIGHT, ended) }]
        });
    };
    let mut world = World::new();
    ends(&mut world, digest('a'));
    assert_eq!(world.comes_to(5).0, Phase::Completed);
    let key = ("ns".to_owned(), "op".to_owned());
    let status = world.snapshot.ops[&key].status.clone().unwrap();
    assert_eq!(status.image, Some(format!("os:latest@sha256:{}", "a".repeat(64))));
    assert_eq!((status.images.len(), status.images[0].digest.clone()), (1, digest('a')));
    assert_eq!(status.images[0].told_by.as_deref(), Some("n1"), "one node's word");

    for (image_id, phase) in [
        (digest('a'), Phase::Completed),
        (format!("docker-pullable://{}", digest('a')), Phase::Completed),
        (digest('b'), Phase::Failed),
        // Loaded from a file, or reported by who knows what: there is nothing to compare.
        (format!("sha256:{}", "b".repeat(64)), Phase::Completed),
        ("sim://os".into(), Phase::Completed),
        (String::new(), Phase::Completed),
    ] {
        let mut world = World::new();
        let mut op = (*world.snapshot.ops[&key]).clone();
        // A node has run it.
        let mut images = status.images.clone();
        images[0].told_by = None;
        op.status.as_mut().unwrap().images = images;
        world.snapshot.ops.insert(key.clone(), Arc::new(op));
        ends(&mut world, image_id.clone());
        let (came_to, message) = world.comes_to(5);
        assert_eq!(came_to, phase, "{image_id}: {message}");
        assert!(
            phase != Phase::Failed || (message.contains(&digest('a')) && message.contains(&digest('b'))),
            "{message}"
        );
    }
}

/// What decides stands in status first, also between two nodes that end at once.
#[test]
fn the_first_content_is_recorded_before_a_verdict_follows_from_it() {
    let mut world = World::new();
    let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: "up to date".into() };
    let image_id = format!("docker.io/library/os@sha256:{}", "a".repeat(64));
    world.pod(|pod| {
        pod.containers = vec![ContainerView { image_id, ..ContainerView::new(container::PREFLIGHT, ended) }]
    });
    world.snapshot.now = at(5);
    world.snapshot.answers = [(Question::Node("n1".into()), Answer::Found)].into();
    let out = plan(&world.snapshot);
    let written = out
        .actions
        .iter()
        .find_map(|action| if let Action::PatchStatus { status, .. } = action { Some(status) } else { None });
    let written = written.unwrap();
    assert_eq!((written.images.len(), written.node_statuses["n1"].phase), (1, Phase::Preflight));
}

#[test]
fn our_own_check_says_what_the_image_would_bring_and_in_which_boot_it_looked() {
    let says = |boot: &str, proceed: bool| {
        json!({"proceed": proceed, "boot": boot, "before": "v1", "target": "v2"}).to_string()
    };
    let upgrade = || json!({"upgrade": {"active": true}, "preflight": null, "command": null});
    let preflight = json!({"phase": "Preflight", "newBoot": "b1", "lastUpdated": at(0).to_string()});
    let mut world = World::new();
    world.op("op", 0, upgrade(), preflight.clone());
    let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: says("b1", true) };
    let image_id = format!("docker.io/library/os@sha256:{}", "a".repeat(64));
    world.pod(|pod| {
        pod.containers = vec![ContainerView {
            image_id: image_id.clone(),
            ..ContainerView::new(container::PREFLIGHT, ended)
        }]
    });
    world.plan(5);
    let status = world.status("op");
    assert_eq!(
        (status.phase, status.target.as_deref(), status.image.as_deref()),
        (Phase::Running, Some("v2"), Some(image_id.as_str()))
    );

    let mut world = World::new();
    world.op("op", 0, upgrade(), preflight);
    world.ends(0, "Completed", &says("b0", true));
    world.plan(5);
    assert_eq!(
        (world.status("op").phase, world.status("op").attempt),
        (Phase::Preflight, Some(1)),
        "{}",
        world.message()
    );

    // A user's command that prints the same is a command that prints something.
    let mut world = World::new();
    world.ends(0, "Completed", &says("b1", true));
    assert_eq!(world.comes_to(5).0, Phase::Completed);
}

/// Digests of a manifest and of a configuration say nothing of each other: an image that one node has pulled,
/// and another one was given in a file.
#[test]
fn nodes_of_one_architecture_are_brought_one_release() {
    for (arch, phase) in [("amd64", Phase::Failed), ("arm64", Phase::Running)] {
        let mut world = World::new();
        let preflight = json!({"phase": "Preflight", "newBoot": "b1", "lastUpdated": at(0).to_string()});
        let upgrade = json!({"upgrade": {"active": true}, "preflight": null, "command": null});
        world.op("op", 0, upgrade, preflight);
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*world.snapshot.ops[&key]).clone();
        let first =
            json!({"phase": "Completed", "jobName": "j", "target": "v3", "lastUpdated": at(0).to_string()});
        op.status.as_mut().unwrap().node_statuses.insert("n0", serde_json::from_value(first).unwrap());
        world.snapshot.ops.insert(key.clone(), Arc::new(op));
        let n0 = NodeView { name: "n0".into(), uid: "n0".into(), arch: arch.into(), ..NodeView::default() };
        world.snapshot.nodes.insert("n0".into(), Arc::new(n0));
        let said = json!({"proceed": true, "boot": "b1", "before": "v1", "target": "v2"}).to_string();
        world.ends(0, "Completed", &said);
        world.plan(5);
        assert_eq!(world.status("op").phase, phase, "{arch}: {}", world.message());
        if phase == Phase::Failed {
            assert!(world.message().contains("brings v2 on this node, and v3 on n0"), "{}", world.message());
            assert_eq!(world.status("op").node_uid, None, "it is not claimed");
        }
    }
}

/// Our own check says so as a record, and one of a version before 1.0 as a sentence; a command of a user's
/// may say what it likes.
#[test]
fn a_node_that_our_own_check_finds_up_to_date_is_skipped_for_that_reason() {
    let ours = json!({"preflight": null, "command": null, "upgrade": {}});
    let record = r#"{"upToDateAt":"v2"}"#;
    let sentence = "node is already at v2";
    for (spec, said, reason, target, told) in [
        (&ours, record, NodeReason::UpToDate, Some("v2"), sentence),
        (&ours, sentence, NodeReason::UpToDate, Some("v2"), sentence),
        (&ours, "the node does not run Kairos", NodeReason::Skipped, None, "the node does not run Kairos"),
        (&json!({}), sentence, NodeReason::Skipped, None, sentence),
    ] {
        let mut world = World::new();
        let entry = serde_json::to_value(world.status("op")).unwrap();
        world.op("op", 0, spec.clone(), entry);
        world.ends(0, "Completed", said);
        assert_eq!(world.comes_to(5), (Phase::Completed, format!("Skipped by preflight: {told}")), "{said}");
        let entry = world.status("op");
        assert_eq!((entry.reason, entry.target.as_deref()), (Some(reason), target), "{said}");
        assert!(entry.is_skipped());
    }
}

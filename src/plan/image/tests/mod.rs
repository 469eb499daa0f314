//! Which contents are recorded, compared and named.

mod bound;
mod reports;

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    reference::DIGITS,
    seen::{bound_everywhere, is_bound, is_recorded},
    *,
};
use crate::{
    api::{
        image_content::ImageContent,
        node_statuses::NodeStatuses,
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        fixtures,
        model::{
            id::OpRef,
            snapshot::{ContainerState, ContainerView, JobState, NodeView, Owner, Placed, Role},
        },
    },
};

fn op(spec: Value) -> Arc<NodeOp> {
    let meta = json!({"name": "op", "namespace": "ns", "uid": "u"});
    Arc::new(
        serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": meta, "spec": spec}))
            .unwrap(),
    )
}

fn ran(role: Role, node: &str, image_id: &str) -> PodView {
    let (name, owner) = match role {
        Role::Job => (container::NODEOP, Owner::job("j", "ju")),
        _ => (container::PREFLIGHT, Owner::nodeop("op", "u")),
    };
    let state = ContainerState::Running { since: Timestamp::UNIX_EPOCH };
    let containers = vec![ContainerView { image_id: image_id.into(), ..ContainerView::new(name, state) }];
    PodView { containers, ..fixtures::pod(role, &format!("{name}-{node}"), owner, node) }
}

fn world(op: &Arc<NodeOp>, pods: Vec<PodView>) -> Snapshot {
    let node = |(name, arch): (&str, &str)| {
        (name.to_owned(), Arc::new(NodeView { name: name.into(), arch: arch.into(), ..NodeView::default() }))
    };
    let job = fixtures::job("j", JobState::Active);
    Snapshot {
        nodes: [("n1", "amd64"), ("n2", "amd64"), ("n3", "amd64"), ("a1", "arm64")].map(node).into(),
        ops: [(OpRef::of(op).key(), op.clone())].into(),
        jobs: [(("ns".into(), "j".into()), Arc::new(job))].into(),
        pods: pods.into_iter().map(|pod| (("ns".to_owned(), pod.name.clone()), Arc::new(pod))).collect(),
        ..Snapshot::default()
    }
}

fn digest(repository: &str, digit: char) -> String {
    format!("{repository}sha256:{}", digit.to_string().repeat(DIGITS))
}

/// What is recorded of an operation whose nodes stand like this, once these pods have told.
fn recorded(object: &NodeOp, nodes: &[(&str, Value)], pods: Vec<PodView>) -> (Snapshot, NodeOp) {
    let mut op = object.clone();
    let mut status = op.status.take().unwrap_or_default();
    for (name, entry) in nodes {
        status.node_statuses.insert(*name, serde_json::from_value(entry.clone()).unwrap());
    }
    let snapshot = world(&Arc::new(op.clone()), pods);
    record(&snapshot, &op, &mut status);
    let again = status.clone();
    record(&snapshot, &op, &mut status);
    assert_eq!(status, again);
    op.status = Some(status);
    (snapshot, op)
}

fn asked(node: &str) -> (&str, Value) {
    (node, json!({"phase": "Preflight", "newBoot": "b"}))
}

#[test]
fn the_content_of_a_node_that_runs_it_binds_those_of_its_architecture() {
    let object = op(json!({"image": "os:v1", "upgrade": {"active": true}}));
    let pods = vec![
        ran(Role::Job, "n1", &digest("os@", 'a')),
        ran(Role::Preflight, "a1", &digest("os@", 'b')),
        ran(Role::Preflight, "gone", &digest("os@", 'c')),
    ];
    let (snapshot, recorded) = recorded(&object, &[asked("n1"), asked("a1")], pods);
    let status = recorded.status.clone().unwrap();
    let both = format!("{}, {}", digest("os:v1@", 'a'), digest("os:v1@", 'b'));
    assert_eq!((status.images.len(), status.image), (2, Some(both)));
    assert_eq!(
        status.images.iter().map(|image| image.told_by.as_deref()).collect::<Vec<_>>(),
        [None, Some("a1")]
    );
    for (node, image_id, same) in [
        ("n2", digest("os@", 'a'), Compared::Same),
        ("n2", digest("mirror.example.com/os@", 'a'), Compared::Same),
        // The same configuration may have been pushed there under another digest.
        ("n2", digest("mirror.example.com/os@", 'd'), Compared::First),
        ("n2", digest("", 'd'), Compared::First),
        ("a1", digest("os@", 'b'), Compared::Same),
        // One node's report binds nobody.
        ("a1", digest("os@", 'd'), Compared::First),
        ("gone", digest("os@", 'd'), Compared::Unknown),
        ("n2", "os@sha256:short".into(), Compared::Unknown),
        ("n2", String::new(), Compared::Unknown),
    ] {
        let pod = ran(Role::Preflight, node, &image_id);
        assert_eq!(compare(&snapshot, &recorded, &pod), same, "{node} {image_id}");
    }
    let why = mismatch(&snapshot, &recorded, &ran(Role::Job, "n2", &digest("os@", 'b'))).unwrap();
    assert!(why.contains(&digest("os@", 'a')) && why.contains(&digest("os@", 'b')), "{why}");
    assert!(why.len() < 1000, "{why}");
}

/// Rows: what stands about three nodes, what each tells, which of it binds, and what is shown as the image.
#[test]
fn one_nodes_word_binds_nobody_and_two_that_are_alike_or_one_that_was_taken_do() {
    let object = op(json!({"image": "registry.local/os:v1", "upgrade": {"active": true}}));
    let (here, there) = ("registry.local/os@", "quay.io/os@");
    let passed = json!({"phase": "Pending", "boot": "b"});
    let taken = json!({"phase": "Running", "step": "Claim", "nodeUid": "n1"});
    let failed = json!({"phase": "Failed", "lastUpdated": "2026-11-28T02:00:07Z"});
    let skipped = json!({"phase": "Completed", "message": "Skipped by preflight: m"});
    for (entry, told, binds, shows) in [
        (&passed, [Some((here, 'a')), None, None], None, Some('a')),
        (&passed, [Some((here, 'a')), Some((here, 'b')), None], None, None),
        (&passed, [Some((here, 'a')), Some((here, 'b')), Some((here, 'b'))], Some('b'), Some('b')),
        (&taken, [Some((here, 'a')), Some((here, 'b')), None], Some('a'), Some('a')),
        (&failed, [Some((here, 'a')), Some((here, 'b')), None], None, Some('b')),
        (&skipped, [Some((here, 'a')), Some((here, 'a')), None], Some('a'), Some('a')),
        // The registry that is named may not have what another one is said to.
        (&taken, [Some((there, 'a')), Some((here, 'b')), None], Some('a'), Some('b')),
        (&passed, [Some((there, 'a')), Some((there, 'b')), None], None, None),
    ] {
        let names = ["n1", "n2", "n3"];
        let pods = names.iter().zip(&told).filter_map(|(name, said)| {
            let (repository, digit) = (*said)?;
            Some(ran(Role::Preflight, name, &digest(repository, digit)))
        });
        let nodes = [("n1", entry.clone()), ("n2", passed.clone()), ("n3", passed.clone())];
        let (_, op) = recorded(&object, &nodes, pods.collect());
        let status = op.status.unwrap();
        let bound: Vec<char> = status
            .images
            .iter()
            .filter(|image| image.told_by.is_none())
            .map(|image| image.digest.chars().last().unwrap())
            .collect();
        assert_eq!(bound, binds.into_iter().collect::<Vec<_>>(), "{entry} {told:?}");
        assert_eq!(
            status.image,
            shows.map(|digit| digest("registry.local/os:v1@", digit)),
            "{entry} {told:?}"
        );
        // Who told something else than what binds is failed for it, if it can be told apart.
        for (name, said) in names.iter().zip(&told) {
            let Some((repository, digit)) = said else { continue };
            let judged = judge(&status.images, name);
            let expected = match binds {
                Some(binds) if entry == &taken && told[0] == Some((there, 'a')) => {
                    assert_eq!(binds, 'a');
                    "fits"
                }
                Some(binds) if binds != *digit => "differs",
                Some(_) => "fits",
                None if *repository == here && status.image.is_none() => "disputed",
                None => "fits",
            };
            let is = match judged {
                Judged::Fits => "fits",
                Judged::Differs(ref why) => {
                    assert!(why.contains(&digest(here, 'a')) && why.contains(&digest(here, 'b')), "{why}");
                    "differs"
                }
                Judged::Disputed(_) => "disputed",
            };
            assert!(
                is == expected || entry == &failed && *name == "n1",
                "{name} {entry} {told:?}: {judged:?}"
            );
        }
    }
}

#[test]
fn without_a_preflight_the_jobs_pods_say_what_is_run() {
    let object = op(json!({"command": ["true"]}));
    let snapshot = world(&object, vec![ran(Role::Job, "n1", &digest("docker.io/library/busybox@", 'a'))]);
    let mut status = NodeOpStatus::default();
    record(&snapshot, &object, &mut status);
    assert_eq!(
        status.image,
        Some(digest("docker.io/library/busybox@", 'a')),
        "its name is the controller's affair"
    );
    let stranger = PodView { owner: Owner::job("j", "another"), ..ran(Role::Job, "n1", &digest("os@", 'a')) };
    let mut status = NodeOpStatus::default();
    record(&world(&object, vec![stranger]), &object, &mut status);
    assert_eq!(status, NodeOpStatus::default());
}

#[test]
fn a_preflight_of_another_image_says_nothing_of_the_operations() {
    let object = op(
        json!({"image": "os:latest", "command": ["true"], "preflight": {"command": ["check"], "image": "check:v1"}}),
    );
    let pod = ran(Role::Preflight, "n1", &digest("docker.io/library/os@", 'a'));
    let (_, recorded) = recorded(&object, &[asked("n1")], vec![pod.clone()]);
    let status = recorded.status.unwrap();
    assert_eq!((status.images[0].image.as_str(), status.image), ("check:v1", None));
    assert_eq!(pinned(&Snapshot::default(), &object, &pod), None);
}

#[test]
fn a_job_runs_by_digest_what_its_name_may_not_mean_any_more() {
    let found = digest("docker.io/library/os@", 'a');
    let same: String = digest("example.com:5000/team/os@", 'a');
    for (image, image_id, pinned_to) in [
        ("os:latest", &found, Some(&found)),
        ("os", &found, Some(&found)),
        ("docker.io/library/os", &found, Some(&found)),
        ("docker.io/os", &found, Some(&found)),
        ("index.docker.io/os:latest", &found, Some(&found)),
        ("index.docker.io/library/os", &found, Some(&found)),
        ("docker.io/team/os", &found, None),
        ("localhost/os", &found, None),
        ("example.com:5000/team/os", &same, Some(&same)),
        ("example.com:5000/team/os:latest", &same, Some(&same)),
        ("os:v1", &found, None),
        ("example.com:5000/team/os:v1", &same, None),
        ("example.com/os:latest", &found, None),
        (found.as_str(), &found, None),
        ("os:latest", &digest("", 'a'), None),
    ] {
        let object = op(json!({"image": image, "upgrade": {"active": true}}));
        let pod = ran(Role::Preflight, "n1", image_id);
        assert_eq!(pinned(&Snapshot::default(), &object, &pod).as_ref(), pinned_to, "{image} {image_id}");
    }
}

/// A pod that is passed by has nothing that could be recorded, whichever nodes there are.
#[test]
fn what_is_recorded_for_each_architecture_is_not_looked_at_again() {
    let op = op(json!({"image": "img:v1", "command": ["c"]}));
    let digests: Vec<String> = ["a", "b"].map(|digit| format!("img@sha256:{}", digit.repeat(DIGITS))).into();
    let mut passed_by = 0;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut arch = || rng.choice(["", "amd64", "arm64"]).unwrap().to_owned();
        let nodes =
            ["n1", "n2"].map(|name| NodeView { name: name.into(), arch: arch(), ..NodeView::default() });
        let nodes = nodes.map(|node| (node.name.clone(), Arc::new(node))).into();
        let snapshot = Snapshot { nodes, ..Snapshot::default() };
        let images: Vec<ImageContent> = (0..rng.usize(..5))
            .map(|_| ImageContent {
                architecture: rng.choice(["amd64", "arm64"]).unwrap().into(),
                image: rng.choice(["img:v1", "other"]).unwrap().into(),
                digest: rng.choice(&digests).unwrap().clone(),
                told_by: rng.bool().then(|| rng.choice(["n1", "n2", "gone"]).unwrap().to_owned()),
            })
            .collect();
        let bound_everywhere = bound_everywhere(&snapshot, &images);
        for node in ["n1", "n2", "gone"] {
            let role = rng.choice([Role::Job, Role::Preflight]).unwrap();
            let pod = ran(role, node, rng.choice([&digests[0], &digests[1], ""]).unwrap());
            let recorded = is_recorded(&snapshot, &op, &images, &pod);
            if pod.content().is_none_or(|runs| is_bound(&bound_everywhere, &op, &runs)) {
                assert!(recorded || content(&snapshot, &op, &pod).is_none(), "seed {seed}");
                passed_by += 1;
            }
        }
    }
    assert!(passed_by > 100, "{passed_by}");
}

/// Rows: the entries of nodes n1, n2 and so on, what a node to which the image brings v1 comes to, and the
/// release that is shown where v0 was.
#[test]
fn one_nodes_release_binds_nobody_and_two_that_are_alike_or_one_that_was_taken_do() {
    let passed = |release: &str| json!({"phase": "Pending", "boot": "b", "target": release});
    let taken = |release: &str| json!({"phase": "Running", "nodeUid": "u", "target": release});
    let skipped = |release: &str| json!({"phase": "Completed", "message": "Skipped by preflight: m", "target": release});
    let failed =
        |release: &str| json!({"phase": "Failed", "lastUpdated": "2026-11-28T02:00:07Z", "target": release});
    let done = |release: &str| json!({"phase": "Failed", "jobName": "j", "target": release});
    let compact =
        |release: &str| json!({"phase": "Completed", "message": "m", "verified": true, "target": release});
    for (entries, v1, shown) in [
        (vec![], "fits", Some("v0")),
        (vec![passed("v1")], "fits", Some("v1")),
        (vec![passed("v2")], "disputed", Some("v2")),
        (vec![passed("v2"), passed("v1")], "disputed", None),
        (vec![passed("v1"), passed("v2"), passed("v2")], "differs", Some("v2")),
        (vec![passed("v2"), passed("v1"), passed("v1")], "fits", Some("v1")),
        (vec![passed("v2"), skipped("v2")], "differs", Some("v2")),
        (vec![passed("v1"), taken("v2")], "differs", Some("v2")),
        (vec![passed("v2"), passed("v2"), taken("v1")], "fits", Some("v1")),
        // It was taken, and failed afterwards; or it failed untouched, for its release perhaps.
        (vec![passed("v1"), done("v2")], "differs", Some("v2")),
        (vec![passed("v1"), compact("v2")], "differs", Some("v2")),
        (vec![failed("v2"), passed("v1")], "fits", Some("v1")),
        (vec![failed("v2"), failed("v2"), taken("v1")], "fits", Some("v1")),
        (vec![taken("v0"), passed("v2")], "differs", Some("v0")),
    ] {
        let mut snapshot = Snapshot::default();
        let mut nodes = NodeStatuses::default();
        for (number, entry) in entries.iter().enumerate() {
            let name = format!("n{}", number + 1);
            let node = NodeView { name: name.clone(), arch: "amd64".into(), ..NodeView::default() };
            snapshot.nodes.insert(name.clone(), Arc::new(node));
            nodes.insert(name, serde_json::from_value(entry.clone()).unwrap());
        }
        let of = |image: &str| FirstReleases::of(&snapshot, &op(json!({"image": image})), &nodes);
        let node = NodeView { arch: "amd64".into(), ..NodeView::default() };
        let judged = |image| match of(image).judge(&node, "v1") {
            Judged::Fits => "fits",
            Judged::Differs(_) => "differs",
            Judged::Disputed(_) => "disputed",
        };
        assert_eq!(judged("os:v1"), v1, "{entries:?}");
        assert_eq!(judged(&digest("os@", 'a')), "fits", "one digest is one content");
        assert_eq!(of("os:v1").judge(&NodeView::default(), "v1"), Judged::Fits, "another architecture");
        assert_eq!(of("os:v1").shown(Some("v0".into())).as_deref(), shown, "{entries:?}");
    }
}

#[test]
fn a_release_that_binds_is_found_however_many_follow() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut snapshot = Snapshot::default();
        let mut entries = NodeStatuses::default();
        for name in (0..20).map(|n| format!("n{n:02}")) {
            let arch = rng.choice(["", "amd64", "arm64"]).unwrap().into();
            let phase = rng.choice([Phase::Pending, Phase::Running, Phase::Failed]).unwrap();
            let target = rng.bool().then(|| rng.u8(..3).to_string());
            if rng.u8(..8) > 0 {
                let node = NodeView { name: name.clone(), arch, ..NodeView::default() };
                snapshot.nodes.insert(name.clone(), Arc::new(node));
            }
            let last_updated = Some(Time(Timestamp::UNIX_EPOCH));
            entries.insert(name, NodeStatus { phase, target, last_updated, ..NodeStatus::default() });
        }
        let found = FirstReleases::of(&snapshot, &op(json!({"image": "os:v1"})), &entries);
        for (name, node) in &snapshot.nodes {
            let of_arch =
                |entry: &&str| snapshot.nodes.get(*entry).is_some_and(|other| other.arch == node.arch);
            let told = |phase| {
                let told =
                    entries.iter().filter(move |(_, entry)| entry.phase == phase && entry.target.is_some());
                told.map(|(name, entry)| (name.as_str(), entry.target.as_deref().unwrap()))
            };
            let taken = told(Phase::Running).find(|(name, _)| of_arch(name));
            let reports: Vec<_> = told(Phase::Pending).filter(|(name, _)| of_arch(name)).collect();
            let alike = || {
                let twice = |at: &usize| reports[..*at].iter().any(|(_, release)| *release == reports[*at].1);
                (0..reports.len()).find(twice).map(|at| reports[at])
            };
            let expected = taken.or_else(alike).map(|(_, release)| release);
            let judged = found.judge(node, "another");
            assert_eq!(matches!(judged, Judged::Differs(_)), expected.is_some(), "seed {seed}: {name}");
            assert!(expected.is_none_or(|release| found.judge(node, release) == Judged::Fits), "seed {seed}");
            assert_eq!(matches!(judged, Judged::Disputed(_)), expected.is_none() && !reports.is_empty());
            assert!(taken.is_none_or(|(first, _)| found.is_of(first)), "seed {seed}");
        }
    }
}

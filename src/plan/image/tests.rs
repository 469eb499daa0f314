//! Which contents are recorded, compared and named.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        node_statuses::NodeStatuses,
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        fixtures,
        model::{
            id::OpRef,
            snapshot::{ContainerState, ContainerView, JobState, JobView, NodeView, Owner, Placed},
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
    let state = ContainerState::Running { since: k8s_openapi::jiff::Timestamp::UNIX_EPOCH };
    let containers = vec![ContainerView { image_id: image_id.into(), ..ContainerView::new(name, state) }];
    PodView { containers, ..fixtures::pod(role, &format!("{name}-{node}"), owner, node) }
}

fn world(op: &Arc<NodeOp>, pods: Vec<PodView>) -> Snapshot {
    let node = |(name, arch): (&str, &str)| {
        (name.to_owned(), Arc::new(NodeView { name: name.into(), arch: arch.into(), ..NodeView::default() }))
    };
    let job = JobView {
        namespace: "ns".into(),
        name: "j".into(),
        uid: "ju".into(),
        resource_version: String::new(),
        owner: Owner::nodeop("op", "u"),
        node: "n1".into(),
        suspended: false,
        deleting: false,
        state: JobState::Active,
        started_at: None,
        deadline_seconds: None,
        failed: 0,
        settled_in: None,
    };
    Snapshot {
        nodes: [("n1", "amd64"), ("n2", "amd64"), ("a1", "arm64")].map(node).into(),
        ops: [(OpRef::of(op).key(), op.clone())].into(),
        jobs: [(("ns".into(), "j".into()), Arc::new(job))].into(),
        pods: pods.into_iter().map(|pod| (("ns".to_owned(), pod.name.clone()), Arc::new(pod))).collect(),
        ..Snapshot::default()
    }
}

fn digest(repository: &str, digit: char) -> String {
    format!("{repository}sha256:{}", digit.to_string().repeat(DIGITS))
}

#[test]
fn the_first_content_of_each_architecture_is_recorded_and_the_others_are_compared_with_it() {
    let object = op(json!({"image": "os:v1", "upgrade": {"active": true}}));
    let pods = vec![
        ran(Role::Preflight, "n1", &digest("os@", 'a')),
        ran(Role::Preflight, "a1", &digest("os@", 'b')),
        ran(Role::Preflight, "gone", &digest("os@", 'c')),
    ];
    let snapshot = world(&object, pods);
    let mut status = NodeOpStatus::default();
    record(&snapshot, &object, &mut status);
    let both = format!("{}, {}", digest("os:v1@", 'a'), digest("os:v1@", 'b'));
    assert_eq!((status.images.len(), status.image.clone()), (2, Some(both)));
    let again = status.clone();
    record(&snapshot, &object, &mut status);
    assert_eq!(status, again);

    let mut recorded = (*object).clone();
    recorded.status = Some(status);
    for (node, image_id, same) in [
        ("n2", digest("os@", 'a'), Compared::Same),
        ("n2", digest("mirror.example.com/os@", 'a'), Compared::Same),
        ("n2", digest("", 'd'), Compared::First),
        ("a1", digest("os@", 'b'), Compared::Same),
        ("gone", digest("os@", 'd'), Compared::Unknown),
        ("n2", "os@sha256:short".into(), Compared::Unknown),
        ("n2", String::new(), Compared::Unknown),
    ] {
        assert_eq!(
            compare(&snapshot, &recorded, &ran(Role::Preflight, node, &image_id)),
            same,
            "{node} {image_id}"
        );
    }
    let why = mismatch(&snapshot, &recorded, &ran(Role::Job, "n2", &digest("os@", 'b'))).unwrap();
    assert!(why.contains(&digest("os@", 'a')) && why.contains(&digest("os@", 'b')), "{why}");
    assert!(why.len() < 1000, "{why}");
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
    let mut status = NodeOpStatus::default();
    record(&world(&object, vec![pod.clone()]), &object, &mut status);
    assert_eq!((status.images[0].image.as_str(), status.image), ("check:v1", None));
    assert_eq!(pinned(&object, &pod), None);
}

#[test]
fn a_job_runs_by_digest_what_its_name_may_not_mean_any_more() {
    let found = digest("docker.io/library/os@", 'a');
    let same: String = digest("example.com:5000/team/os@", 'a');
    for (image, image_id, pinned_to) in [
        ("os:latest", &found, Some(&found)),
        ("os", &found, Some(&found)),
        ("docker.io/library/os", &found, Some(&found)),
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
        assert_eq!(pinned(&object, &pod).as_ref(), pinned_to, "{image} {image_id}");
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
            })
            .collect();
        let settled = settled(&snapshot, &images);
        for node in ["n1", "n2", "gone"] {
            let role = rng.choice([Role::Job, Role::Preflight]).unwrap();
            let pod = ran(role, node, rng.choice([&digests[0], &digests[1], ""]).unwrap());
            let recorded = is_recorded(&snapshot, &op, &images, &pod);
            if pod.content().is_none_or(|runs| is_settled(&settled, &op, &runs)) {
                assert!(recorded || content(&snapshot, &op, &pod).is_none(), "seed {seed}");
                passed_by += 1;
            }
        }
    }
    assert!(passed_by > 100, "{passed_by}");
}

#[test]
fn the_first_release_of_each_architecture_is_found_however_many_follow() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut snapshot = Snapshot::default();
        let mut entries = NodeStatuses::default();
        for name in (0..20).map(|n| format!("n{n:02}")) {
            let arch = rng.choice(["", "amd64", "arm64"]).unwrap().into();
            let phase = rng.choice([Phase::Pending, Phase::Running, Phase::Completed]).unwrap();
            let target = rng.bool().then(|| rng.u8(..3).to_string());
            if rng.u8(..8) > 0 {
                let node = NodeView { name: name.clone(), arch, ..NodeView::default() };
                snapshot.nodes.insert(name.clone(), Arc::new(node));
            }
            entries.insert(name, NodeStatus { phase, target, ..NodeStatus::default() });
        }
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        for taken in [true, false] {
            for (name, entry) in entries.iter().filter(|(_, entry)| (entry.phase != Phase::Pending) == taken)
            {
                if let Some(node) = snapshot.nodes.get(name).filter(|_| entry.target.is_some()) {
                    first.entry(&node.arch).or_insert(name);
                }
            }
        }
        let found = FirstReleases::of(&snapshot, &entries);
        for (name, node) in &snapshot.nodes {
            assert_eq!(
                found.is_of(name),
                first.get(&*node.arch) == Some(&name.as_str()),
                "seed {seed}: {name}"
            );
            assert_eq!(
                found.mismatch(node, "another").is_some(),
                first.contains_key(&*node.arch),
                "seed {seed}"
            );
        }
    }
}

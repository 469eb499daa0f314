//! Which nodes an operation is about, and what becomes of one that has none.

use kairos_operator::api::{names, nodeop::Phase, upgrade::UpgradePhase};
use serde_json::{Value, json};

use super::{Cluster, condition, key, upgrade_of};

fn managed() -> Value {
    json!({"matchLabels": {"kairos.io/managed": "true"}})
}

/// Operator and upgrade applied in one go: nodes that run Kairos, and nobody has read that yet.
#[test]
fn a_label_of_ours_is_not_looked_for_before_it_may_be_there() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    ["n1", "n2", "n3"].iter().for_each(|name| cluster.forget_facts(name));
    cluster.upgrade(json!({"image": "kairos:v2", "concurrency": 1, "nodeSelector": managed()}));
    cluster.until_stable();
    let status = cluster.status("up");
    assert_eq!((status.phase, cluster.targets("up").len()), (Some(Phase::Pending), 0));
    assert_eq!(status.message.as_deref(), Some("waiting: the facts of 3 nodes are being read: n1, n2, n3"));
    assert_eq!(condition(&status.conditions, "Progressing"), "True/Waiting");
    cluster.read_facts("n1");
    cluster.label("n1", names::MANAGED, "true");
    cluster.read_facts("n3");
    cluster.until_stable();
    assert_eq!(
        cluster.message("up"),
        "waiting: the facts of 1 node are being read: n2",
        "n2 may run Kairos as well"
    );
    assert_eq!(cluster.upgrade_status().phase, Some(UpgradePhase::Pending));
    assert!(cluster.upgrade_status().message.unwrap().contains("being read: n2"));
    cluster.read_facts("n2");
    cluster.label("n2", names::MANAGED, "true");
    cluster.until_stable();
    assert_eq!(cluster.targets("up"), ["n1", "n2"]);
    assert!(!cluster.events.iter().any(|(_, reason)| *reason == "NoNodes"), "{:?}", cluster.events);
}

#[test]
fn only_nodes_that_might_match_are_waited_for() {
    let selector = json!({"matchLabels": {"kairos.io/managed": "true"}, "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
    for (what, waits) in [
        ("unread", true),
        ("hands off", false),
        ("another zone", false),
        ("windows", false),
        ("booted again", true),
    ] {
        let mut cluster = Cluster::new(&["n1", "n2"]);
        ["n1", "n2"].iter().for_each(|name| cluster.label(name, "zone", "a"));
        cluster.label("n1", names::MANAGED, "true");
        match what {
            "booted again" => cluster.node("n2", |node| node.boot_id = "b2".into()),
            _ => cluster.forget_facts("n2"),
        }
        match what {
            "hands off" => cluster.label("n2", names::MANAGED, "false"),
            "another zone" => cluster.label("n2", "zone", "b"),
            "windows" => cluster.label("n2", names::OS_LABEL, "windows"),
            _ => {}
        }
        cluster.op("op", json!({"nodeSelector": selector}));
        cluster.step();
        let expected = if waits { vec![] } else { vec!["n1".to_owned()] };
        assert_eq!(cluster.targets("op"), expected, "{what}: {}", cluster.message("op"));
    }
    for (name, _) in names::FACT_LABELS.iter().chain(&[(names::MANAGED, ""), (names::BOOT_STATE, "")]) {
        let mut cluster = Cluster::new(&["n1"]);
        cluster.forget_facts("n1");
        cluster.op(
            "op",
            json!({"nodeSelector": {"matchExpressions": [{"key": name, "operator": "DoesNotExist"}]}}),
        );
        cluster.step();
        assert_eq!(cluster.targets("op"), [""; 0], "{name} is written by us");
    }
    let mut cluster = Cluster::new(&["n1"]);
    assert!(cluster.s.nodes["n1"].says_its_facts(), "what these tests take for read is read");
    cluster.forget_facts("n1");
    cluster.op("op", json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n1"}}}));
    cluster.step();
    assert_eq!(cluster.targets("op"), ["n1"], "no label of ours is named");
}

/// A node that has just joined is not Ready yet, and nobody knows what it runs.
#[test]
fn a_node_that_joins_is_waited_for_but_not_for_ever() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.label("n1", names::MANAGED, "true");
    cluster.forget_facts("n2");
    cluster.node("n2", |node| node.ready = false);
    cluster.op("op", json!({"nodeSelector": managed()}));
    cluster.until_stable();
    assert_eq!(cluster.message("op"), "waiting: 1 node is not Ready yet, and what they run is not known: n2");
    let mut patient = Cluster { s: cluster.s.clone(), seen: cluster.seen.clone(), ..Cluster::new(&[]) };
    patient.wait(300);
    patient.until_stable();
    assert_eq!(patient.targets("op"), ["n1"]);
    cluster.node("n2", |node| node.ready = true);
    cluster.until_stable();
    assert!(cluster.message("op").contains("being read: n2"));
    // One that had told what it runs, and is away, is known by what it said last.
    let mut known = Cluster::new(&["n1", "n2"]);
    known.label("n1", names::MANAGED, "true");
    known.node("n2", |node| (node.ready, node.boot_id) = (false, "b2".into()));
    known.op("op", json!({"nodeSelector": managed()}));
    known.step();
    assert_eq!(known.targets("op"), ["n1"]);
}

/// KWOK's nodes and those of virtual kubelets are Ready, and have no boot.
#[test]
fn a_node_whose_kubelet_tells_no_boot_is_waited_for_but_not_for_ever() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.label("n1", names::MANAGED, "true");
    cluster.forget_facts("n2");
    cluster.node("n2", |node| node.boot_id = String::new());
    cluster.op("op", json!({"nodeSelector": managed()}));
    cluster.until_stable();
    let told = "waiting: what 1 node runs is not known, its kubelet reports no boot id: n2";
    assert_eq!(cluster.message("op"), told);
    cluster.wait(280);
    cluster.until_stable();
    assert_eq!(cluster.message("op"), told);
    cluster.wait(20);
    cluster.until_stable();
    assert_eq!(cluster.targets("op"), ["n1"]);
}

/// A mistyped label of ours, one of somebody else, and a node's name where its hostname is another.
#[test]
fn an_operation_that_no_node_matches_is_not_over_and_begins_with_the_first() {
    let selectors = [
        (
            "kairos.io/manged=true",
            json!({"matchLabels": {"kairos.io/manged": "true"}}),
            ("kairos.io/manged", "true"),
        ),
        ("tier=canary", json!({"matchLabels": {"tier": "canary"}}), ("tier", "canary")),
        (
            "kubernetes.io/hostname=n1",
            json!({"matchLabels": {"kubernetes.io/hostname": "n1"}}),
            ("kubernetes.io/hostname", "n1"),
        ),
    ];
    for (described, selector, (label, value)) in selectors {
        let mut cluster = Cluster::new(&["n1", "n2"]);
        cluster.label("n1", "kubernetes.io/hostname", "host-1");
        cluster.upgrade(json!({"image": "kairos:v2", "concurrency": 1, "nodeSelector": selector}));
        cluster.until_stable();
        for _ in 0..3 {
            cluster.wait(3600);
            cluster.until_stable();
        }
        let (op, up) = (cluster.status("up"), cluster.upgrade_status());
        assert_eq!((op.phase, up.phase), (Some(Phase::Pending), Some(UpgradePhase::Pending)), "{described}");
        for (what, conditions) in [("NodeOp", &op.conditions), ("NodeOpUpgrade", &up.conditions)] {
            let of = |type_| condition(conditions, type_);
            assert_eq!(of("Progressing"), "True/NoNodes", "{what} {described}");
            assert_eq!(
                (of("Complete"), of("Failed")),
                ("False/NoNodes".into(), "False/NoNodes".into()),
                "{what}"
            );
            assert_eq!(
                (of("Ready"), of("Reconciling")),
                ("False/NoNodes".into(), "True/NoNodes".into()),
                "{what}"
            );
            assert_eq!((of("Stalled"), of("Verified")), (String::new(), String::new()), "{what}");
        }
        assert!(op.message.as_ref().unwrap().contains(described), "{op:?}");
        assert!(up.message.as_ref().unwrap().contains(described), "{up:?}");
        let said: Vec<&str> = cluster
            .events
            .iter()
            .filter(|(_, reason)| *reason == "NoNodes")
            .map(|(about, _)| about.as_str())
            .collect();
        assert_eq!(said, ["up", "upgrade up"], "one Event each: {:?}", cluster.events);

        cluster.label("n2", label, value);
        let planned = cluster.step();
        assert_eq!(
            (cluster.targets("up").len(), planned.wake_at),
            (0, Some(cluster.later(5))),
            "{described}"
        );
        cluster.wait(5);
        cluster.step();
        assert_eq!(cluster.targets("up"), ["n2"], "{described}");
        cluster.label("n1", label, value);
        cluster.until_stable();
        assert_eq!(cluster.targets("up"), ["n2"], "targets are chosen once: {described}");
        assert_eq!(upgrade_of(&cluster.s).status.as_ref().unwrap().counts.as_ref().unwrap().total, 1);
    }
}

/// `kubectl label node n1 n2 n3 …` is one patch after the other, and a pool's nodes join one by one.
#[test]
fn nodes_that_match_one_after_the_other_are_taken_together_where_none_matched_before() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    cluster.op("op", json!({"nodeSelector": {"matchLabels": {"tier": "canary"}}}));
    cluster.until_stable();
    for (node, said) in [
        ("n1", "waiting: 1 node matches by now: n1; taken when no other has joined for 5 s"),
        ("n2", "waiting: 2 nodes match by now: n1, n2; taken when no other has joined for 5 s"),
        ("n3", "waiting: 3 nodes match by now: n1, n2, n3; taken when no other has joined for 5 s"),
    ] {
        cluster.label(node, "tier", "canary");
        cluster.step();
        assert_eq!((cluster.message("op").as_str(), cluster.targets("op").len()), (said, 0));
        assert_eq!(condition(&cluster.status("op").conditions, "Progressing"), "True/NoNodes");
        cluster.wait(4);
    }
    // Another leader has not seen since when.
    cluster.another_leader();
    cluster.step();
    cluster.wait(4);
    cluster.step();
    assert_eq!(cluster.targets("op").len(), 0);
    cluster.wait(1);
    cluster.step();
    assert_eq!(cluster.targets("op"), ["n1", "n2", "n3"]);
    assert_eq!(cluster.events.iter().filter(|(_, reason)| *reason == "NoNodes").count(), 1);
    // One that has a node at its first plan begins at once.
    let mut cluster = Cluster::new(&["n1"]);
    cluster.op("op", json!({}));
    cluster.step();
    assert_eq!(cluster.targets("op"), ["n1"]);
}

/// A misspelt name would be a success otherwise, and nobody told.
#[test]
fn a_name_that_no_node_has_is_told_at_once_and_to_the_end() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.op("op", json!({"nodeNames": ["n1", "n22"]}));
    cluster.until_stable();
    assert_eq!(cluster.targets("op"), ["n1"]);
    let said = "; not included, since no node of this name matched when the operation began: n22 (nodeNames)";
    assert!(cluster.message("op").ends_with(said), "{}", cluster.message("op"));
    assert_eq!(cluster.events.iter().filter(|(_, reason)| *reason == "NoSuchNode").count(), 1);
    cluster.join("n22");
    cluster.entry("op", "n1", json!({"phase": "Completed", "message": "Job completed successfully"}), true);
    cluster.until_stable();
    assert_eq!(
        (cluster.status("op").phase, cluster.message("op")),
        (Some(Phase::Completed), format!("1 node completed{said}"))
    );

    let names = json!(["a", "b", "c", "d"]);
    let selected = json!({"nodeNames": names, "nodeSelector": {"matchLabels": {"tier": "canary"}}});
    for (spec, said) in [
        (
            json!({"nodeNames": names}),
            "waiting: no Linux node has a name of nodeNames (a, b, c, …); the operation starts when a node does",
        ),
        (
            selected,
            "waiting: none of nodeNames (a, b, c, …) matches nodeSelector tier=canary; the operation starts when a node does",
        ),
    ] {
        let mut cluster = Cluster::new(&["n1"]);
        cluster.op("op", spec);
        cluster.until_stable();
        assert_eq!(cluster.message("op"), said);
    }
}

/// While somebody new is looked at, what was said stays said.
#[test]
fn that_no_node_matches_is_one_event_however_often_nodes_boot() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.op("op", json!({"nodeSelector": managed()}));
    cluster.until_stable();
    for boot in ["b2", "b3"] {
        cluster.node("n1", |node| node.boot_id = boot.into());
        cluster.until_stable();
        assert!(cluster.message("op").contains("being read: n1"));
        cluster.read_facts("n1");
        cluster.until_stable();
        assert!(cluster.message("op").contains("kairos.io/managed=true"));
    }
    assert_eq!(cluster.events, [("op".to_owned(), "NoNodes")]);
    cluster.edit("op", |op| {
        op.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(super::at(0)))
    });
    let out = cluster.planned();
    assert!(
        out.actions.iter().any(|action| action.to_string() == "finalizing NodeOp ns/op"),
        "it can be deleted: {:?}",
        out.actions
    );
}

#[test]
fn a_run_whose_nodes_somebody_removed_from_its_status_has_not_succeeded() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.op("op", json!({}));
    cluster.until_stable();
    cluster.edit("op", |op| op.status.as_mut().unwrap().node_statuses = Default::default());
    assert_eq!(cluster.status("op").phase, Some(Phase::Running));
    cluster.until_stable();
    assert_eq!(
        (cluster.status("op").phase, cluster.targets("op").len()),
        (Some(Phase::Failed), 0),
        "nothing is done twice"
    );
    assert!(cluster.message("op").contains("create the NodeOp again"));
    assert!(cluster.s.ops.contains_key(&key("op")));
}

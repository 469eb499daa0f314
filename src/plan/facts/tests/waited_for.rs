//! Nodes that an upgrade waits for: they have booted, and what they run is to be proved.

use super::*;

#[test]
fn an_upgrade_waits_for_a_node_from_its_new_boot_on() {
    let away = NodeView { ready: false, ..node("n1") };
    let read = |entry: serde_json::Value, spec: serde_json::Value| {
        let mut snapshot = world(std::slice::from_ref(&away), vec![], 1, &[]);
        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": "up", "namespace": "ns", "uid": "u"},
            "spec": spec, "status": {"phase": "Running", "nodeStatuses": {"n1": entry}}});
        snapshot.ops.insert(("ns".into(), "up".into()), Arc::new(serde_json::from_value(op).unwrap()));
        made(&sweep(&snapshot)).len() == 1
    };
    let upgrade = || json!({"image": "i", "upgrade": {}});
    assert!(read(json!({"phase": "Running", "step": "Reboot", "boot": "b0"}), upgrade()));
    assert!(read(json!({"phase": "Running", "step": "Verify"}), upgrade()));
    assert!(
        !read(json!({"phase": "Running", "step": "Reboot", "boot": "b1"}), upgrade()),
        "it has not rebooted yet"
    );
    assert!(!read(json!({"phase": "Running", "step": "Job"}), upgrade()));
    assert!(!read(json!({"phase": "Completed", "boot": "b0"}), upgrade()), "it is over");
    assert!(
        !read(json!({"phase": "Running", "step": "Reboot", "boot": "b0"}), json!({"command": ["true"]})),
        "nothing is to be proved"
    );
}

/// Its network may come a quarter of an hour after its kubelet. What failed by then says nothing about whether
/// it can be read, and the upgrade waits for that as long as it says, and no longer.
#[test]
fn a_node_that_an_upgrade_waits_for_is_read_again_after_the_shortest_pause_however_often_that_failed() {
    for attempt in [0, 1, 5, 100] {
        let node = node("n1");
        let failed = || vec![pod(&node, attempt, PodPhase::Failed, fails())];
        let nodes = std::slice::from_ref(&node);
        assert!(made(&plan_of(nodes, failed(), 29, &["n1"])).is_empty(), "{attempt}");
        assert_eq!(made(&plan_of(nodes, failed(), 30, &["n1"])), [("n1", attempt + 1)]);
        let others = made(&plan_of(nodes, failed(), 30, &[])).len();
        assert_eq!(others, usize::from(attempt == 0), "nobody waits for it");
    }
}

/// An autoscaler has chosen it while it was away. Nothing of a node in progress is decided by that.
#[test]
fn a_node_on_its_way_out_is_read_if_an_upgrade_waits_for_it() {
    let node = NodeView { deleting: true, ..node("n1") };
    let nodes = std::slice::from_ref(&node);
    assert_eq!(made(&plan_of(nodes, vec![], 0, &["n1"])), [("n1", 0)]);
    assert!(made(&plan_of(nodes, vec![], 0, &[])).is_empty());
}

/// Whoever asks for one node does not look at all others.
#[test]
fn whether_one_node_is_waited_for_is_what_all_of_them_are_found_by() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes: Vec<NodeView> = (0..20).map(|i| node(&format!("n{i}"))).collect();
        let mut snapshot = world(&nodes, vec![], 1, &[]);
        for name in ["up", "other", "third"] {
            let entry = |rng: &mut fastrand::Rng| {
                json!({"phase": rng.choice(["Pending", "Running", "Completed"]).unwrap(),
                    "step": rng.choice(["Job", "Reboot", "Verify"]).unwrap(), "boot": rng.choice(["b0", "b1"]).unwrap()})
            };
            let entries: serde_json::Map<_, _> =
                (0..25).map(|i| (format!("n{i}"), entry(&mut rng))).collect();
            let spec =
                if rng.bool() { json!({"image": "i", "upgrade": {}}) } else { json!({"command": ["true"]}) };
            let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": spec, "status": {"phase": "Running", "nodeStatuses": entries}});
            snapshot.ops.insert(("ns".into(), name.into()), Arc::new(serde_json::from_value(op).unwrap()));
        }
        let reading = Reading::of(&snapshot);
        let each: Vec<&str> = snapshot
            .nodes
            .values()
            .filter(|node| reading.is_waited_for(node))
            .map(|node| &*node.name)
            .collect();
        assert_eq!(reading.waited_for().into_iter().collect::<Vec<_>>(), each, "seed {seed}");
    }
}

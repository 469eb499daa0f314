//! Thousands of nodes, of which few are looked at.

use super::*;

/// At an installation all of thousands are to be read, and then again after each change of what is read.
#[test]
fn nodes_whose_turn_it_is_not_are_not_looked_at() {
    let nodes: Vec<NodeView> = (0..500).map(|i| node(&format!("n{i:03}"))).collect();
    let looked_at = |pods: Vec<PodView>, waited_for: &[&str], change: &dyn Fn(&mut NodeView)| {
        let mut nodes = nodes.clone();
        nodes[100..].iter_mut().for_each(change);
        let snapshot = world(&nodes, pods, 0, waited_for);
        concerned(&snapshot, &Reading::of(&snapshot)).len()
    };
    let busy = |count: usize| nodes[..count].iter().map(pending).collect();
    assert_eq!(looked_at(vec![], &[], &|_| ()), AT_ONCE);
    assert_eq!(looked_at(busy(AT_ONCE), &[], &|_| ()), AT_ONCE, "no slot is free");
    assert_eq!(looked_at(busy(AT_ONCE), &["n400", "n300"], &|_| ()), AT_ONCE + 2);
    // Nor, for ever, at those that nobody can or wants to read.
    let let_be = |node: &mut NodeView| drop(node.labels.insert(names::MANAGED.into(), "false".into()));
    let bootless = |node: &mut NodeView| node.boot_id.clear();
    for change in [&let_be as &dyn Fn(&mut NodeView), &bootless, &|node| node.os = "windows".into()] {
        let mut nodes = nodes.clone();
        nodes.iter_mut().for_each(change);
        let snapshot = world(&nodes, vec![], 0, &["n007"]);
        assert_eq!(concerned(&snapshot, &Reading::of(&snapshot)).len(), 1);
    }
}

/// A name that is taken cannot be made, and is found at a glance: the operations' pods of thousands of nodes
/// are in the same table.
#[test]
fn a_pod_whose_name_is_anothers_is_made_under_the_next_one() {
    let (n1, n2) = (node("n1"), node("n2"));
    let squatter = |namespace: &str| PodView {
        name: name(&n1, 0),
        namespace: namespace.into(),
        role: Role::Waiter,
        ..pod(&n2, 0, PodPhase::Running, says("b1"))
    };
    let attempt = |namespace: &str, of_operations: bool| {
        let mut snapshot = world(std::slice::from_ref(&n1), vec![], 0, &[]);
        snapshot.config.namespace = "own".into();
        let (key, pod) = ((namespace.to_owned(), name(&n1, 0)), Arc::new(squatter(namespace)));
        let pods = if of_operations { &mut snapshot.pods } else { &mut snapshot.facts_pods };
        pods.insert(key, pod);
        made(&sweep(&snapshot)).first().map(|(_, attempt)| *attempt)
    };
    for of_operations in [true, false] {
        assert_eq!(attempt("own", of_operations), Some(1));
        assert_eq!(attempt("elsewhere", of_operations), Some(0));
    }
}

/// Whoever has a kubelet's credentials can report one boot after the other, and confirm no pod's end.
#[test]
fn a_node_that_reports_ever_new_boots_costs_few_pods() {
    for waited_for in [&[][..], &["n1"]] {
        let mut pods: Vec<PodView> = vec![];
        for boot in 1..30 {
            let n1 = NodeView { boot_id: format!("b{boot}"), ..node("n1") };
            let planned = plan_of(std::slice::from_ref(&n1), pods.clone(), 0, waited_for);
            for action in &planned.actions {
                match action {
                    Action::CreateFactsPod { .. } => {
                        pods.push(PodView { uid: n1.boot_id.clone(), ..pending(&n1) });
                    }
                    Action::DeletePod { pod, .. } => {
                        pods.iter_mut()
                            .filter(|known| known.uid == pod.uid)
                            .for_each(|known| known.deleting = true);
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(pods.len(), 2, "{waited_for:?}");
        let n1 = NodeView { boot_id: "b30".into(), ..node("n1") };
        let told = obstacle(&world(std::slice::from_ref(&n1), pods.clone(), 0, waited_for), &n1).value;
        assert_eq!(told.as_deref(), Some("the pod that reads it was lost, and has not ended yet"));
        pods.pop();
        assert_eq!(made(&plan_of(&[n1], pods, 0, waited_for)), [("n1", 0)], "one has ended");
    }
}

/// One that reports another boot for each of them must not make each of them look like the first.
#[test]
fn a_facts_pod_of_another_boot_is_the_same_thing_done_again() {
    let id = |boot: &str, attempt: i32| {
        let n1 = NodeView { boot_id: boot.into(), ..node("n1") };
        make(&world(std::slice::from_ref(&n1), vec![], 0, &[]), &n1, attempt, None, false).id()
    };
    assert_eq!(id("b1", 0), id("b2", 0));
    assert_ne!(id("b1", 0), id("b1", 1), "that has pauses of its own");
}

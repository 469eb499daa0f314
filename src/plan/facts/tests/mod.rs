//! Whose facts are read, one node after the other and in spite of nodes that went away.

mod changed;
mod many;
mod waited_for;

use std::sync::Arc;

use serde_json::json;

use super::{next::MARGIN, pod::name, slots::AT_ONCE, *};
use crate::{
    api::names::{self, container},
    contract::{self, Facts},
    plan::{
        fixtures::{self, at},
        model::{action::Action, identity::Identified, snapshot::*},
    },
};

fn node(name: &str) -> NodeView {
    NodeView {
        name: name.into(),
        uid: format!("u-{name}"),
        boot_id: "b1".into(),
        ready: true,
        ..NodeView::default()
    }
}

/// The clock of whoever made it is years off.
fn pod(of: &NodeView, attempt: i32, phase: PodPhase, state: ContainerState) -> PodView {
    PodView {
        name: name(of, attempt),
        phase,
        created: at(-100_000_000),
        attempt,
        containers: vec![ContainerView::new(container::FACTS, state)],
        ..fixtures::pod(
            Role::Facts,
            &format!("{}-{attempt}", of.name),
            Owner::node(&of.name, &of.uid),
            &of.name,
        )
    }
}

fn pending(of: &NodeView) -> PodView {
    pod(
        of,
        0,
        PodPhase::Pending,
        ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() },
    )
}

fn says(boot: &str) -> ContainerState {
    let facts = Facts { boot: boot.into(), kairos: true, ..Facts::default() };
    ContainerState::Ended {
        code: 0,
        reason: "Completed".into(),
        message: serde_json::to_string(&facts).unwrap(),
    }
}

fn fails() -> ContainerState {
    ContainerState::Ended { code: 1, reason: "Error".into(), message: "no /etc".into() }
}

/// These nodes and pods, first seen at second 0, `now` seconds later; an upgrade waits for what some nodes
/// run.
fn world(nodes: &[NodeView], pods: Vec<PodView>, now: i64, waited_for: &[&str]) -> Snapshot {
    let entries: serde_json::Map<_, _> = waited_for
        .iter()
        .map(|name| ((*name).to_owned(), json!({"phase": "Running", "step": "Verify"})))
        .collect();
    let upgrade: crate::api::nodeop::NodeOp =
        serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "up", "namespace": "ns", "uid": "u"}, "spec": {"image": "i", "upgrade": {}},
        "status": {"phase": "Running", "nodeStatuses": entries}}))
        .unwrap();
    let mut snapshot = Snapshot {
        now: at(0),
        config: PlannerConfig { namespace: "ns".into(), ..PlannerConfig::default() },
        nodes: nodes.iter().map(|node| (node.name.clone(), Arc::new(node.clone()))).collect(),
        facts_pods: pods
            .into_iter()
            .map(|pod| ((pod.namespace.clone(), pod.name.clone()), Arc::new(pod)))
            .collect(),
        ops: [(("ns".to_owned(), "up".to_owned()), Arc::new(upgrade))].into(),
        ..Snapshot::default()
    };
    let mut sightings = Sightings::default();
    sightings.note(&snapshot);
    (snapshot.sightings, snapshot.now) = (Arc::new(sightings), at(now));
    snapshot
}

fn plan_of(nodes: &[NodeView], pods: Vec<PodView>, now: i64, waited_for: &[&str]) -> Effects {
    sweep(&world(nodes, pods, now, waited_for))
}

fn made(plan: &Effects) -> Vec<(&str, i32)> {
    let make = |action| match action {
        &Action::CreateFactsPod { ref node, attempt, .. } => Some((node.as_str(), attempt)),
        _ => None,
    };
    plan.actions.iter().filter_map(make).collect()
}

fn deleted(plan: &Effects) -> Vec<&str> {
    fn delete(action: &Action) -> Option<&str> {
        if let Action::DeletePod { pod, .. } = action { Some(&pod.uid) } else { None }
    }
    plan.actions.iter().filter_map(delete).collect()
}

#[test]
fn ten_nodes_are_read_at_a_time_besides_those_that_an_upgrade_waits_for() {
    let nodes: Vec<NodeView> = (10..40).map(|i| node(&format!("n{i}"))).collect();
    let plan = plan_of(&nodes, vec![], 0, &["n38", "n39"]);
    assert_eq!(made(&plan).len(), AT_ONCE + 2);
    assert!(made(&plan).ends_with(&[("n38", 0), ("n39", 0)]));
    let busy = || nodes[..4].iter().map(pending).collect();
    assert_eq!(made(&plan_of(&nodes, busy(), 0, &[])).len(), AT_ONCE - 4);
    assert_eq!(made(&plan_of(&nodes, busy(), 0, &["n10", "n11"])).len(), AT_ONCE - 2, "nor do theirs count");
}

/// A zone whose registry is down must not take all places again and again.
#[test]
fn nodes_that_could_not_be_read_come_after_one_that_was_not_tried_yet() {
    let failing: Vec<_> = (0..AT_ONCE).map(|n| node(&format!("a{n:02}"))).collect();
    let pods = failing.iter().map(|of| pod(of, 0, PodPhase::Failed, fails())).collect();
    let all: Vec<_> = failing.into_iter().chain([node("z1")]).collect();
    let made =
        made(&plan_of(&all, pods, 1000, &[])).iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!((made.len(), made.first().map(String::as_str)), (AT_ONCE, Some("z1")), "{made:?}");
}

#[test]
fn nodes_that_went_away_keep_no_other_from_being_read() {
    let healthy = node("z");
    let dead = |change: &dyn Fn(&mut NodeView)| -> Vec<NodeView> {
        let each = |i| {
            let mut node = node(&format!("d{i:02}"));
            change(&mut node);
            node
        };
        (0..20).map(each).collect()
    };
    let worlds: [(&str, Vec<NodeView>, bool); 4] = [
        ("not Ready", dead(&|node| node.ready = false), true),
        ("Windows", dead(&|node| drop(node.labels.insert(names::OS_LABEL.into(), "windows".into()))), true),
        ("says so itself", dead(&|node| node.os = "windows".into()), true),
        ("gone", dead(&|_| {}), false),
    ];
    for (what, nodes, there) in worlds {
        let pods: Vec<PodView> = nodes.iter().map(pending).collect();
        let all: Vec<NodeView> = nodes.iter().filter(|_| there).chain([&healthy]).cloned().collect();
        let plan = plan_of(&all, pods.clone(), 10, &[]);
        assert_eq!(made(&plan), [("z", 0)], "{what}");
        assert_eq!(deleted(&plan).len(), 20, "{what}: their kubelets may never end them");
        let ending = pods.into_iter().map(|pod| PodView { deleting: true, ..pod }).collect();
        let plan = plan_of(&all, ending, 11, &[]);
        assert_eq!((made(&plan), deleted(&plan).len()), (vec![("z", 0)], 0), "{what}: asked once is enough");
    }
}

#[test]
fn pods_of_an_earlier_boot_or_of_an_earlier_machine_are_deleted_at_once_and_do_not_count() {
    let nodes: Vec<NodeView> = (10..30).map(|i| node(&format!("n{i}"))).collect();
    let boots = |node: &NodeView| pending(&NodeView { boot_id: "b0".into(), ..node.clone() });
    let machines = |node: &NodeView| pending(&NodeView { uid: "another".into(), ..node.clone() });
    for pods in [nodes.iter().map(boots).collect::<Vec<_>>(), nodes.iter().map(machines).collect()] {
        let plan = plan_of(&nodes, pods, 1, &[]);
        assert_eq!((made(&plan).len(), deleted(&plan).len()), (AT_ONCE, 20));
    }
}

#[test]
fn a_pod_that_outlives_its_deadline_as_we_saw_it_is_replaced() {
    let node = node("n1");
    let overdue = contract::FACTS_DEADLINE + MARGIN.as_secs();
    let plan = |now, pod, ready, waited_for: &[&str]| {
        plan_of(&[NodeView { ready, ..node.clone() }], vec![pod], now, waited_for)
    };
    let early = plan(overdue - 1, pending(&node), true, &[]);
    assert_eq!((early.actions.len(), early.wake_at), (0, Some(at(overdue))));
    let late = plan(overdue, pending(&node), true, &[]);
    assert_eq!((deleted(&late), made(&late)), (vec!["n1-0"], vec![("n1", 1)]));
    let ending = PodView { deleting: true, ..pending(&node) };
    let stuck = plan(overdue, ending.clone(), true, &[]);
    assert_eq!((deleted(&stuck).len(), made(&stuck)), (0, vec![("n1", 1)]), "its kubelet does not end it");
    // After a boot all pods of a node start at once, and an upgrade waits for as long as it may.
    let overdue = contract::WAITED_FACTS_DEADLINE + MARGIN.as_secs();
    let booting = plan(overdue - 1, pending(&node), false, &["n1"]);
    assert!(booting.actions.is_empty(), "a node that has just booted is not Ready yet");
    let dead = plan(overdue, pending(&node), false, &["n1"]);
    assert_eq!((deleted(&dead), made(&dead)), (vec!["n1-0"], vec![]));
    assert!(
        plan(overdue, ending, false, &["n1"]).actions.is_empty(),
        "and no pod after pod on a node that confirms no end"
    );
}

#[test]
fn what_was_read_in_this_boot_is_not_read_again_and_its_pod_goes() {
    let mut known = node("n1");
    known.annotations.insert(names::FACTS_OF.into(), facts_of("b1", |_| None));
    assert!(
        plan_of(&[known.clone()], vec![], 0, &[]).actions.is_empty(),
        "a restarted operator makes no pod"
    );
    let plan = plan_of(&[known.clone()], vec![pod(&known, 0, PodPhase::Succeeded, says("b1"))], 0, &[]);
    assert!(matches!(plan.actions[..], [Action::DeletePod { .. }]), "{:?}", plan.actions);
    known.boot_id = "b2".into();
    assert_eq!(made(&plan_of(&[known], vec![], 0, &[])), [("n1", 0)], "another boot");
}

#[test]
fn facts_are_recorded_if_they_are_of_the_boot_that_the_node_reports() {
    let node = node("n1");
    let plan =
        plan_of(std::slice::from_ref(&node), vec![pod(&node, 0, PodPhase::Succeeded, says("b1"))], 0, &[]);
    assert!(
        matches!(&plan.actions[..], [Action::PatchNode { name, .. }] if name == "n1"),
        "{:?}",
        plan.actions
    );
    let plan =
        plan_of(std::slice::from_ref(&node), vec![pod(&node, 0, PodPhase::Succeeded, says("b0"))], 1, &[]);
    assert!(plan.actions.is_empty() && plan.wake_at.is_some(), "{:?}", plan.actions);
}

#[test]
fn a_pod_that_another_owner_has_says_nothing_of_a_node() {
    let node = node("n1");
    for owner in [
        Owner::node("n1", "another"),
        Owner::node("n2", &node.uid),
        Owner::job("n1", &node.uid),
        Owner::default(),
    ] {
        let forged = PodView { owner: owner.clone(), ..pod(&node, 0, PodPhase::Succeeded, says("b1")) };
        let plan = plan_of(std::slice::from_ref(&node), vec![forged], 0, &[]);
        assert!(
            !plan.actions.iter().any(|action| matches!(action, Action::PatchNode { .. })),
            "{owner:?}: {:?}",
            plan.actions
        );
    }
}

#[test]
fn a_pod_that_failed_is_followed_by_another_after_a_pause_that_doubles() {
    let node = node("n1");
    for (attempt, pause) in [(0, 30), (1, 60), (3, 240), (50, 30 * 128)] {
        let failed = || vec![pod(&node, attempt, PodPhase::Failed, fails())];
        let early = plan_of(std::slice::from_ref(&node), failed(), pause - 1, &[]);
        assert_eq!((made(&early).len(), early.wake_at), (0, Some(at(pause))), "{attempt}");
        let plan = plan_of(std::slice::from_ref(&node), failed(), pause, &[]);
        assert_eq!(made(&plan), [("n1", attempt + 1)]);
    }
    let running = pod(&node, 1, PodPhase::Running, ContainerState::Running { since: at(31) });
    let plan = plan_of(
        std::slice::from_ref(&node),
        vec![pod(&node, 0, PodPhase::Failed, fails()), running],
        32,
        &[],
    );
    assert_eq!(deleted(&plan), ["n1-0"]);
}

#[test]
fn hands_off_means_no_pod_unless_an_upgrade_waits_for_the_proof() {
    let mut off = node("n1");
    off.labels.insert(names::MANAGED.into(), "false".into());
    assert!(plan_of(&[off.clone()], vec![], 0, &[]).actions.is_empty());
    assert_eq!(made(&plan_of(&[off], vec![], 0, &["n1"])), [("n1", 0)]);
    let away = NodeView { ready: false, ..node("n2") };
    assert!(
        plan_of(std::slice::from_ref(&away), vec![], 0, &[]).actions.is_empty(),
        "a node that is not Ready starts no pod"
    );
    assert_eq!(
        made(&plan_of(&[away], vec![], 0, &["n2"])),
        [("n2", 0)],
        "one that has just booted soon does"
    );
}

#[test]
fn a_pod_of_somebody_else_under_the_name_is_passed_by() {
    let node = node("n1");
    let taken = |attempt| PodView {
        owner: Owner::default(),
        role: Role::Stranger,
        ..pod(&node, attempt, PodPhase::Running, fails())
    };
    let plan = plan_of(std::slice::from_ref(&node), vec![taken(0), taken(1)], 0, &[]);
    assert_eq!((made(&plan), deleted(&plan).len()), (vec![("n1", 2)], 0));
}

#[test]
fn whoever_waits_for_facts_is_told_what_holds_them_up() {
    let told =
        |snapshot: &Snapshot, name: &str| obstacle(snapshot, &snapshot.nodes[name]).value.unwrap_or_default();
    let nodes: Vec<NodeView> = (10..22).map(|i| node(&format!("n{i}"))).collect();
    let busy = world(&nodes, nodes[..10].iter().map(pending).collect(), 1, &["n21"]);
    assert_eq!(told(&busy, "n20"), "waiting for a free slot: 10 pods are reading other nodes");
    assert_eq!(told(&busy, "n21"), "", "an upgrade's node waits for none");
    assert_eq!(told(&busy, "n10"), "");
    let pull = ContainerState::Waiting { reason: "ImagePullBackOff".into(), message: "no such host".into() };
    let n = node("n1");
    let one = |pod: PodView, now| world(std::slice::from_ref(&n), vec![pod], now, &["n1"]);
    let pulls = one(pod(&n, 0, PodPhase::Pending, pull), 1);
    assert_eq!(told(&pulls, "n1"), "the pod that reads it cannot start: ImagePullBackOff: no such host");
    let selected = Snapshot { ops: <_>::default(), ..pulls.clone() };
    let way_out = "; the label kairos.io/managed=false on the node leaves it out";
    assert!(told(&selected, "n1").ends_with(way_out));
    let silent = one(pending(&n), 10);
    let told_of = obstacle(&silent, &n);
    assert_eq!((told_of.value, told_of.effects.questions.len()), (None, 1), "its Events are asked for");
    let failed = one(pod(&n, 0, PodPhase::Failed, fails()), 1);
    let pausing = "the pod that read it failed, pausing for 30 s: exit code 1: no /etc";
    assert_eq!(told(&failed, "n1"), pausing);
    assert_eq!(
        told(&one(PodView { deleting: true, ..pending(&n) }, 1), "n1"),
        "the pod that reads it was lost, and has not ended yet"
    );
    let mut refused = world(std::slice::from_ref(&n), vec![], 1, &["n1"]);
    let Some(make) = sweep(&refused).actions.pop() else { panic!() };
    refused.failures = [(make.id(), PersistentFailure { since: at(0), message: "quota".into() })].into();
    assert!(
        told(&refused, "n1").ends_with("keeps failing since 1970-01-12T13:46:40Z: quota"),
        "{}",
        told(&refused, "n1")
    );
    // What a node writes is its own: a compromised one fills no status with it.
    let long = ContainerState::Ended { code: 0, reason: "x".repeat(5_000), message: "x".repeat(20_000) };
    let chatty = PodView { reason: "y".repeat(5_000), ..pod(&n, 0, PodPhase::Succeeded, long) };
    assert!(told(&one(chatty, 1), "n1").len() < 1_000);
    let windows = NodeView { os: "windows".into(), ..n.clone() };
    assert_eq!(
        told(&world(std::slice::from_ref(&windows), vec![], 1, &["n1"]), "n1"),
        "the node does not run Linux"
    );
}

/// The cache of nodes is not the cache of pods: the one may be behind the other, and another leader before
/// us.
#[test]
fn a_pod_whose_node_no_cache_shows_yet_is_left_for_a_while() {
    let plan = plan_of(&[], vec![pending(&node("new"))], 9, &[]);
    assert_eq!((deleted(&plan).len(), plan.wake_at), (0, Some(at(10))));
    assert_eq!(deleted(&plan_of(&[], vec![pending(&node("new"))], 10, &[])).len(), 1);
}

/// It ended well and said nothing that can be read: its time counts from when we first saw it, as of any
/// other.
#[test]
fn a_pod_that_succeeded_and_says_nothing_is_followed_by_another_and_goes_with_its_node() {
    let n1 = node("n1");
    let silent = || {
        let says = ContainerState::Ended { code: 0, reason: "Completed".into(), message: String::new() };
        pod(&n1, 0, PodPhase::Succeeded, says)
    };
    let nodes = [n1.clone()];
    assert!(made(&plan_of(&nodes, vec![silent()], 29, &[])).is_empty(), "a pause");
    assert_eq!(made(&plan_of(&nodes, vec![silent()], 30, &[])), [("n1", 1)]);
    assert!(deleted(&plan_of(&[], vec![silent()], 9, &[])).is_empty(), "no cache shows its node yet");
    assert_eq!(deleted(&plan_of(&[], vec![silent()], 10, &[])).len(), 1);
}

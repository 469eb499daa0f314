//! Pods that do not start, or do not end.

use super::{
    super::next::{RUNS_WITHIN, STARTS_WITHIN},
    *,
};

#[test]
fn a_pod_that_takes_too_long_as_we_saw_it_is_replaced() {
    let node = node("n1");
    let overdue = STARTS_WITHIN.as_secs();
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
    // Where an upgrade waits for it, it has twice the time.
    let overdue = 2 * overdue;
    let booting = plan(overdue - 1, pending(&node), false, &["n1"]);
    assert!(booting.actions.is_empty(), "a node that has just booted is not Ready yet");
    let dead = plan(overdue, pending(&node), false, &["n1"]);
    assert_eq!((deleted(&dead), made(&dead)), (vec!["n1-0"], vec![]));
    assert!(
        plan(overdue, ending, false, &["n1"]).actions.is_empty(),
        "and no pod after pod on a node that confirms no end"
    );
    // One that runs, or says that it cannot start, has less time.
    let overdue = RUNS_WITHIN.as_secs();
    let refused = ContainerState::Waiting { reason: "ErrImagePull".into(), message: "no".into() };
    let runs = ContainerState::Running { since: at(-100_000_000) };
    for state in [refused, runs] {
        let pod = pod(&node, 0, PodPhase::Pending, state);
        assert!(plan(overdue - 1, pod.clone(), true, &[]).actions.is_empty());
        assert_eq!(made(&plan(overdue, pod, true, &[])), [("n1", 1)]);
    }
}

/// A board that pulls 30 images after its upgrade takes minutes to begin; its verification waits 300 s for
/// that.
#[test]
fn a_pod_that_starts_slowly_is_left_to_read() {
    let node = node("n1");
    for (waited_for, after) in [(&["n1"][..], 599), (&[], 299)] {
        let slow = plan_of(std::slice::from_ref(&node), vec![pending(&node)], after, waited_for);
        assert!(slow.actions.is_empty(), "{:?}", slow.actions);
    }
}

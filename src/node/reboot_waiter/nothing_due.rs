//! Waiters for which nothing is left to do: they end by themselves, and no sooner.

use std::time::Duration;

use super::{
    waiter::{LOOK_AGAIN, SECOND_LOOK, Waiter},
    world::{FakeCluster, Phase, Process, Shared, fake_cluster, settle, start},
};
use crate::{contract::reboot_state, node::AppletExit};

/// A waiter that watches, on such a node.
fn waits(node: impl FnOnce(&mut FakeCluster)) -> (Shared, Waiter<Process>) {
    let all = fake_cluster();
    node(&mut all.borrow_mut());
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(all.borrow().annotation, Some(reboot_state::WAITING));
    (all, waiter)
}

/// So much later: what it ends with, if it does.
fn after(all: &Shared, waiter: &mut Waiter<Process>, time: Duration) -> Option<AppletExit> {
    all.borrow_mut().now += time;
    all.borrow_mut().event = true;
    settle(waiter)
}

/// The store went back to when its reboot was not over yet, so that its kubelet starts it again.
#[test]
fn a_waiter_whose_complete_job_has_left_no_sentinel_ends_after_a_second_look() {
    let (all, mut waiter) = waits(|node| node.job(Phase::Complete));
    assert_eq!(after(&all, &mut waiter, SECOND_LOOK - Duration::from_secs(1)), None);
    let ended = after(&all, &mut waiter, Duration::from_secs(1)).expect("nothing is left to do");
    assert!(ended.code == 0 && ended.message.starts_with("no reboot: the Job is Complete"), "{ended:?}");
    assert!(all.borrow().asked.is_empty());
    // Killed between the two looks, it looks twice again.
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    assert!(after(&all, &mut waiter, SECOND_LOOK).is_some());
}

/// It watched all the time, and the Job left nothing: an upgrade that changed nothing, say.
#[test]
fn a_waiter_that_was_there_before_its_job_learns_of_its_end_too() {
    for (phase, looks) in [(Phase::Complete, 2), (Phase::Failed, 1)] {
        let (all, mut waiter) = waits(|node| node.job(Phase::Running));
        assert_eq!(after(&all, &mut waiter, LOOK_AGAIN), None, "it runs");
        all.borrow_mut().job(phase);
        assert_eq!(after(&all, &mut waiter, LOOK_AGAIN - Duration::from_secs(1)), None, "it is not asked");
        let first = after(&all, &mut waiter, Duration::from_secs(1));
        assert_eq!(first.is_some(), looks == 1, "{first:?}");
        let ended = first.or_else(|| after(&all, &mut waiter, SECOND_LOOK)).expect("it is over");
        assert_eq!((ended.code, all.borrow().asked.len()), (0, 0));
    }
}

/// Both looks must tell the same, and nothing on the disk may say otherwise, or be illegible.
#[test]
fn a_reboot_that_may_be_due_is_waited_for() {
    // The record shows late, whatever the disk did meanwhile.
    let (all, mut waiter) = waits(|node| node.job(Phase::Complete));
    all.borrow_mut().succeed();
    assert_eq!(after(&all, &mut waiter, SECOND_LOOK), None);
    assert_eq!(all.borrow().asked, [1]);
    // It is there, and cannot be read.
    let (all, mut waiter) = waits(|node| {
        node.job(Phase::Complete);
        node.illegible = true;
    });
    for _ in 0..3 {
        assert_eq!(after(&all, &mut waiter, LOOK_AGAIN), None);
    }
    all.borrow_mut().illegible = false;
    all.borrow_mut().succeed();
    assert_eq!(after(&all, &mut waiter, SECOND_LOOK), None);
    assert_eq!(all.borrow().asked, [1]);
    // The store went back between the two looks, and the Job runs again.
    let (all, mut waiter) = waits(|node| node.job(Phase::Complete));
    all.borrow_mut().job(Phase::Running);
    assert_eq!(after(&all, &mut waiter, SECOND_LOOK), None);
    all.borrow_mut().job(Phase::Complete);
    assert_eq!(after(&all, &mut waiter, LOOK_AGAIN), None, "it is the first look that shows it");
    // No answer is none.
    let (all, mut waiter) = waits(|node| node.job(Phase::Complete));
    all.borrow_mut().api = false;
    assert_eq!(after(&all, &mut waiter, LOOK_AGAIN), None);
    all.borrow_mut().api = true;
    assert!(after(&all, &mut waiter, SECOND_LOOK).is_some());
}

#[test]
fn a_sentinel_that_vanishes_is_no_reason_to_reboot() {
    let (all, mut waiter) = waits(|node| node.job(Phase::Running));
    all.borrow_mut().succeed();
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().sentinel = None;
    all.borrow_mut().job(Phase::Complete);
    assert_eq!(settle(&mut waiter), None);
    assert!(all.borrow().asked.is_empty());
}

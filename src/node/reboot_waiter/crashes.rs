//! The rows of the crash table, and the mishaps of a node's life, one by one.

use std::time::Duration;

use super::{
    waiter::Waiter,
    world::{GRACE, Phase, Process, Shared, TIMEOUT, fake_cluster, settle, start, step},
};
use crate::{contract::reboot_state, node::AppletExit};

/// A node whose waiter has announced itself and whose Job then runs.
fn running() -> (Shared, Waiter<Process>) {
    let all = fake_cluster();
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(all.borrow().annotation, Some(reboot_state::WAITING));
    all.borrow_mut().job(Phase::Running);
    (all, waiter)
}

/// A node whose Job is Complete; its waiter has not looked yet.
pub(super) fn due() -> (Shared, Waiter<Process>) {
    let (all, waiter) = running();
    all.borrow_mut().succeed();
    all.borrow_mut().job(Phase::Complete);
    (all, waiter)
}

pub(super) fn asked(all: &Shared) -> Vec<u32> {
    all.borrow().asked.clone()
}

/// What was asked happens; the waiter that is started in the new boot ends well, and the sentinel is gone.
pub(super) fn boots_and_completes(all: &Shared) {
    all.borrow_mut().reboot();
    let asked_before = asked(all);
    let ended = settle(&mut start(all)).expect("an old boot is the end");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(all.borrow().annotation, Some(reboot_state::COMPLETED));
    assert_eq!(all.borrow().sentinel, None);
    assert_eq!(asked(all), asked_before, "nothing more is asked in the new boot");
}

/// Kills the waiter after each number of steps, and starts it again, until it waits for init by itself.
#[test]
fn killed_between_any_two_steps_it_asks_in_the_first_boot_and_completes_in_the_second() {
    for steps in 0..8 {
        let (all, mut waiter) = due();
        for _ in 0..steps {
            let _ = step(&mut waiter);
        }
        drop(waiter);
        assert_eq!(settle(&mut start(&all)), None, "killed after {steps} steps, the next one waits for init");
        assert!(asked(&all).iter().all(|boot| *boot == 1) && !asked(&all).is_empty(), "after {steps} steps");
        boots_and_completes(&all);
    }
}

#[test]
fn killed_between_any_two_steps_of_the_new_boot_it_still_completes() {
    for steps in 0..6 {
        let (all, mut waiter) = due();
        assert_eq!(settle(&mut waiter), None);
        all.borrow_mut().reboot();
        let mut waiter = start(&all);
        for _ in 0..steps {
            let _ = step(&mut waiter);
        }
        let ended = settle(&mut start(&all)).expect("it ends");
        assert_eq!((ended.code, asked(&all).len()), (0, 1), "killed after {steps} steps: {ended:?}");
        assert_eq!(
            (all.borrow().annotation, all.borrow().sentinel.as_ref()),
            (Some(reboot_state::COMPLETED), None)
        );
    }
}

#[test]
fn killed_before_waiting_was_heard_it_announces_again() {
    for steps in 0..3 {
        let all = fake_cluster();
        let mut waiter = start(&all);
        for _ in 0..steps {
            let _ = step(&mut waiter);
        }
        drop(waiter);
        assert_eq!(settle(&mut start(&all)), None);
        assert_eq!(all.borrow().annotation, Some(reboot_state::WAITING));
    }
}

#[test]
fn a_sentinel_from_before_the_watch_is_found() {
    let (all, waiter) = running();
    drop(waiter);
    all.borrow_mut().succeed();
    all.borrow_mut().job(Phase::Complete);
    all.borrow_mut().event = false;
    assert_eq!(settle(&mut start(&all)), None);
    assert_eq!(asked(&all), [1]);
}

#[test]
fn a_lost_annotation_changes_nothing() {
    let (all, mut waiter) = due();
    all.borrow_mut().mute = true;
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [1]);
    all.borrow_mut().reboot();
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None, "`completed` is said until it is heard");
    assert!(all.borrow().sentinel.is_some());
    all.borrow_mut().mute = false;
    assert_eq!(settle(&mut waiter).map(|ended| ended.code), Some(0));
    assert_eq!(asked(&all), [1]);
}

/// Its pod, or its account, may have been deleted since the look: nobody says that the reboot is still
/// wanted.
#[test]
fn a_token_that_is_not_taken_any_more_asks_for_nothing_until_it_is_taken_again() {
    for replaced in [false, true] {
        let (all, mut waiter) = due();
        // Waits no more, has looked, and is about to announce.
        while waiter.looked().is_none() {
            assert_eq!(step(&mut waiter), Some(None));
        }
        all.borrow_mut().token = false;
        assert_eq!(settle(&mut waiter), None);
        assert_eq!(asked(&all), Vec::<u32>::new(), "the look before was its last one");
        (all.borrow_mut().token, all.borrow_mut().event) = (true, true);
        if replaced {
            all.borrow_mut().pod_uid += 1;
            let ended = settle(&mut waiter).expect("another pod has its name");
            assert!(ended.code == 1 && ended.message.contains("was replaced"), "{ended:?}");
            assert_eq!(asked(&all), Vec::<u32>::new());
        } else {
            assert_eq!(settle(&mut waiter), None);
            assert_eq!(asked(&all), [1], "it is due all the same");
            boots_and_completes(&all);
        }
    }
}

/// As with a server that does not answer: the deadline ends it, and it leaves the sentinel to a restart.
#[test]
fn a_token_that_is_never_taken_again_ends_with_the_deadline() {
    let (all, mut waiter) = due();
    while waiter.looked().is_none() {
        assert_eq!(step(&mut waiter), Some(None));
    }
    all.borrow_mut().token = false;
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().now += TIMEOUT;
    all.borrow_mut().event = true;
    let ended = settle(&mut waiter).expect("the deadline is over");
    assert!(ended.code == 1 && ended.message.contains("the API did not answer"), "{ended:?}");
    assert!(all.borrow().sentinel.is_some() && asked(&all).is_empty());
}

#[test]
fn init_that_does_nothing_is_followed_by_the_kernel() {
    let (all, mut waiter) = due();
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().now += GRACE - Duration::from_secs(1);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(all.borrow().kernel, 0);
    all.borrow_mut().now += Duration::from_secs(1);
    settle(&mut waiter);
    assert_eq!(all.borrow().kernel, 1);
    boots_and_completes(&all);
}

#[test]
fn init_that_cannot_be_asked_is_followed_by_the_kernel_at_once() {
    let (all, mut waiter) = due();
    all.borrow_mut().init_deaf = true;
    let ended = settle(&mut waiter).expect("this test's kernel refuses");
    assert_eq!((ended.code, all.borrow().kernel), (1, 1));
    assert_eq!(settle(&mut start(&all)).map(|ended| ended.code), Some(1), "a restart tries again");
    assert_eq!(all.borrow().kernel, 2);
}

#[test]
fn a_reboot_behind_its_back_is_as_good() {
    let (all, waiter) = due();
    drop(waiter);
    boots_and_completes(&all);
    assert!(asked(&all).is_empty());
}

#[test]
fn a_reboot_while_the_command_runs_is_followed_by_one_more() {
    let (all, _) = running();
    all.borrow_mut().reboot();
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().succeed();
    all.borrow_mut().job(Phase::Complete);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [2]);
    boots_and_completes(&all);
}

/// The pod that wrote the sentinel was lost before the Job heard of its success, and the node rebooted: the
/// Job tries again, in the boot in which the old sentinel is found. Ending there would leave nobody to reboot
/// after the second success.
#[test]
fn a_job_that_is_retried_in_a_later_boot_is_waited_for() {
    let (all, mut waiter) = running();
    all.borrow_mut().succeed();
    assert_eq!(settle(&mut waiter), None, "the Job is not Complete");
    all.borrow_mut().reboot();
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().succeed();
    all.borrow_mut().job(Phase::Complete);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [2]);
    boots_and_completes(&all);
}

#[test]
fn a_failed_deleted_or_replaced_job_is_never_followed_by_a_reboot() {
    for (phase, uid) in [(Phase::Failed, 1), (Phase::Gone, 1), (Phase::Running, 2), (Phase::Complete, 2)] {
        let (all, mut waiter) = running();
        all.borrow_mut().succeed();
        assert_eq!(settle(&mut waiter), None);
        all.borrow_mut().job_uid = uid;
        all.borrow_mut().job(phase);
        let ended = settle(&mut waiter).expect("it ends");
        assert!(ended.code == 0 && ended.message.starts_with("no reboot: "), "{phase:?}: {ended:?}");
        assert_eq!((asked(&all).len(), all.borrow().sentinel.as_ref()), (0, None));
    }
}

#[test]
fn killed_after_a_failed_jobs_sentinel_was_removed_it_ends_on_the_job() {
    let (all, _) = running();
    all.borrow_mut().job(Phase::Failed);
    assert_eq!(settle(&mut start(&all)).map(|ended| ended.code), Some(0));
}

#[test]
fn a_waiter_whose_pod_is_lost_gives_up_and_its_replacement_reboots_once() {
    for replaced in [true, false] {
        let (all, mut waiter) = due();
        if replaced {
            all.borrow_mut().pod_uid = 2;
        } else {
            all.borrow_mut().pod_lost = true;
        }
        let ended = settle(&mut waiter).expect("it gives up");
        assert!(ended.code == 1 && ended.message.contains("this pod"), "{ended:?}");
        assert!(asked(&all).is_empty() && all.borrow().sentinel.is_some());
        all.borrow_mut().pod_uid = 3;
        all.borrow_mut().pod_lost = false;
        assert_eq!(settle(&mut start(&all)), None);
        assert_eq!(asked(&all), [1]);
        boots_and_completes(&all);
    }
}

/// Deleted after the GETs, before init is asked: the answer to `rebooting` tells.
#[test]
fn a_pod_deleted_at_the_last_moment_cancels() {
    let (all, mut waiter) = due();
    // It wakes, finds the sentinel, and looks; the next step would announce `rebooting`.
    while step(&mut waiter).is_some() && waiter.looked().is_none() {}
    assert!(waiter.looked().is_some() && asked(&all).is_empty());
    all.borrow_mut().pod_lost = true;
    assert_eq!(settle(&mut waiter).map(|ended| ended.code), Some(1));
    assert!(asked(&all).is_empty());
}

/// Before there was a sentinel any Job of our owner would do; the sentinel of another one must not profit by
/// that answer.
#[test]
fn what_was_said_before_the_sentinel_does_not_count_for_it() {
    let all = fake_cluster();
    all.borrow_mut().succeed();
    let foreign = all.borrow_mut().sentinel.take();
    all.borrow_mut().job_uid = 2;
    all.borrow_mut().job(Phase::Complete);
    let mut waiter = start(&all);
    while step(&mut waiter).is_some() && waiter.looked().is_none() {}
    all.borrow_mut().sentinel = foreign;
    let ended = settle(&mut waiter).expect("the Job was replaced");
    assert!(ended.code == 0 && asked(&all).is_empty(), "{ended:?}");
}

#[test]
fn an_api_that_is_away_is_waited_for_until_the_deadline() {
    let (all, mut waiter) = due();
    all.borrow_mut().api = false;
    for _ in 0..10 {
        assert_eq!(settle(&mut waiter), None);
        all.borrow_mut().now += Duration::from_secs(60);
    }
    assert!(asked(&all).is_empty());
    all.borrow_mut().api = true;
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [1]);
}

#[test]
fn over_its_deadline_it_leaves_the_sentinel_to_the_next_start() {
    let (all, mut waiter) = due();
    all.borrow_mut().api = false;
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().now += TIMEOUT;
    let ended = settle(&mut waiter).expect("over");
    assert_eq!(ended, AppletExit::failure("gave up without a reboot: the API did not answer in time"));
    all.borrow_mut().api = true;
    assert_eq!(settle(&mut start(&all)), None);
    assert_eq!(asked(&all), [1]);
}

#[test]
fn the_deadline_counts_from_the_sentinel_however_long_the_operation_took() {
    let (all, mut waiter) = running();
    for _ in 0..3 {
        all.borrow_mut().now += TIMEOUT * 2;
        all.borrow_mut().event = true;
        assert_eq!(settle(&mut waiter), None, "how long an operation may take is the controller's to judge");
    }
    all.borrow_mut().succeed();
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().now += TIMEOUT - Duration::from_secs(1);
    all.borrow_mut().job(Phase::Complete);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [1]);
}

#[test]
fn what_the_deadline_ends_is_told_as_it_is() {
    for (api, message) in [(true, "the Job did not become Complete"), (false, "the API did not answer")] {
        let (all, mut waiter) = running();
        all.borrow_mut().succeed();
        assert_eq!(settle(&mut waiter), None);
        all.borrow_mut().now += TIMEOUT;
        all.borrow_mut().api = api;
        all.borrow_mut().event = true;
        let ended = settle(&mut waiter).expect("over its deadline it ends");
        assert!(ended.code == 1 && ended.message.contains(message), "{ended:?}");
    }
}

#[test]
fn sigterm_before_init_was_asked_ends_it_and_after_does_not() {
    let (all, mut waiter) = running();
    all.borrow_mut().sigterm = true;
    assert_eq!(settle(&mut waiter).map(|ended| ended.code), Some(1));
    let (all, mut waiter) = due();
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().sigterm = true;
    all.borrow_mut().pod_lost = true;
    assert_eq!(settle(&mut waiter), None, "it stays for the grace");
    all.borrow_mut().now += GRACE;
    settle(&mut waiter);
    assert_eq!(all.borrow().kernel, 1);
}

//! The rows of the crash table on nodes that are containers, whose boot id stays.

use super::{
    crashes::{asked, boots_and_completes, due},
    world::{Kind, settle, start, step},
};
use crate::contract::EXIT_SAME_BOOT;

/// kind and k3d. What init ignored is asked again; what it did, and no boot id tells, is not.
#[test]
fn a_node_that_starts_anew_in_the_same_boot_is_asked_once() {
    for steps in 0..8 {
        let (all, mut waiter) = due();
        for _ in 0..steps {
            let _ = step(&mut waiter);
        }
        drop(waiter);
        let mut waiter = start(&all);
        assert_eq!(settle(&mut waiter), None, "it is asked, again if it was before");
        let times = asked(&all).len();
        for _ in 0..3 {
            all.borrow_mut().restart();
            let ended = settle(&mut start(&all)).expect("nothing is left to do");
            assert_eq!(ended.code, EXIT_SAME_BOOT, "{ended:?}");
        }
        assert_eq!(asked(&all).len(), times, "killed after {steps} steps");
        boots_and_completes(&all);
    }
}

/// A disk that is full, read-only or hangs. A machine that is not rebooted at all after a success would be
/// worse off, and its boot id tells of the reboot.
#[test]
fn of_what_it_cannot_note_it_asks_a_machine_as_ever_and_a_container_not_at_all() {
    let (all, mut waiter) = due();
    all.borrow_mut().unwritable = Some(Kind::Machine);
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [1]);
    boots_and_completes(&all);

    let (all, mut waiter) = due();
    all.borrow_mut().unwritable = Some(Kind::Container);
    for _ in 0..3 {
        let ended = settle(&mut waiter).expect("it would be asked again and again");
        assert!(ended.code == 1 && ended.message.contains("no space left"), "{ended:?}");
        assert!(asked(&all).is_empty() && all.borrow().kernel == 0 && all.borrow().sentinel.is_some());
        all.borrow_mut().restart();
        waiter = start(&all);
    }
    all.borrow_mut().unwritable = None;
    assert_eq!(settle(&mut waiter), None);
    assert_eq!(asked(&all), [1], "it is due all the same");
    all.borrow_mut().restart();
    assert_eq!(settle(&mut start(&all)).map(|ended| ended.code), Some(EXIT_SAME_BOOT));
    assert_eq!(asked(&all), [1]);
}

//! That it waits is said again, whoever lost it.

use std::time::Duration;

use super::world::{fake_cluster, settle, start};
use crate::contract::reboot_state;

/// Somebody took its annotation off, or the store was restored to a time before it.
#[test]
fn that_it_waits_is_said_again_each_ten_minutes() {
    let all = fake_cluster();
    let mut waiter = start(&all);
    assert_eq!(settle(&mut waiter), None);
    all.borrow_mut().annotation = None;
    for (seconds, said) in [(599, None), (600, Some(reboot_state::WAITING))] {
        all.borrow_mut().now = Duration::from_secs(seconds);
        assert_eq!(settle(&mut waiter), None);
        assert_eq!(all.borrow().annotation, said, "after {seconds} s");
    }
    // Without an API server it waits on.
    all.borrow_mut().api = false;
    all.borrow_mut().now = Duration::from_secs(10_000);
    assert_eq!(settle(&mut waiter), None);
}

//! Tests of the cache.

use std::time::Duration;

use super::*;
use crate::{api::nodeop::NodeOp, observe::trim};

impl Observed for i32 {
    fn says_the_same(&self, other: &Self) -> bool {
        self == other
    }
}

#[test]
fn a_version_that_says_nothing_new_is_known_and_shown_to_nobody() {
    let key: Key = ("ns".into(), "a".into());
    let mut cache = Cache::default();
    assert!(cache.apply(version("u", "10"), 1));
    assert_eq!(cache.changes().count(), 1);
    let before = cache.views().next().cloned().unwrap();
    for number in 11..=110 {
        assert!(!cache.apply(version("u", &number.to_string()), 1), "a heartbeat");
    }
    assert_eq!(cache.changes().count(), 0);
    assert!(Arc::ptr_eq(&before, cache.views().next().unwrap()));
    assert_eq!((cache.version_of(&key, |view| *view == 1), cache.newest()), (Some(110), Some(110)));
    assert_eq!(cache.version_of(&key, |view| *view == 2), None, "what was meant is not what is here");
    assert!(!cache.apply(version("u", "110"), 2), "it is no older version for that");
    assert!(cache.apply(version("v", "120"), 1), "another object of that name");
    cache.remove(&key, None, None);
    assert_eq!(cache.changes().collect::<Vec<_>>(), [(key, None)]);
    assert_eq!(cache.changes().count(), 0);
}

/// A status is written at the version of the object that is shown.
#[test]
fn of_what_is_written_as_it_was_shown_each_version_is_shown() {
    let mut cache = Cache::default();
    for (number, news) in [("10", true), ("11", false)] {
        let (at, view) = op(number, "Running", "x");
        assert_eq!(cache.apply(at, view), news);
        let shown: Vec<_> = cache.changes().filter_map(|(_, view)| view).collect();
        assert_eq!(shown[0].metadata.resource_version.as_deref(), Some(number));
    }
}

fn version(uid: &str, resource_version: &str) -> Version {
    Version { key: ("ns".into(), "a".into()), uid: uid.into(), resource_version: resource_version.into() }
}

fn value(cache: &Cache<i32>) -> Option<i32> {
    cache.views().next().map(|view| **view)
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut cache = Cache::default();
    assert!(cache.apply(version("u", "10"), 10));
    assert!(!cache.apply(version("u", "9"), 9), "a lagging watch");
    assert!(!cache.apply(version("u", "10"), 11), "the same version again");
    assert!(cache.apply(version("u", "100"), 100), "compared as numbers, not as text");
    assert_eq!(value(&cache), Some(100));
}

/// Else nothing that is planned from it afterwards is found to be the same at a glance.
#[test]
fn what_we_wrote_is_kept_as_we_wrote_it_also_if_the_watch_told_of_it_first() {
    /// The text is who said it.
    #[derive(Debug, PartialEq)]
    struct Said(i32, &'static str);
    impl Observed for Said {
        fn says_the_same(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    let wrote = |told: &[(&str, &str, i32)]| {
        let mut cache = Cache::default();
        for (uid, number, says) in told {
            cache.apply(version(uid, number), Said(*says, "watch"));
        }
        let news = cache.wrote(version("u", "10"), Said(7, "write"));
        (news, cache.get(&("ns".into(), "a".into())).map(|said| said.1))
    };
    assert_eq!(wrote(&[("u", "9", 6)]), (true, Some("write")), "the watch has not told of it");
    assert_eq!(wrote(&[("u", "10", 7)]), (false, Some("write")));
    assert_eq!(wrote(&[("u", "11", 8)]), (false, Some("watch")), "somebody has changed it since");
    assert_eq!(wrote(&[("u", "10", 8)]), (false, Some("watch")), "what the server says, counts");
    assert_eq!(wrote(&[("v", "10", 7)]), (false, Some("watch")), "it is another object");
}

#[test]
fn an_object_made_again_replaces_the_old_one_and_survives_its_deletion() {
    let mut cache = Cache::default();
    cache.apply(version("u1", "10"), 1);
    cache.apply(version("u2", "12"), 2);
    cache.remove(&("ns".into(), "a".into()), Some("u1"), Some("11"));
    assert_eq!(value(&cache), Some(2));
    cache.apply(version("u1", "11"), 1);
    assert_eq!(value(&cache), Some(2), "a late answer about the old one");
}

#[test]
fn a_late_answer_does_not_bring_back_what_has_gone() {
    let key: Key = ("ns".into(), "a".into());
    for (uid, last) in [(Some("u"), Some("15")), (None, None)] {
        let mut cache = Cache::default();
        cache.apply(version("u", "10"), 10);
        cache.remove(&key, uid, last);
        assert!(!cache.apply(version("u", "10"), 10), "{last:?}");
        assert_eq!(
            cache.apply(version("u", "12"), 12),
            last.is_none(),
            "only what is known to have ended stays away"
        );
        assert!(cache.apply(version("v", "20"), 20), "one made again is another matter");
    }
    let mut cache = Cache::default();
    cache.remove(&key, Some("u"), Some("15"));
    assert!(!cache.apply(version("u", "14"), 14), "the end was seen before the object");
}

#[test]
fn what_an_old_list_does_not_name_yet_comes_back_with_the_watch() {
    let mut cache = Cache::default();
    cache.apply(version("u", "10"), 10);
    cache.list_begins();
    cache.list_ends();
    assert_eq!(value(&cache), None);
    assert!(cache.apply(version("u", "10"), 10), "made by us after the list was taken");
}

#[test]
fn deletions_are_remembered_up_to_a_number() {
    let mut cache = Cache::<i32>::default();
    for i in 0..MAX_TOMBSTONES + 10 {
        cache.remove(&("ns".into(), format!("p{i}")), None, Some(&i.to_string()));
    }
    let kept = cache.tombstones.len();
    assert!(
        (MAX_TOMBSTONES / 2..MAX_TOMBSTONES).contains(&kept),
        "many go at once, and not at each deletion: {kept}"
    );
    assert!(
        cache.tombstones.contains_key(&("ns".into(), format!("p{}", MAX_TOMBSTONES + 9))),
        "the newest are kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_relist_drops_what_it_does_not_name_and_keeps_what_came_in_meanwhile() {
    let mut cache = Cache::default();
    cache.apply(version("u", "10"), 10);
    cache.apply(
        Version { key: ("ns".into(), "b".into()), uid: "v".into(), resource_version: "11".into() },
        11,
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    cache.list_begins();
    cache.apply(version("u", "12"), 12);
    assert_eq!(cache.listed(version("u", "10"), 10), Ok(false), "the list was read before our own write");
    assert!(!cache.ready());
    cache.list_ends();
    assert!(cache.ready());
    assert_eq!(cache.views().count(), 1);
    assert_eq!(value(&cache), Some(12));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_older_than_what_was_here_before_it_began_shows_a_restored_store() {
    let mut cache = Cache::default();
    let early = Instant::now();
    cache.apply(version("u", "700"), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(cache.check(&version("u", "600"), began), Err(WentBack { had: 700, has: 600 }));
    assert_eq!(cache.check(&version("u", "600"), early), Ok(()), "its answer was merely slow");
    assert_eq!(cache.check(&version("v", "600"), began), Ok(()), "another object of that name");
    assert_eq!(cache.check(&version("u", "700"), began), Ok(()));
    cache.list_begins();
    assert_eq!(cache.listed(version("u", "600"), 2), Err(WentBack { had: 700, has: 600 }));
    assert_eq!((cache.newest(), Cache::<i32>::default().newest()), (Some(700), None));
}

fn op(resource_version: &str, phase: &str, spec: &str) -> (Version, NodeOp) {
    let op = serde_json::json!({"metadata": {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": resource_version},
        "spec": {"command": [spec]}, "status": {"phase": phase}});
    let op = trim::nodeop(serde_json::from_value(op).unwrap());
    (version("u", resource_version), op)
}

/// Of a NodeOp that is over a record is kept, and what comes in of it later is seen as of any other.
#[tokio::test(start_paused = true)]
async fn a_nodeop_of_which_a_record_is_kept_is_known_by_name_uid_and_version() {
    let key: Key = ("ns".into(), "a".into());
    let recorded = || {
        let mut cache = Cache::default();
        let (at, view) = op("10", "Running", "x");
        assert!(cache.apply(at, view));
        let (at, view) = op("12", "Completed", "x");
        assert!(cache.apply(at, view));
        let shown = cache.changes().collect::<Vec<_>>();
        assert!(matches!(shown.as_slice(), [(_, None)]), "it is no view any more: {shown:?}");
        assert!(cache.get(&key).is_none() && cache.contains(&key) && cache.finished().get(&key).is_some());
        cache
    };
    let mut cache = recorded();
    for (resource_version, phase, news) in [
        ("11", "Running", false),
        ("12", "Completed", false),
        ("13", "Completed", false),
        ("14", "Running", true),
    ] {
        let (at, view) = op(resource_version, phase, "y");
        assert_eq!(cache.apply(at, view), news, "{resource_version}");
        assert!(cache.has(&version("u", resource_version)), "{resource_version}");
    }
    assert_eq!(cache.get(&key).map(|op| op.spec.command.is_some()), Some(true), "somebody made it run again");
    assert!(cache.finished().is_empty());

    let mut cache = recorded();
    assert!(!cache.remove(&key, Some("v"), None), "another one is meant");
    assert!(cache.remove(&key, Some("u"), Some("15")) && !cache.contains(&key));
    let (at, view) = op("12", "Completed", "x");
    assert!(!cache.apply(at, view), "a late answer does not bring it back");

    let mut cache = recorded();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(cache.check(&version("u", "9"), Instant::now()), Err(WentBack { had: 12, has: 9 }));
    assert_eq!(cache.check(&version("v", "9"), Instant::now()), Ok(()), "another one of its name");
    assert_eq!(cache.newest(), Some(12));
    cache.list_begins();
    let (at, view) = op("12", "Completed", "x");
    assert_eq!(cache.listed(at, view), Ok(false));
    cache.list_ends();
    assert!(cache.contains(&key) && cache.changes().count() == 0);
    cache.list_begins();
    cache.list_ends();
    assert!(!cache.contains(&key), "what a list does not name is gone");
    assert_eq!(cache.changes().count(), 1);
}

/// The watch says that it was deleted, in the version in which somebody took the label away.
#[test]
fn what_the_watch_does_not_select_any_more_is_kept_as_it_was_read_until_it_is_gone_or_labelled() {
    let key: Key = ("ns".into(), "a".into());
    let left = |cache: &mut Cache<i32>| cache.remove(&key, Some("u"), Some("12"));
    let unselected =
        |cache: &Cache<i32>| cache.unselected().next().and_then(|(key, _)| cache.get(key).copied());
    for live_read_comes_first in [false, true] {
        let mut cache = Cache::default();
        cache.apply(version("u", "10"), 10);
        if !live_read_comes_first {
            assert!(left(&mut cache));
        }
        assert!(cache.found_unselected(version("u", "12"), 12));
        assert!(!live_read_comes_first || !left(&mut cache), "it is there");
        assert_eq!(unselected(&cache), Some(12));
        assert!(
            !cache.found_unselected(version("u", "12"), 12),
            "it is as it was: nobody has to plan for it"
        );
        cache.list_begins();
        cache.list_ends();
        assert_eq!(unselected(&cache), Some(12), "no list of what has the label names it");
        assert!(cache.found_unselected(version("u", "13"), 13), "it changed");
        assert!(!cache.remove(&key, Some("another"), None) && unselected(&cache) == Some(13));
        assert!(cache.apply(version("u", "14"), 14), "somebody put the label back");
        assert_eq!((value(&cache), unselected(&cache)), (Some(14), None));
        assert!(cache.remove(&key, Some("u"), Some("15")), "and the watch tells of its end");
        assert!(!cache.found_unselected(version("u", "14"), 14), "which a late answer does not take back");
        cache.found_unselected(version("v", "20"), 20);
        assert!(cache.remove(&key, None, None), "a read has not found it");
        assert_eq!((value(&cache), cache.unselected().count()), (None, 0));
    }
}

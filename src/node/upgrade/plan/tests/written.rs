//! What an agent has written in this boot, and no boot has tried.

use super::*;

/// Rows: what an agent of another Job has left, whether it counts, and which release the node boots next.
#[test]
fn what_was_written_in_this_boot_and_may_be_the_active_image_is_untried() {
    let here = found("b1", "active", Some("v1"), Some("v1"));
    for (state, active, boot, counts) in [
        (UpgradeState::Upgraded, true, "b1", true),
        (UpgradeState::Started, true, "b1", true),
        (UpgradeState::Failed, true, "b1", false),
        (UpgradeState::UpToDate, true, "b1", false),
        (UpgradeState::Upgraded, false, "b1", false),
        (UpgradeState::Started, false, "b1", false),
        (UpgradeState::Upgraded, true, "b0", false),
    ] {
        let left = UpgradeResult {
            job_uid: "other".into(),
            active,
            boot: boot.into(),
            target: Some("v2".into()),
            ..result(&order(true, false), &here, state)
        };
        let left = [by("job-0", left)];
        let next = Untried { release: Some("v2".into()), job: "job-0".into() };
        for job in ["u", ""] {
            assert_eq!(
                untried("b1", job, Some("v1"), &left),
                counts.then(|| next.clone()),
                "{state:?} {active} {boot}"
            );
        }
        assert_eq!(untried("b1", "other", Some("v1"), &left), None, "it is its own");
    }
}

/// A directory has no order. Rows: what was written in this boot, for an image of v1; which one decides.
#[test]
fn of_several_that_were_written_one_of_another_release_decides() {
    let here = found("b1", "active", Some("v1"), Some("v1"));
    let left = |job: &str, target: Option<&str>| {
        let target = target.map(str::to_owned);
        let result = result(&order(true, false), &here, UpgradeState::Upgraded);
        by(job, UpgradeResult { job_uid: job.into(), target, ..result })
    };
    let (same, other, unnamed) = (left("c", Some("v1")), left("b", Some("v2")), left("a", None));
    for (all, job) in [
        (vec![&same], "c"),
        (vec![&same, &other], "b"),
        (vec![&same, &unnamed], "a"),
        (vec![&unnamed, &other, &same], "b"),
    ] {
        for turn in 0..all.len() {
            let mut all: Vec<Left> = all.iter().map(|left| (*left).clone()).collect();
            all.rotate_left(turn);
            let decides = untried("b1", "u", Some("v1"), &all).unwrap();
            assert_eq!(decides.job, job, "{all:?}");
            let found = Found { untried: Some(decides), ..here.clone() };
            let refused = matches!(need(&order(true, false), &found), Need::Refused(_));
            assert_eq!(refused, job != "c", "{all:?}");
        }
    }
}

/// An image that no boot has tried is written over by none, whatever the node runs and the image is: the
/// agent would make it the fallback. Rows: what is asked for, what the node runs and what the image is; what
/// follows where v2 is written, and where nothing is.
#[test]
fn no_second_image_is_written_in_one_boot_unless_it_is_forced() {
    let (active, recovery, both) = (order(true, false), order(false, true), order(true, true));
    let force = UpgradeOrder { force: true, ..order(true, false) };
    for (order, host, image, written, free) in [
        (&active, Some("v1"), Some("v2"), "but a reboot", "upgrade"),
        (&active, Some("v1"), Some("v3"), "would leave none that it ever booted", "upgrade"),
        (&active, Some("v1"), None, "would leave none that it ever booted", "upgrade"),
        (&active, None, Some("v3"), "would leave none that it ever booted", "upgrade"),
        (&active, Some("v1"), Some("v1"), "only until its next boot", "nothing"),
        (&active, Some("v2"), Some("v2"), "nothing", "nothing"),
        (&active, Some("v1.5.0"), Some("v1.4.0"), "would leave none that it ever booted", "older than"),
        (&both, Some("v1"), Some("v3"), "would leave none that it ever booted", "upgrade"),
        (&recovery, Some("v1"), Some("v3"), "upgrade", "upgrade"),
        (&force, Some("v1"), Some("v3"), "upgrade", "upgrade"),
        (&force, Some("v1"), Some("v1"), "upgrade", "upgrade"),
    ] {
        let next = Untried { release: Some("v2".into()), job: "job-0".into() };
        for (untried, expected) in [(Some(next), written), (None, free)] {
            let found = Found { untried, ..found("b1", "active", host, image) };
            let needs = match need(order, &found) {
                Need::Nothing { .. } => "nothing".to_owned(),
                Need::Upgrade(_) => "upgrade".into(),
                Need::Refused(why) => why,
            };
            assert!(needs.contains(expected), "{order:?} {found:?}: {needs}");
            let refused = found.untried.is_some() && needs.contains(' ');
            assert!(
                !refused || needs.contains("Job job-0") && needs.contains("by a NodeOp with rebootOnSuccess"),
                "{needs}"
            );
        }
    }
    // The node has fallen back, and keeps what it runs: the next image may be what helps it.
    let next = Some(Untried { release: Some("v2".into()), job: "job-0".into() });
    for image in ["v2", "v3"] {
        let found = Found { untried: next.clone(), ..found("b1", "passive", Some("v1"), Some(image)) };
        assert!(matches!(need(&active, &found), Need::Upgrade(_)), "{found:?}");
    }
    // What was written nobody knows: it may be anything.
    let unknown = Untried { release: None, job: "job-0".into() };
    for image in [None, Some("v2")] {
        let found = Found { untried: Some(unknown.clone()), ..found("b1", "active", Some("v1"), image) };
        let Need::Refused(why) = need(&active, &found) else { panic!("{found:?}") };
        assert!(
            why.contains("has written another release") && why.contains("Reboot the node first"),
            "{why}"
        );
    }
    let found = Found { untried: Some(unknown), ..found("b1", "active", Some("v1"), Some("v1")) };
    assert!(matches!(need(&active, &found), Need::Refused(why) if why.contains("only until its next boot")));
}

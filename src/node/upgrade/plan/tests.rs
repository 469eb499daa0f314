//! What an upgrade does, by what it finds.

use super::*;
use crate::node::result::Left;

fn order(active: bool, recovery: bool) -> UpgradeOrder {
    UpgradeOrder { active, recovery, ..UpgradeOrder::default() }
}

fn found(boot: &str, state: &str, host: Option<&str>, image: Option<&str>) -> Found {
    Found {
        job_uid: "u".into(),
        boot: boot.into(),
        boot_state: state.into(),
        trusted_boot: false,
        host: release(host),
        image: release(image),
        untried: None,
    }
}

fn release(version: Option<&str>) -> Release {
    let keys = version.iter().map(|version| ("KAIROS_VERSION".to_owned(), (*version).to_owned()));
    Release { kairos: true, version: version.map(str::to_owned), keys: keys.collect() }
}

fn lines(order: &UpgradeOrder, exclude: &[&str]) -> Vec<String> {
    let exclude: Vec<_> = exclude.iter().map(|path| (*path).to_owned()).collect();
    commands(order, &exclude).iter().map(|args| args.join(" ")).collect()
}

#[test]
fn the_partitions_asked_for_recovery_first() {
    assert_eq!(lines(&order(true, false), &[]), ["upgrade --source dir:/"]);
    assert_eq!(lines(&order(false, true), &[]), ["upgrade --recovery --source dir:/"]);
    assert_eq!(
        lines(&order(true, true), &[]),
        ["upgrade --recovery --source dir:/", "upgrade --source dir:/"]
    );
    assert_eq!(lines(&order(false, false), &[]), [""; 0]);
}

#[test]
fn debug_comes_first_and_excluded_paths_are_arguments_of_every_run() {
    let debug = UpgradeOrder { debug: true, force: true, ..order(true, true) };
    let tail = "--source dir:/ --exclude-path /etc/hosts --exclude-path /a 'b'";
    let expected = [format!("--debug upgrade --recovery {tail}"), format!("--debug upgrade {tail}")];
    assert_eq!(lines(&debug, &["/etc/hosts", "/a 'b'"]), expected);
    assert_eq!(commands(&order(true, false), &["-x $(y)".into()])[0][3..], ["--exclude-path", "-x $(y)"]);
}

#[test]
fn only_two_known_and_equal_releases_are_up_to_date() {
    let force = UpgradeOrder { force: true, ..order(true, false) };
    for (order, host, image, expected) in [
        (order(true, false), Some("a"), Some("a"), true),
        (order(true, true), Some("a"), Some("a"), true),
        (order(true, false), Some("a"), Some("b"), false),
        (order(true, false), None, None, false),
        (order(true, false), Some("a"), None, false),
        (order(true, false), None, Some("a"), false),
        (order(false, true), Some("a"), Some("a"), false),
        (force, Some("a"), Some("a"), false),
    ] {
        assert_eq!(
            already_at(&order, &release(host), &release(image)).is_some(),
            expected,
            "{order:?} {host:?} {image:?}"
        );
    }
}

/// The same release may be the fallback, and the active image is the one that did not boot.
#[test]
fn a_node_is_at_its_release_only_where_it_has_booted_its_active_image() {
    let force = UpgradeOrder { force: true, ..order(true, false) };
    for (state, expected) in [
        ("active", "nothing"),
        ("unknown", "nothing"),
        ("in-ram", "nothing"),
        ("passive", "upgrade"),
        ("recovery", "upgrade"),
        ("livecd", "refused"),
        ("autoreset", "refused"),
    ] {
        let needs = |order: &UpgradeOrder| match need(order, &found("b1", state, Some("a"), Some("a"))) {
            Need::Nothing { .. } => "nothing",
            Need::Upgrade => "upgrade",
            Need::Refused(_) => "refused",
        };
        assert_eq!(needs(&order(true, false)), expected, "{state}");
        assert_ne!(needs(&force), "nothing", "{state}");
    }
}

#[test]
fn another_build_of_the_same_release_is_not_that_release() {
    let built = |flavour: &str, carries: &str| {
        let mut release = release(Some("v3.5.0-k3sv1.33.5"));
        release.keys.insert("KAIROS_FLAVOR_RELEASE".into(), flavour.into());
        release.keys.insert("KAIROS_SOFTWARE_VERSION_PREFIX".into(), "k3s".into());
        release.keys.insert("KAIROS_SOFTWARE_VERSION".into(), carries.into());
        release
    };
    let of = |host: &Release, image: &Release| Found {
        host: host.clone(),
        image: image.clone(),
        ..found("b1", "active", None, None)
    };
    let needs = |host: &Release, image: &Release| need(&order(true, false), &of(host, image));
    let here = built("22.04", "v1.33.5");
    assert!(matches!(needs(&here, &here), Need::Nothing { .. }));
    assert_eq!(needs(&here, &built("24.04", "v1.33.5")), Need::Upgrade);
    let newer = Release { version: Some("v3.6.0-k3sv1.31.5".into()), ..built("22.04", "v1.31.5") };
    let Need::Refused(why) = needs(&here, &newer) else { panic!("Kubernetes goes back") };
    assert!(why.contains("k3sv1.31.5") && why.ends_with("set force: true to go back"), "{why}");
    let force = UpgradeOrder { force: true, ..order(true, false) };
    assert_eq!(need(&force, &of(&here, &newer)), Need::Upgrade);
}

#[test]
fn an_older_release_is_refused_unless_it_is_wanted() {
    let force = UpgradeOrder { force: true, ..order(true, false) };
    for (order, host, image, refused) in [
        (order(true, false), Some("v3.5.0"), Some("v3.4.2"), true),
        (order(true, true), Some("v3.5.0"), Some("v3.4.2"), true),
        (order(true, false), Some("v3.5.1-rc1"), Some("v3.5.0"), true),
        (order(true, false), Some("v3.10"), Some("v3.9"), true),
        (order(true, false), Some("v3.9"), Some("v3.10"), false),
        (order(true, false), Some("v3.5.0"), Some("v3.5.1-rc1"), false),
        (order(true, false), Some("v3.5.0"), Some("of-ours"), false),
        (order(true, false), Some("v3.5.0"), None, false),
        (order(true, false), None, Some("v3.4.2"), false),
        (order(false, true), Some("v3.5.0"), Some("v3.4.2"), false),
        (force, Some("v3.5.0"), Some("v3.4.2"), false),
    ] {
        let found = found("b1", "active", host, image);
        match verdict(&order, &found, None) {
            Verdict::Refuse(why) => {
                assert!(refused, "{found:?}");
                let message =
                    format!("older than what the node runs ({}); set force: true to go back", host.unwrap());
                assert!(why.contains(image.unwrap()) && why.ends_with(&message), "{why}");
            }
            other => assert!(!refused && other == Verdict::Run, "{found:?}: {other:?}"),
        }
    }
    let left =
        |state| result(&order(true, false), &found("b1", "active", Some("v3.4.2"), Some("v3.5.0")), state);
    let again = found("b1", "active", Some("v3.6.0"), Some("v3.5.0"));
    let next = |state| verdict(&order(true, false), &again, Some(&left(state)));
    assert!(matches!(next(UpgradeState::Failed), Verdict::Refuse(_)), "a retry is no way around it");
    assert!(matches!(next(UpgradeState::Upgraded), Verdict::Settled(_)), "what was done is done");
}

/// Rows: what was left, in which boot and state the node is now, what it runs; then what follows.
#[test]
fn a_retry_goes_by_what_was_left() {
    let upgrade = order(true, false);
    let before = found("b1", "active", Some("old"), Some("new"));
    let left = |state| result(&upgrade, &before, state);
    let refused = |verdict: Verdict| matches!(verdict, Verdict::Refuse(_));
    let now = |boot: &str, state: &str, host: &str| found(boot, state, Some(host), Some("new"));
    let next = |found: &Found, state| verdict(&upgrade, found, Some(&left(state)));

    assert_eq!(verdict(&upgrade, &before, None), Verdict::Run);
    assert_eq!(next(&before, UpgradeState::Failed), Verdict::Run);
    assert_eq!(
        next(&now("b2", "active", "new"), UpgradeState::Upgraded),
        Verdict::Settled(left(UpgradeState::Upgraded)),
        "keeps its boot"
    );
    assert_eq!(
        next(&now("b1", "active", "old"), UpgradeState::Upgraded),
        Verdict::Settled(left(UpgradeState::Upgraded))
    );
    assert!(refused(next(&before, UpgradeState::Started)), "in the same boot");
    let done = Verdict::Settled(left(UpgradeState::Upgraded));
    assert_eq!(
        next(&now("b2", "active", "new"), UpgradeState::Started),
        done,
        "the agent rebooted the node itself"
    );
    assert!(
        refused(next(&now("b2", "active", "old"), UpgradeState::Started)),
        "nothing shows that it was done"
    );
    assert!(
        refused(next(&now("b2", "passive", "new"), UpgradeState::Started)),
        "runs it, but from the fallback"
    );
    assert!(refused(next(&found("b2", "active", None, Some("new")), UpgradeState::Started)), "unknown");
}

#[test]
fn what_ran_before_proves_nothing_and_neither_does_recovery() {
    let same = found("b1", "active", Some("new"), Some("new"));
    let force = UpgradeOrder { force: true, ..order(true, false) };
    let later = Found { boot: "b2".into(), ..same.clone() };
    let left = result(&force, &same, UpgradeState::Started);
    assert!(matches!(verdict(&force, &later, Some(&left)), Verdict::Refuse(_)));
    let passive = Found { boot_state: "passive".into(), ..same.clone() };
    let left = result(&force, &passive, UpgradeState::Started);
    assert!(
        matches!(verdict(&force, &later, Some(&left)), Verdict::Settled(_)),
        "it was the fallback that ran it before"
    );
    let left = result(&order(false, true), &same, UpgradeState::Started);
    assert!(matches!(verdict(&order(false, true), &later, Some(&left)), Verdict::Refuse(_)));
}

/// What another Job has left is no try of this one; but what its agent has written in this boot nobody has
/// booted.
#[test]
fn a_result_of_another_job_is_no_try_and_its_image_is_written_over_by_none() {
    for state in [UpgradeState::Started, UpgradeState::Upgraded] {
        for boot in ["b0", "b1"] {
            let here = found("b1", "active", Some("old"), Some("new"));
            let left = UpgradeResult {
                job_uid: "other".into(),
                boot: boot.into(),
                ..result(&order(true, false), &here, state)
            };
            let untried = untried("b1", "u", Some("new"), &[by("job-0", left.clone())]);
            let verdict = verdict(&order(true, false), &Found { untried, ..here }, Some(&left));
            assert_eq!(matches!(verdict, Verdict::Refuse(_)), boot == "b1", "{state:?} {boot}: {verdict:?}");
            assert!(boot == "b1" || verdict == Verdict::Run, "{verdict:?}");
        }
    }
}

fn by(job: &str, result: UpgradeResult) -> Left {
    Left { job: job.into(), result }
}

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
                Need::Upgrade => "upgrade".into(),
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
        assert!(matches!(need(&active, &found), Need::Upgrade), "{found:?}");
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

/// No agent upgrades it from here, and which entry it has booted only the firmware tells.
#[test]
fn a_node_with_trusted_boot_is_refused_unless_it_has_booted_the_release_as_its_active_one() {
    let force = UpgradeOrder { force: true, ..order(true, false) };
    for (order, state, host, refused) in [
        (&order(true, false), "active", "v1", true),
        (&order(true, false), "active", "v2", false),
        (&order(true, false), "passive", "v2", true),
        (&order(true, false), "recovery", "v2", true),
        (&order(true, false), "unknown", "v2", true),
        (&force, "active", "v2", true),
        (&order(false, true), "active", "v2", true),
    ] {
        let found = Found { trusted_boot: true, ..found("b1", state, Some(host), Some("v2")) };
        match need(order, &found) {
            Need::Refused(why) => assert!(refused && why.contains("Trusted Boot"), "{found:?}: {why}"),
            other => assert_eq!((refused, other), (false, Need::Nothing { release: "v2".into() })),
        }
    }
}

/// What the node has booted tells more: there is nothing to be written there.
#[test]
fn a_node_on_which_nothing_is_to_be_written_says_so_first() {
    let untried = Some(Untried { release: Some("v2".into()), job: "job-0".into() });
    let found = Found { untried, ..found("b1", "livecd", Some("v1"), Some("v3")) };
    assert!(matches!(need(&order(true, false), &found), Need::Refused(why) if why.contains("live media")));
}

//! What an upgrade does, by what it finds.

mod written;

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

fn by(job: &str, result: UpgradeResult) -> Left {
    Left { job: job.into(), result }
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

/// Its release may be that of the fallback as well, and the active image is the one that did not boot.
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
            Need::Upgrade(_) => "upgrade",
            Need::Refused(_) => "refused",
        };
        assert_eq!(needs(&order(true, false)), expected, "{state}");
        assert_ne!(needs(&force), "nothing", "{state}");
    }
}

/// Of the recovery image nobody knows the release, whatever the active one is. Rows: what is asked for, the
/// boot state, what the node runs for an image of `a`, and what is written.
#[test]
fn a_recovery_image_that_is_asked_for_is_written_also_where_the_active_one_is_at_the_release() {
    let force = UpgradeOrder { force: true, ..order(true, true) };
    for (asked, state, host, written) in [
        (order(true, true), "active", "a", order(false, true)),
        (order(true, true), "active", "b", order(true, true)),
        (order(true, true), "passive", "a", order(true, true)),
        (order(false, true), "active", "a", order(false, true)),
        (force.clone(), "active", "a", force),
    ] {
        let found = found("b1", state, Some(host), Some("a"));
        assert_eq!(need(&asked, &found), Need::Upgrade(written.clone()), "{asked:?} {state} {host}");
        assert_eq!(verdict(&asked, &found, None), Verdict::Run(written.clone()));
        // A try that failed is made again, for the same images.
        let failed = result(&written, &found, UpgradeState::Failed);
        assert_eq!(verdict(&asked, &found, Some(&failed)), Verdict::Run(written));
    }
    let found = Found { trusted_boot: true, ..found("b1", "active", Some("a"), Some("a")) };
    assert!(matches!(need(&order(true, true), &found), Need::Refused(why) if why.contains("Trusted Boot")));
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
    assert_eq!(needs(&here, &built("24.04", "v1.33.5")), Need::Upgrade(order(true, false)));
    let newer = Release { version: Some("v3.6.0-k3sv1.31.5".into()), ..built("22.04", "v1.31.5") };
    let Need::Refused(why) = needs(&here, &newer) else { panic!("Kubernetes goes back") };
    assert!(why.contains("k3sv1.31.5") && why.ends_with("set force: true to go back"), "{why}");
    let force = UpgradeOrder { force: true, ..order(true, false) };
    assert_eq!(need(&force, &of(&here, &newer)), Need::Upgrade(force));
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
        (order(false, true), Some("v3.5.0"), Some("v3.4.2"), true),
        (UpgradeOrder { force: true, ..order(false, true) }, Some("v3.5.0"), Some("v3.4.2"), false),
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
            other => assert!(!refused && other == Verdict::Run(order), "{found:?}: {other:?}"),
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

    assert_eq!(verdict(&upgrade, &before, None), Verdict::Run(upgrade.clone()));
    assert_eq!(next(&before, UpgradeState::Failed), Verdict::Run(upgrade.clone()));
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
            assert!(boot == "b1" || verdict == Verdict::Run(order(true, false)), "{verdict:?}");
        }
    }
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

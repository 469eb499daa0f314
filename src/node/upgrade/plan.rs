//! What the wrapper does, as functions of what it found: whether to run the agent, and with which arguments.

use std::cmp::Ordering;

use crate::{
    contract::{UpgradeOrder, UpgradeResult, UpgradeState, boot_state},
    node::{os_release::Release, version},
};

/// What the wrapper finds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub job_uid: String,
    /// The boot that the node is in, and its state.
    pub boot: String,
    pub boot_state: String,
    /// The release that the node runs.
    pub host: Release,
    /// The release of the image.
    pub image: Release,
    /// See [`boots_next`].
    pub boots_next: Option<String>,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run the agent.
    Run,
    /// Nothing to do: record this and end well.
    Settled(UpgradeResult),
    /// Nothing can be done, on this try or any other of this Job.
    Refuse(String),
}

/// What to do, given what an earlier pod of the same Job left.
pub fn verdict(order: &UpgradeOrder, found: &Found, previous: Option<&UpgradeResult>) -> Verdict {
    let previous = previous.filter(|result| result.job_uid == found.job_uid);
    match previous {
        None => fresh(order, found),
        Some(UpgradeResult { state: UpgradeState::UpToDate | UpgradeState::Failed, .. }) => {
            fresh(order, found)
        }
        Some(done @ UpgradeResult { state: UpgradeState::Upgraded, .. }) => Verdict::Settled(done.clone()),
        Some(started @ UpgradeResult { state: UpgradeState::Started, .. }) => interrupted(found, started),
    }
}

fn fresh(order: &UpgradeOrder, found: &Found) -> Verdict {
    let Found { boot_state, host, image, boots_next, .. } = found;
    match need(order, (host, boot_state, boots_next.as_deref()), image) {
        Need::Nothing { .. } => Verdict::Settled(result(order, found, UpgradeState::UpToDate)),
        Need::Refused(why) => Verdict::Refuse(why),
        Need::Upgrade => Verdict::Run,
    }
}

/// What a node needs for which no try of this Job has been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is at this release already.
    Nothing {
        release: String,
    },
    /// The upgrade must not be made.
    Refused(String),
    Upgrade,
}

/// What the node needs that runs this release, in this boot state, and boots that one next, to be at the
/// image's. The preflight and the wrapper decide by it, each in its own moment.
pub fn need(
    order: &UpgradeOrder,
    (host, boot_state, boots_next): (&Release, &str, Option<&str>),
    image: &Release,
) -> Need {
    match (already_at(order, host, image), boots_next) {
        (Some(release), Some(next)) if next != release => Need::Refused(runs_until_its_boot(release, next)),
        (Some(release), _) => Need::Nothing { release: release.to_owned() },
        (None, _) => {
            in_memory(boot_state).or_else(|| too_old(order, host, image)).map_or(Need::Upgrade, Need::Refused)
        }
    }
}

/// Why the node is refused, if its system was loaded into memory: the next boot loads it again, and what an
/// agent would write is on nobody's way.
fn in_memory(boot_state: &str) -> Option<String> {
    (boot_state == boot_state::IN_RAM).then(|| {
        "the node runs from memory (kairos.ram), and there is nothing installed to upgrade; change the image that it boots from"
            .into()
    })
}

/// The release, if the node runs it already and nobody wants it written all the same. Two unknowns are not
/// equal, and the release of the active partition says nothing about the recovery partition.
fn already_at<'a>(order: &UpgradeOrder, host: &'a Release, image: &Release) -> Option<&'a str> {
    host.version.as_deref().filter(|host| compares(order) && Some(*host) == image.version.as_deref())
}

/// The release that the node boots next, if an agent was run for another Job in this boot and may have made its
/// image the active one: that Job failed afterwards, or nobody wanted a reboot.
pub fn boots_next(boot: &str, job_uid: Option<&str>, left: &[UpgradeResult]) -> Option<String> {
    let written = |result: &&UpgradeResult| {
        let ran = matches!(result.state, UpgradeState::Started | UpgradeState::Upgraded);
        ran && result.active && result.boot == boot && Some(result.job_uid.as_str()) != job_uid
    };
    let unnamed = || "another release".to_owned();
    left.iter().find(written).map(|result| result.target.clone().unwrap_or_else(unnamed))
}

/// Why a node that runs the release already is not said to be at it.
pub fn runs_until_its_boot(release: &str, next: &str) -> String {
    format!(
        "the node runs {release} only until its next boot: an earlier upgrade has written {next} and did not end well, or without a reboot. \
         Reboot the node first, or set force: true to have {release} written again"
    )
}

/// Why the image is refused, if its release is older than what the node runs and nobody wants to go back.
/// Where the two have no order, it is not: see [`version`].
fn too_old(order: &UpgradeOrder, host: &Release, image: &Release) -> Option<String> {
    if !compares(order) || version::compare(&image.keys, &host.keys) != Some(Ordering::Less) {
        return None;
    }
    let (host, image) = (host.version.as_deref()?, image.version.as_deref()?);
    Some(format!(
        "the image's release {image} is older than what the node runs ({host}); set force: true to go back"
    ))
}

/// Whether releases are compared at all. `force` is without version checks.
fn compares(order: &UpgradeOrder) -> bool {
    order.active && !order.force
}

/// An agent was started and nobody knows how it ended, unless the node runs its work: a cloud-config may have
/// the agent itself reboot the node. In the same boot there is no such proof, and the agent may have got as
/// far as making the new image the active one; another run would then make it the fallback too.
fn interrupted(found: &Found, started: &UpgradeResult) -> Verdict {
    if started.boot == found.boot {
        return refuse(
            "an earlier try was interrupted while kairos-agent ran; look at the node before trying again",
        );
    }
    let runs = &found.host.version;
    let runs_target = runs.is_some() && *runs == started.target && found.boot_state == boot_state::ACTIVE;
    let ran_before = started.before == started.target && started.before_state == boot_state::ACTIVE;
    if started.active && runs_target && !ran_before {
        return Verdict::Settled(UpgradeResult { state: UpgradeState::Upgraded, ..started.clone() });
    }
    refuse(
        "the node rebooted while kairos-agent ran, and does not show that it was done; look at the node before trying again",
    )
}

fn refuse(why: &str) -> Verdict {
    Verdict::Refuse(why.into())
}

/// The record of a state.
pub fn result(order: &UpgradeOrder, found: &Found, state: UpgradeState) -> UpgradeResult {
    UpgradeResult {
        job_uid: found.job_uid.clone(),
        state,
        boot: found.boot.clone(),
        active: order.active,
        before: found.host.version.clone(),
        before_state: found.boot_state.clone(),
        target: found.image.version.clone(),
        recovery_at: None,
    }
}

/// The agent's runs, as arguments: recovery first, so that the partition to fall back on is new before the
/// risk is taken.
pub fn commands(order: &UpgradeOrder, exclude: &[String]) -> Vec<Vec<String>> {
    let run = |recovery: bool| {
        let mut args: Vec<String> = Vec::new();
        // A global flag, and so before the subcommand.
        args.extend(order.debug.then(|| "--debug".into()));
        args.push("upgrade".into());
        args.extend(recovery.then(|| "--recovery".into()));
        args.extend(["--source".into(), "dir:/".into()]);
        args.extend(exclude.iter().flat_map(|path| ["--exclude-path".to_owned(), path.clone()]));
        args
    };
    let runs = [(order.recovery, true), (order.active, false)];
    runs.into_iter().filter(|(asked, _)| *asked).map(|(_, recovery)| run(recovery)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(active: bool, recovery: bool) -> UpgradeOrder {
        UpgradeOrder { active, recovery, ..UpgradeOrder::default() }
    }

    fn found(boot: &str, state: &str, host: Option<&str>, image: Option<&str>) -> Found {
        Found {
            job_uid: "u".into(),
            boot: boot.into(),
            boot_state: state.into(),
            host: release(host),
            image: release(image),
            boots_next: None,
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
                    let message = format!(
                        "older than what the node runs ({}); set force: true to go back",
                        host.unwrap()
                    );
                    assert!(why.contains(image.unwrap()) && why.ends_with(&message), "{why}");
                }
                other => assert!(!refused && other == Verdict::Run, "{found:?}: {other:?}"),
            }
        }
        let left = |state| {
            result(&order(true, false), &found("b1", "active", Some("v3.4.2"), Some("v3.5.0")), state)
        };
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

    #[test]
    fn a_result_of_another_job_is_none() {
        let found = found("b1", "active", Some("old"), Some("new"));
        for state in [UpgradeState::Started, UpgradeState::Upgraded] {
            let left =
                UpgradeResult { job_uid: "other".into(), ..result(&order(true, false), &found, state) };
            assert_eq!(verdict(&order(true, false), &found, Some(&left)), Verdict::Run);
        }
    }

    /// What an agent has written in this boot is what the node boots next, whatever it runs.
    #[test]
    fn a_node_that_boots_something_else_next_is_not_at_the_release_that_it_runs() {
        let here = found("b1", "active", Some("v1"), Some("v1"));
        let left = |state, active, boot: &str| UpgradeResult {
            job_uid: "other".into(),
            active,
            boot: boot.into(),
            target: Some("v2".into()),
            ..result(&order(true, false), &here, state)
        };
        for (state, active, boot, next) in [
            (UpgradeState::Upgraded, true, "b1", Some("v2")),
            (UpgradeState::Started, true, "b1", Some("v2")),
            (UpgradeState::Failed, true, "b1", None),
            (UpgradeState::Upgraded, false, "b1", None),
            (UpgradeState::Upgraded, true, "b0", None),
        ] {
            let left = [left(state, active, boot)];
            assert_eq!(boots_next("b1", Some("u"), &left).as_deref(), next, "{state:?} {active} {boot}");
            assert_eq!(boots_next("b1", Some("other"), &left), None, "it is its own");
            let boots_next = boots_next("b1", None, &left);
            let found = Found { boots_next, ..here.clone() };
            let refused = matches!(verdict(&order(true, false), &found, None), Verdict::Refuse(_));
            assert_eq!(refused, next.is_some());
            let force = UpgradeOrder { force: true, ..order(true, false) };
            assert_eq!(verdict(&force, &found, None), Verdict::Run);
        }
        let same = Found { boots_next: Some("v1".into()), ..here };
        assert!(matches!(verdict(&order(true, false), &same, None), Verdict::Settled(_)));
    }
}

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
    let at = already_at(order, host, image).filter(|_| !boots_something_else(boot_state));
    match (at, boots_next) {
        (Some(release), Some(next)) if next != release => Need::Refused(runs_until_its_boot(release, next)),
        (Some(release), _) => Need::Nothing { release: release.to_owned() },
        (None, _) => unfit(boot_state)
            .or_else(|| too_old(order, host, image))
            .or_else(|| kubernetes_goes_back(order, host, image))
            .map_or(Need::Upgrade, Need::Refused),
    }
}

/// Whether the node runs something else than its active image. What that one is nobody knows then: it did not
/// boot, or nobody has tried it.
fn boots_something_else(boot_state: &str) -> bool {
    [boot_state::PASSIVE, boot_state::RECOVERY, boot_state::LIVECD, boot_state::AUTORESET]
        .contains(&boot_state)
}

/// Why the node is refused for what it has booted: what an agent would write is on nobody's way, or is about
/// to be overwritten.
fn unfit(boot_state: &str) -> Option<String> {
    let why = match boot_state {
        // The next boot loads it again.
        boot_state::IN_RAM => {
            "the node runs from memory (kairos.ram), and there is nothing installed to upgrade; change the image that it boots from"
        }
        boot_state::LIVECD => {
            "the node runs from live media, and there is nothing installed to upgrade; install it first"
        }
        boot_state::AUTORESET => {
            "the node has booted to reset itself; wait until that is done, then create the upgrade again"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

/// The release, if the node runs it already and nobody wants it written all the same. Two unknowns are not
/// equal, and the release of the active partition says nothing about the recovery partition. Images of one
/// release are built for several distributions and models, which are no less different for it.
fn already_at<'a>(order: &UpgradeOrder, host: &'a Release, image: &Release) -> Option<&'a str> {
    let same = compares(order) && host.version == image.version;
    host.version.as_deref().filter(|_| same && version::of_one_build(&host.keys, &image.keys))
}

/// The release that the node boots next, if an agent was run for another Job in this boot and may have made
/// its image the active one: that Job failed afterwards, or nobody wanted a reboot.
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

/// Why the image is refused, if the Kubernetes that it carries is of an older minor version than the node's,
/// however new its Kairos is: a Kubernetes that goes back does not read what the newer one has written, and a
/// kubelet must be no newer than the API servers.
fn kubernetes_goes_back(order: &UpgradeOrder, host: &Release, image: &Release) -> Option<String> {
    let (older, newer) = version::older_kubernetes(&image.keys, &host.keys).filter(|_| compares(order))?;
    Some(format!(
        "the image carries {older}, an older minor version of Kubernetes than what the node runs ({newer}); set force: true to go back"
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
mod tests;

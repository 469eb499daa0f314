//! What the wrapper does, as functions of what it found: whether to run the agent, and with which arguments.

mod written;

use std::cmp::Ordering;

pub use self::written::{Untried, untried};
use crate::{
    contract::{BadEnd, UpgradeOrder, UpgradeResult, UpgradeState, boot_state},
    node::{os_release::Release, version},
};

/// What the wrapper, or the preflight, finds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Empty in a preflight, which is of no Job.
    pub job_uid: String,
    /// The boot that the node is in, and its state.
    pub boot: String,
    pub boot_state: String,
    /// Whether that is a unified kernel image.
    pub trusted_boot: bool,
    /// The release that the node runs.
    pub host: Release,
    /// The release of the image.
    pub image: Release,
    /// See [`untried`].
    pub untried: Option<Untried>,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run the agent for these images.
    Run(UpgradeOrder),
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
    match need(order, found) {
        Need::Nothing { .. } => Verdict::Settled(result(order, found, UpgradeState::UpToDate)),
        Need::Refused(why) => Verdict::Refuse(why),
        Need::Upgrade(images) => Verdict::Run(images),
    }
}

/// What a node needs for which no try of this Job has been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is at this release already.
    Nothing { release: String },
    /// The upgrade must not be made.
    Refused(String),
    /// The order, without the image that the node has already.
    Upgrade(UpgradeOrder),
}

/// What the node needs to be at the image's release. The preflight and the wrapper decide by it, each in its
/// own moment.
///
/// A node whose active image is at the release still needs the recovery image that was asked for, of which
/// nothing tells the release. That one is then written alone: the active image, written again, would need a
/// reboot for nothing, and make the fallback the same release as the active one.
pub fn need(order: &UpgradeOrder, found: &Found) -> Need {
    let Found { job_uid: _, boot: _, boot_state, trusted_boot, host, image, untried } = found;
    let at = already_at(order, host, image).filter(|_| !boots_something_else(boot_state));
    // Where only the firmware tells what was booted, silence is not the active image.
    let at = at.filter(|_| !trusted_boot || boot_state == boot_state::ACTIVE);
    // Nothing but the active image is at stake, and whoever sets `force` has been told. A node that runs from
    // its fallback keeps that, however many images are written, and may need another one than the last.
    let at_stake = compares(order) && boot_state != boot_state::PASSIVE;
    match (at, untried.as_ref().filter(|_| at_stake)) {
        (Some(release), Some(next)) if next.release.as_deref() != Some(release) => {
            Need::Refused(next.until_then(release))
        }
        (Some(release), _) if !order.recovery => Need::Nothing { release: release.to_owned() },
        (Some(_), _) => {
            let recovery = UpgradeOrder { active: false, ..order.clone() };
            unfit(boot_state, *trusted_boot).map_or(Need::Upgrade(recovery), Need::Refused)
        }
        (None, untried) => unfit(boot_state, *trusted_boot)
            .or_else(|| untried.map(|next| next.first(image.version.as_deref())))
            .or_else(|| too_old(order, host, image))
            .or_else(|| kubernetes_goes_back(order, host, image))
            .map_or_else(|| Need::Upgrade(order.clone()), Need::Refused),
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
fn unfit(boot_state: &str, trusted_boot: bool) -> Option<String> {
    let why = match boot_state {
        // Its agent would write files of the boot loader, and nothing could prove what was booted afterwards.
        _ if trusted_boot => {
            "the node has Trusted Boot (UKI), and nodes with it are upgraded by a NodeOp; leave it out of nodeSelector"
        }
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

/// Why the image is refused, if its release is older than what the node runs and nobody wants to go back.
/// Where the two have no order, it is not: see [`version`]. It is compared with what the node runs whichever
/// partition it is for: a recovery image that is older than the node cannot be relied on to read its data.
fn too_old(order: &UpgradeOrder, host: &Release, image: &Release) -> Option<String> {
    if order.force || version::compare(&image.keys, &host.keys) != Some(Ordering::Less) {
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
    let (older, newer) = version::older_kubernetes(&image.keys, &host.keys).filter(|_| !order.force)?;
    Some(format!(
        "the image carries {older}, an older minor version of Kubernetes than what the node runs ({newer}); set force: true to go back"
    ))
}

/// Whether the active image is one that is to be written, and is looked at before. `force` is without version
/// checks.
fn compares(order: &UpgradeOrder) -> bool {
    order.active && !order.force
}

/// An agent was started and nobody knows how it ended, unless the node runs its work: it may have rebooted
/// while the agent did. In the same boot there is no such proof, and the agent may have got as far as making
/// the new image the active one; another run would then make it the fallback too.
fn interrupted(found: &Found, started: &UpgradeResult) -> Verdict {
    if started.boot == found.boot {
        return refuse(BadEnd::Interrupted.clause());
    }
    let runs = &found.host.version;
    let runs_target = runs.is_some() && *runs == started.target && found.boot_state == boot_state::ACTIVE;
    let ran_before = started.before == started.target && started.before_state == boot_state::ACTIVE;
    if started.active && runs_target && !ran_before {
        return Verdict::Settled(UpgradeResult { state: UpgradeState::Upgraded, ..started.clone() });
    }
    refuse(BadEnd::CutOff.clause())
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
        not_tried: None,
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

//! Applet `upgrade`, in the Kairos image: runs the image's `kairos-agent` on the host, once. No shell is
//! involved.
//!
//! The agent is not idempotent: each success makes the active image the fallback. A second run without a boot
//! between would make the new and untried image the fallback, so **the agent never runs again after a success
//! in the same boot**, be it for this Job or for another operation, nor after a run of which nobody knows the
//! end; unless `force` is set, in another Job. What was done is in a result file beside the sentinel, written
//! before and after:
//!
//! | after this line, the power fails or the pod is killed | left behind | what a retry of the Job does |
//! |---|---|---|
//! | the lock is taken | nothing (the kernel drops the lock) | the same again |
//! | the releases are known and equal | nothing, or `up-to-date` | compares again: `up-to-date`, no agent; or the recovery image alone, if it is asked for too |
//! | the node is found to be one that no agent upgrades from here: Trusted Boot, from memory, live, about to be reset | nothing | fails permanently |
//! | nobody can tell what the node has booted, nor can the agent, which upgrades no such node | nothing | fails permanently |
//! | an agent of another Job is found to have run in this boot (see `plan::written`) | nothing | fails permanently, unless `force` is set |
//! | the image's release is older than the node's | nothing | fails permanently, unless `force` is set |
//! | mounts are changed | nothing (they go with the container) | the same again |
//! | the node's cloud-config is overruled (see [`cloud_config`]) | an empty directory (what is in it goes with the container) | the same again |
//! | it cannot be, and would have the agent reboot the node, or write another image | nothing | fails permanently |
//! | room for the next record is kept, or the disk has none | nothing of which it goes by | the same again |
//! | `started` is written | `started`, same boot | fails permanently: the agent may have run |
//! | the agent runs | `started`, same boot | fails permanently: "interrupted" |
//! | somebody reboots the node, or the power fails | `started`, another boot | if the host now runs the target in state `active` and did not before: `upgraded`, in that older boot; else fails permanently |
//! | the agent failed | `started` | fails permanently, as nobody knows it any more |
//! | the agent failed, and has replaced the images that the node boots (see [`replaced`]) | `started` | nothing: this try fails permanently itself |
//! | the recovery image is written, and the pod was told to stop | `failed` | runs both agents, as nothing of the active image was begun |
//! | the agent failed, has not, and `failed` is written | `failed` | runs the agent |
//! | the agent succeeded, and the images that the node boots are as they were | `failed` | nothing: this try fails permanently itself |
//! | the agent succeeded | `started` | as for "the agent runs" |
//! | GRUB is told to try the new image, on a node that had not booted its active one (see [`grub`]) | `started` | as for "the agent runs" |
//! | `upgraded` is written | `upgraded` | no agent; the same result with the same boot |
//! | `upgraded` or `failed` cannot be written, in the room that was kept for it or elsewhere | `started` | nothing: this try fails permanently itself, and says how the agent ended and why that is not recorded |
//!
//! A permanent failure ends with [`crate::contract::EXIT_PERMANENT`]. The rows are tested in `plan` (what
//! follows from what was left) and with a real process and an agent that is a script in
//! `tests/it/applets/upgrade.rs`.
//!
//! The lock is the node's, see [`super::lock`], and for whatever runs an operation there: two agents at once
//! would write the same partition. Who cannot have it has done nothing, and says so by
//! [`crate::contract::EXIT_LOCKED`]. The agent does not hold it itself: the wrapper is its container's PID 1,
//! and the kernel ends the agent with it.

pub mod agent;
mod check;
mod cloud_config;
mod grub;
mod image;
pub mod plan;
pub mod replaced;
mod witness;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tracing::warn;

use self::{
    agent::Run,
    check::UsableAgent,
    plan::{Found, Verdict},
};
use super::{
    AppletExit, Permanent, RECORD_TIMEOUT, facts,
    host::{Host, reserve},
    job_name, lock, os_release, result,
    signals::Signals,
    trusted_boot,
};
use crate::contract::{
    self, BadEnd, RecoveryProof, UpToDate, UpgradeOrder, UpgradeResult, UpgradeState, boot_state,
};

/// How long to wait for whatever else runs on the node: as long as an agent gets that is told to end (the
/// grace period of its pod), and the time after which a lock that nobody gave back is free
/// ([`lock::ABANDONED`]).
const LOCK_TIMEOUT: Duration = Duration::from_secs(960);

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    /// Only look whether the upgrade is needed and could work.
    #[arg(long)]
    pub check: bool,
    /// With --check: a node that does not run Kairos is to be skipped, not refused.
    #[arg(long, requires = "check")]
    pub skip_foreign: bool,
    /// Name of the Job.
    #[arg(long, value_parser = job_name, required_unless_present = "check")]
    pub job: Option<String>,
    /// The state directory, below the host's root as this container sees it.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Where the host's root is mounted.
    #[arg(long)]
    pub host_dir: PathBuf,
    /// Upgrade the active partition.
    #[arg(long)]
    pub active: bool,
    /// Upgrade the recovery partition, and before the active one.
    #[arg(long)]
    pub recovery: bool,
    /// Even if the node runs this release already.
    #[arg(long)]
    pub force: bool,
    /// Have the agent say more.
    #[arg(long)]
    pub debug: bool,
    /// What to leave out of the new image, besides what the agent leaves out. May be repeated.
    #[arg(long)]
    pub exclude_path: Vec<String>,
    /// How long to try to write how the agent ended on a disk that does not take it.
    #[arg(long, default_value_t = RECORD_TIMEOUT)]
    pub patience_seconds: u32,
    /// UID of the Job.
    #[arg(long, env = contract::env::JOB_UID)]
    pub job_uid: Option<String>,
}

impl UpgradeArgs {
    /// What is asked for, as the controller said it.
    pub fn order(&self) -> UpgradeOrder {
        UpgradeOrder {
            active: self.active,
            recovery: self.recovery,
            force: self.force,
            debug: self.debug,
            exclude_paths: self.exclude_path.clone(),
        }
    }
}

/// Upgrades the node, or finds that it need not or must not.
pub fn run(args: &UpgradeArgs, host: &Host) -> Result<AppletExit> {
    let order = args.order();
    if !order.active && !order.recovery {
        bail!(Permanent("neither partition is to be upgraded".into()));
    }
    if args.check {
        return check::run(args, &order, host);
    }
    let signals = Signals::listen()?;
    let job = args.job.as_ref().context("--job is missing")?;
    let directory = host.path(&args.state_dir);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("making {}", directory.display()))
        .with_context(not_started)?;
    let _lock = lock::on_node(&host.path(&args.host_dir), LOCK_TIMEOUT, || signals.told_to_stop())
        .context("kairos-agent was not started; the node's lock cannot be taken")?;
    let path = directory.join(contract::result_file(job));
    let job_uid = args.job_uid.as_deref().filter(|uid| !uid.is_empty());
    let job_uid = job_uid.with_context(|| format!("{} is not set", contract::env::JOB_UID))?;
    let found = find(args, host, job_uid)?;
    let left = result::read(&path)?;
    match plan::verdict(&order, &found, left.as_ref()) {
        Verdict::Refuse(why) => bail!(Permanent(why)),
        Verdict::Settled(result) => {
            // What is there already needs no room on a disk that may be full.
            if left.as_ref() != Some(&result) {
                result::write(&path, &result).with_context(|| settled(&result))?;
            }
            Ok(AppletExit::success(settled(&result)))
        }
        Verdict::Run(images) => upgrade(args, &images, host, &found, &path, &signals),
    }
}

/// What is found on the node and in the image; in a preflight, which is of no Job, without a `job_uid`.
fn find(args: &UpgradeArgs, host: &Host, job_uid: &str) -> Result<Found> {
    let (boot, image) = (host.boot_id()?, os_release::of(host.root()));
    let (left, host_dir) = (result::all(&host.path(&args.state_dir)), host.path(&args.host_dir));
    let boot_state = facts::boot_state_of(host);
    // What runs from memory is that first, however it was loaded.
    let trusted_boot = boot_state != boot_state::IN_RAM && trusted_boot::is_booted(host);
    let boot_state = if trusted_boot { trusted_boot::state(&host_dir) } else { boot_state };
    Ok(Found {
        untried: plan::untried(&boot, job_uid, image.version.as_deref(), &left),
        job_uid: job_uid.into(),
        boot,
        boot_state: boot_state.into(),
        trusted_boot,
        host: os_release::of(&host_dir),
        image,
    })
}

/// Everything that may fail for reasons of the image or of the disk comes before `started`, so that such a
/// failure proves nothing ran.
fn upgrade(
    args: &UpgradeArgs,
    order: &UpgradeOrder,
    host: &Host,
    found: &Found,
    path: &Path,
    signals: &Signals,
) -> Result<AppletExit> {
    let UsableAgent { agent, knows_exclude_path } = UsableAgent::find(order, host, found)?;
    let host_dir = host.path(&args.host_dir);
    let mut exclude = image::uncover(host)?;
    if !knows_exclude_path {
        exclude.clear();
    }
    exclude.extend(order.exclude_paths.iter().cloned());
    image::show_host(host, &host_dir)?;
    let overruled = cloud_config::overrule(order, host, &host_dir)?;
    if signals.told_to_stop() {
        return Ok(AppletExit::failure("told to stop before kairos-agent was started"));
    }
    let (state, patience) =
        (|state| plan::result(order, found, state), Duration::from_secs(args.patience_seconds.into()));
    reserve::keep(path).with_context(not_started)?;
    result::write(path, &state(UpgradeState::Started)).with_context(not_started)?;
    // A boot proves all but an upgrade of the recovery image alone.
    let record = (!order.active).then(|| witness::before(&host_dir));
    // One that writes the recovery image alone puts nothing in the place of what the node has booted.
    let images = order.active.then(|| replaced::look(&host_dir));
    for (number, arguments) in plan::commands(order, &exclude).iter().enumerate() {
        // The pod's time is running out: an agent that begins now would be killed while it writes.
        if number > 0 && signals.told_to_stop() {
            return failed(path, &state(UpgradeState::Failed), TOLD_BETWEEN.into(), patience);
        }
        match agent.run(arguments, &host_dir, signals) {
            Ok(Run::Succeeded) => {}
            Ok(Run::Failed(message))
                if images.as_ref().is_some_and(|seen| seen.is_replaced(&replaced::look(&host_dir))) =>
            {
                // `started` stays: the new image is, or may be, the one that the node boots next.
                bail!(Permanent(format!("{}: {message}", BadEnd::Replaced.clause())))
            }
            Ok(Run::Failed(message)) => return failed(path, &state(UpgradeState::Failed), message, patience),
            // `started` stays: it may have been ended after it made the new image the active one.
            Ok(Run::Killed(message)) => bail!(Permanent(message)),
            Err(error) => bail!(Permanent(format!("{error:#}"))),
        }
    }
    drop(overruled);
    if images.is_some_and(|seen| seen.is_as_it_was(&replaced::look(&host_dir))) {
        // Not another try of this Job's, which would end like this one; but another upgrade may have one.
        failed(path, &state(UpgradeState::Failed), NOT_WRITTEN.into(), patience)?;
        bail!(Permanent(NOT_WRITTEN.into()));
    }
    // A machine of which nobody knows what it has booted has not been seen to fall back.
    let fell_back = [boot_state::PASSIVE, boot_state::RECOVERY].contains(&found.boot_state.as_str());
    let not_tried = (order.active && fell_back)
        .then(|| grub::select_active(host, &host_dir).err())
        .flatten()
        .inspect(|error| warn!("GRUB may boot the fallback again: {error:#}"))
        .map(|error| format!("{error:#}"));
    let recovery_at = record.and_then(|before| before.recorded_since(&host_dir)).map(|at| at.to_string());
    let done = UpgradeResult { recovery_at, not_tried, ..state(UpgradeState::Upgraded) };
    match result::conclude(path, &done, patience) {
        Ok(()) => Ok(AppletExit::success(settled(&done))),
        Err(error) => bail!(Permanent(unrecorded(&error))),
    }
}

/// A reboot would be for nothing, and prove the upgrade where the node runs the same release already.
const NOT_WRITTEN: &str = "kairos-agent ended well, and has not written the active image; its log says what it did instead. \
    The node boots what it ran before";

/// Nothing of the active image was begun.
const TOLD_BETWEEN: &str = "told to stop after the recovery image was written; the active image is as it was";

fn not_started() -> String {
    format!("kairos-agent was not started; {} cannot be used", super::state_directory())
}

/// The agent's own message comes first, whatever becomes of the record. Without one a retry would find
/// `started`, and could only say that nobody knows how the agent ended.
fn failed(path: &Path, result: &UpgradeResult, message: String, patience: Duration) -> Result<AppletExit> {
    match result::conclude(path, result, patience) {
        Ok(()) => Ok(AppletExit::failure(message)),
        Err(error) => bail!(Permanent(format!(
            "{message}; it is not tried again, as that could not be recorded: {error:#}"
        ))),
    }
}

/// A retry would find `started` and call the agent interrupted. That it succeeded is known here and now, and
/// so is why nobody else will know.
fn unrecorded(error: &anyhow::Error) -> String {
    let clause = BadEnd::NotRecorded.clause();
    format!("kairos-agent {clause}: {error:#}. Repair the disk, and reboot the node before another upgrade")
}

/// What is said of a node that runs this release already.
fn up_to_date(release: &str) -> String {
    let found = UpToDate { up_to_date_at: release.to_owned() };
    serde_json::to_string(&found).unwrap_or_else(|_| found.to_string())
}

/// What is said of a result. That nothing had to be done is no boot's to prove, nor is the recovery image
/// alone: so the one is said as a record, and the other if it has a witness.
pub fn settled(result: &UpgradeResult) -> String {
    if let (UpgradeState::Upgraded, false, Some(at)) = (result.state, result.active, &result.recovery_at) {
        let proof = RecoveryProof { recovery_at: at.clone(), target: result.target.clone() };
        if let Ok(record) = serde_json::to_string(&proof) {
            return record;
        }
    }
    let target = result.target.as_deref().unwrap_or("a release that the image does not name");
    match (result.state, result.active) {
        (UpgradeState::UpToDate, _) => up_to_date(target),
        (_, true) => format!("upgraded to {target}"),
        (_, false) => format!("recovery upgraded to {target}"),
    }
}

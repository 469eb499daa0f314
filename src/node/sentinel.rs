//! Applet `sentinel`, the last container of a Job: says that the operation before it succeeded, and in which
//! boot.
//!
//! It runs only if all containers before it exited with 0, and a pod is never carried over a boot, so the
//! boot id that it reads is the one in which the operation succeeded. An upgrade is the exception: a retry
//! finds that the agent is done already, perhaps in an earlier boot, so there the wrapper's result file names
//! the boot.
//!
//! The file comes first and the termination message second: whoever reads the message may rely on the file.
//! Both are the same record, and writing it again is harmless: in the same boot it says the same, and in a
//! later boot the operation has indeed succeeded once more, for which a reboot is due once more.
//!
//! A record that cannot be written must not make the operation run again, which a retry of the Job's pod
//! would do. So the waiter keeps room for it from before the operation begins ([`reserve`]), the write is
//! tried for a while, and then it is given up permanently, with [`contract::EXIT_PERMANENT`] and a message
//! that says what is known here and nowhere else: that the operation succeeded.
//!
//! | what this container finds | what it does | what follows |
//! |---|---|---|
//! | room that is kept, on a disk that is full or not | writes over it, renames it | as ever |
//! | no room kept, and a disk that gets some within half a minute | writes the record | as ever |
//! | a disk that stays full, or takes nothing | nothing; exit 42 | the Job fails at once, with this message; no reboot, no second run |
//! | an upgrade's result that is missing, or says no success | nothing; exit 42 | the same: the agent may have run |
//! | killed before the record with its pod, by the kubelet or a power cut | | the Job's pod is tried again, the operation with it |
//! | not started, or killed alone | | the Job fails at once, and one that runs no command but only this container records the success, in the same boot |

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{
    AppletExit, Permanent, RECORD_TIMEOUT, clock,
    host::{Host, reserve},
    job_name, result,
};
use crate::contract::{self, BadEnd, Sentinel, UpgradeResult, UpgradeState};

/// How many characters of the reason why GRUB may not try an image are told: the record has to fit into a
/// termination message.
const MAX_REASON: usize = 200;

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct SentinelArgs {
    /// The state directory, as this container sees it.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Name of the Job.
    #[arg(long, value_parser = job_name)]
    pub job: String,
    /// The operation was an upgrade: take the boot from its result, and write nothing if it changed nothing.
    #[arg(long)]
    pub upgrade: bool,
    /// The command succeeded in this boot, in a Job that could not record it: record that, in the same boot.
    #[arg(long, conflicts_with = "upgrade")]
    pub succeeded_in: Option<String>,
    /// How long to try to write the sentinel on a disk that does not take it.
    #[arg(long, default_value_t = RECORD_TIMEOUT)]
    pub patience_seconds: u32,
    /// UID of the Job.
    #[arg(long, env = contract::env::JOB_UID)]
    pub job_uid: Option<String>,
}

/// Writes the sentinel, and ends with the same record as its termination message.
///
/// Whatever fails here fails permanently: the operation has succeeded, and a retry of the pod would run it
/// again.
pub fn run(args: &SentinelArgs, host: &Host) -> Result<AppletExit> {
    if let Some(boot) = &args.succeeded_in
        && host.boot_id().is_ok_and(|present| present != *boot)
    {
        bail!(Permanent(format!(
            "the operation succeeded in boot {boot}, which could not be recorded there, and the node has booted \
             since: it is not rebooted again"
        )));
    }
    write(args, host).map_err(|error| {
        let clause = BadEnd::NotRecorded.clause();
        let directory = super::state_directory();
        Permanent(format!("the operation {clause}: {error:#}. Repair {directory}, then reboot the node"))
            .into()
    })
}

fn write(args: &SentinelArgs, host: &Host) -> Result<AppletExit> {
    let directory = host.path(&args.state_dir);
    let job_uid = args
        .job_uid
        .clone()
        .filter(|uid| !uid.is_empty())
        .with_context(|| format!("{} is not set", contract::env::JOB_UID))?;
    let mut sentinel = Sentinel {
        job: args.job.clone(),
        job_uid,
        boot: String::new(),
        time: clock::now(),
        before: None,
        target: None,
        not_tried: None,
    };
    if args.upgrade {
        let path = directory.join(contract::result_file(&args.job));
        let result = result::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        sentinel.boot = boot_of(&result, &sentinel.job_uid)?;
        (sentinel.before, sentinel.target) = (result.before, result.target);
        sentinel.not_tried = result.not_tried.map(|why| why.chars().take(MAX_REASON).collect());
    } else {
        sentinel.boot = host.boot_id()?;
    }
    let json = serde_json::to_string(&sentinel)?;
    let path = directory.join(contract::sentinel_file(&args.job));
    if sentinel.boot.is_empty() {
        reserve::release(&path);
        reserve::release(&directory.join(contract::asked_file(&args.job)));
    } else {
        reserve::write_within(
            Duration::from_secs(args.patience_seconds.into()),
            &path,
            json.as_bytes(),
            0o644,
        )?;
    }
    Ok(AppletExit::success(json))
}

/// The boot in which an upgrade succeeded; empty if no reboot follows from it, as the active partition is
/// what it was.
fn boot_of(result: &UpgradeResult, job_uid: &str) -> Result<String> {
    if result.job_uid != job_uid {
        bail!("the result is of another Job, {}", result.job_uid);
    }
    match result.state {
        UpgradeState::UpToDate => Ok(String::new()),
        UpgradeState::Upgraded if !result.active => Ok(String::new()),
        UpgradeState::Upgraded if result.boot.is_empty() => bail!("the result names no boot"),
        UpgradeState::Upgraded => Ok(result.boot.clone()),
        UpgradeState::Started | UpgradeState::Failed => {
            bail!("the upgrade did not end well: {:?}", result.state)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn node(boot: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        for path in ["/proc/sys/kernel/random", "/sentinel"] {
            fs::create_dir_all(host.path(path)).unwrap();
        }
        fs::write(host.path("/proc/sys/kernel/random/boot_id"), boot).unwrap();
        (root, host)
    }

    fn args(upgrade: bool) -> SentinelArgs {
        SentinelArgs {
            state_dir: contract::SENTINEL_MOUNT.into(),
            job: "j".into(),
            upgrade,
            succeeded_in: None,
            patience_seconds: 0,
            job_uid: Some("u".into()),
        }
    }

    fn result(state: UpgradeState) -> UpgradeResult {
        UpgradeResult {
            job_uid: "u".into(),
            state,
            boot: "old".into(),
            active: true,
            before: None,
            before_state: String::new(),
            target: None,
            recovery_at: None,
            not_tried: None,
        }
    }

    fn written(host: &Host) -> Option<Sentinel> {
        let bytes = fs::read(host.path("/sentinel/j.json")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn it_names_the_boot_that_it_runs_in() {
        let (_root, host) = node("b1\n");
        for _ in 0..2 {
            let ended = run(&args(false), &host).unwrap();
            let sentinel = written(&host).unwrap();
            assert_eq!(
                (sentinel.job.as_str(), sentinel.job_uid.as_str(), sentinel.boot.as_str()),
                ("j", "u", "b1")
            );
            assert_eq!(ended, AppletExit::success(serde_json::to_string(&sentinel).unwrap()));
        }
        assert_eq!(fs::read_dir(host.path("/sentinel")).unwrap().count(), 1);
    }

    #[test]
    fn a_success_that_could_not_be_recorded_is_recorded_in_its_boot_alone() {
        let (_root, host) = node("b1");
        let of = |boot: &str| SentinelArgs { succeeded_in: Some(boot.into()), ..args(false) };
        let error = run(&of("b0"), &host).unwrap_err();
        assert!(is_permanent(&error) && error.to_string().contains("has booted since"), "{error:#}");
        assert_eq!(written(&host), None);
        run(&of("b1"), &host).unwrap();
        assert_eq!(written(&host).unwrap().boot, "b1");
    }

    #[test]
    fn it_does_not_guess_its_job() {
        let (_root, host) = node("b1");
        for job_uid in [None, Some(String::new())] {
            let error = run(&SentinelArgs { job_uid, ..args(false) }, &host).unwrap_err();
            assert!(error.to_string().contains("JOB_UID"), "{error:#}");
        }
        assert_eq!(written(&host), None);
    }

    #[test]
    fn after_an_upgrade_it_names_the_boot_of_the_result() {
        let (_root, host) = node("new");
        let path = host.path("/sentinel/j.upgrade.json");
        assert!(run(&args(true), &host).is_err(), "no result, no sentinel");
        fs::write(path, serde_json::to_string(&result(UpgradeState::Upgraded)).unwrap()).unwrap();
        run(&args(true), &host).unwrap();
        assert_eq!(written(&host).unwrap().boot, "old");
    }

    #[test]
    fn what_changed_nothing_leaves_no_sentinel() {
        let recovery = UpgradeResult { active: false, ..result(UpgradeState::Upgraded) };
        for result in [result(UpgradeState::UpToDate), recovery] {
            let (_root, host) = node("new");
            fs::write(host.path("/sentinel/j.upgrade.json"), serde_json::to_string(&result).unwrap())
                .unwrap();
            let ended = run(&args(true), &host).unwrap();
            assert_eq!(serde_json::from_str::<Sentinel>(&ended.message).unwrap().boot, "");
            assert_eq!(written(&host), None);
        }
    }

    fn is_permanent(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| cause.is::<Permanent>())
    }

    #[test]
    fn whatever_fails_fails_for_good_and_says_that_the_operation_succeeded() {
        type Spoil = fn(&Host);
        let cases: [(bool, &str, Spoil); 4] = [
            (false, "Not a directory", |host| {
                fs::remove_dir(host.path("/sentinel")).unwrap();
                fs::write(host.path("/sentinel"), "").unwrap();
            }),
            (false, "boot_id", |host| fs::remove_file(host.path("/proc/sys/kernel/random/boot_id")).unwrap()),
            (true, "is missing", |_| {}),
            (true, "cannot be read", |host| fs::write(host.path("/sentinel/j.upgrade.json"), "{").unwrap()),
        ];
        for (upgrade, why, spoil) in cases {
            let (_root, host) = node("b1");
            spoil(&host);
            let error = run(&args(upgrade), &host).unwrap_err();
            let message = format!("{error:#}");
            assert!(is_permanent(&error) && message.contains(why), "{message}");
            assert!(message.starts_with("the operation succeeded and is not run again"), "{message}");
        }
        let (_root, host) = node("b1");
        assert!(is_permanent(&run(&SentinelArgs { job_uid: None, ..args(false) }, &host).unwrap_err()));
    }

    #[test]
    fn room_that_is_not_needed_is_given_back() {
        let (_root, host) = node("b1");
        reserve::keep(&host.path("/sentinel/j.json")).unwrap();
        fs::write(
            host.path("/sentinel/j.upgrade.json"),
            serde_json::to_string(&result(UpgradeState::UpToDate)).unwrap(),
        )
        .unwrap();
        run(&args(true), &host).unwrap();
        assert_eq!(fs::read_dir(host.path("/sentinel")).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_or_foreign_result_is_an_error() {
        for state in [UpgradeState::Started, UpgradeState::Failed] {
            assert!(boot_of(&result(state), "u").is_err(), "{state:?}");
        }
        assert!(boot_of(&result(UpgradeState::Upgraded), "another").is_err());
        let nameless = UpgradeResult { boot: String::new(), ..result(UpgradeState::Upgraded) };
        assert!(boot_of(&nameless, "u").is_err());
    }
}

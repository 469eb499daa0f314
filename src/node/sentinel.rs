//! Applet `sentinel`, the last container of a Job: says that the operation before it succeeded, and in which boot.
//!
//! It runs only if all containers before it exited with 0, and a pod is never carried over a boot, so the boot id that it
//! reads is the one in which the operation succeeded. An upgrade is the exception: a retry finds that the agent is done
//! already, perhaps in an earlier boot, so there the wrapper's result file names the boot.
//!
//! The file comes first and the termination message second: whoever reads the message may rely on the file. Both are
//! the same record, and writing it again is harmless: in the same boot it says the same, and in a later boot the
//! operation has indeed succeeded once more, for which a reboot is due once more.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{
    Ended, clock,
    host::{Host, files},
    job_name, result,
};
use crate::contract::{self, Sentinel, UpgradeResult, UpgradeState};

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
    /// UID of the Job.
    #[arg(long, env = contract::env::JOB_UID)]
    pub job_uid: Option<String>,
}

/// Writes the sentinel, and ends with the same record as its last words.
pub fn run(args: &SentinelArgs, host: &Host) -> Result<Ended> {
    let directory = host.path(&args.state_dir);
    let job_uid = args.job_uid.clone().filter(|uid| !uid.is_empty()).with_context(|| format!("{} is not set", contract::env::JOB_UID))?;
    let mut sentinel = Sentinel { job: args.job.clone(), job_uid, boot: String::new(), time: clock::now(), before: None, target: None };
    if args.upgrade {
        let path = directory.join(contract::result_file(&args.job));
        let result = result::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        sentinel.boot = boot_of(&result, &sentinel.job_uid)?;
        (sentinel.before, sentinel.target) = (result.before, result.target);
    } else {
        sentinel.boot = host.boot_id()?;
    }
    let json = serde_json::to_string(&sentinel)?;
    if !sentinel.boot.is_empty() {
        files::write_atomic(&directory.join(contract::sentinel_file(&args.job)), json.as_bytes(), 0o644)?;
    }
    Ok(Ended::well(json))
}

/// The boot in which an upgrade succeeded; empty if no reboot follows from it, as the active partition is what it was.
fn boot_of(result: &UpgradeResult, job_uid: &str) -> Result<String> {
    if result.job_uid != job_uid {
        bail!("the result is of another Job, {}", result.job_uid);
    }
    match result.state {
        UpgradeState::UpToDate => Ok(String::new()),
        UpgradeState::Upgraded if !result.active => Ok(String::new()),
        UpgradeState::Upgraded if result.boot.is_empty() => bail!("the result names no boot"),
        UpgradeState::Upgraded => Ok(result.boot.clone()),
        UpgradeState::Started | UpgradeState::Failed => bail!("the upgrade did not end well: {:?}", result.state),
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
        SentinelArgs { state_dir: contract::SENTINEL_MOUNT.into(), job: "j".into(), upgrade, job_uid: Some("u".into()) }
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
            assert_eq!((sentinel.job.as_str(), sentinel.job_uid.as_str(), sentinel.boot.as_str()), ("j", "u", "b1"));
            assert_eq!(ended, Ended::well(serde_json::to_string(&sentinel).unwrap()));
        }
        assert_eq!(fs::read_dir(host.path("/sentinel")).unwrap().count(), 1);
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
            fs::write(host.path("/sentinel/j.upgrade.json"), serde_json::to_string(&result).unwrap()).unwrap();
            let ended = run(&args(true), &host).unwrap();
            assert_eq!(serde_json::from_str::<Sentinel>(&ended.words).unwrap().boot, "");
            assert_eq!(written(&host), None);
        }
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

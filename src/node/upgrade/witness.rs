//! The node's own record of its upgrades, which Kairos' agent keeps on the persistent partition since v2.29 of
//! its own (`agent/pkg/state`). It is the one witness of an upgrade of the recovery image, which no boot
//! proves; that of the active image is proved by its boot, whatever stands here.
//!
//! A flat YAML file: `last-recovery-upgrade: "2026-11-28T02:00:07Z"`, or `never`. It is read before and after
//! the agent's run: another time than before was written by that run. What is missing, cannot be read or says
//! no time proves nothing, and is no failure.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;

use crate::node::host::mounts::read_in_root;

/// Below the host's root. It may be a link of somebody's, which leads to no file of this container.
const RECORD: &str = "/usr/local/.kairos-state";
/// How large it may be. Real ones have half a kilobyte.
const MAX_RECORD: u64 = 64 * 1024;
const LAST_RECOVERY_UPGRADE: &str = "last-recovery-upgrade";

/// What the record said before the agent ran; `None` if that is not known.
#[derive(Debug)]
pub struct Before(Option<Option<Timestamp>>);

/// Looks at the record before the agent runs.
pub fn before(host_dir: &Path) -> Before {
    Before(look(host_dir))
}

impl Before {
    /// When the recovery image was upgraded, if the record says so now and said something else before.
    pub fn recorded_since(self, host_dir: &Path) -> Option<Timestamp> {
        let (before, after) = (self.0?, look(host_dir)?);
        after.filter(|_| after != before)
    }
}

fn look(host_dir: &Path) -> Option<Option<Timestamp>> {
    last_recovery_upgrade(host_dir).inspect_err(|error| tracing::warn!("no witness: {error:#}")).ok()
}

fn last_recovery_upgrade(host_dir: &Path) -> Result<Option<Timestamp>> {
    let Some(bytes) = read_in_root(host_dir, RECORD, MAX_RECORD)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{RECORD} is not text"))?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix(LAST_RECOVERY_UPGRADE)?.strip_prefix(':'))
        .and_then(time))
}

/// A scalar's time, in quotes of either kind or in none.
fn time(value: &str) -> Option<Timestamp> {
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    quoted.unwrap_or(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A host whose record says this before the agent's run, and that after it; `None`: there is no file.
    fn recorded(before: Option<&str>, after: Option<&str>) -> Option<String> {
        let host = tempfile::tempdir().unwrap();
        let path = host.path().join("usr/local/.kairos-state");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = |text: Option<&str>| match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => drop(fs::remove_file(&path)),
        };
        write(before);
        let seen = super::before(host.path());
        write(after);
        seen.recorded_since(host.path()).map(|at| at.to_string())
    }

    #[test]
    fn another_time_than_before_is_the_runs_own_and_all_else_proves_nothing() {
        let says = |value: &str| {
            format!("first-install: never\nlast-recovery-upgrade: {value}\nlast-reset: never\n")
        };
        let (old, new) = (says("\"2026-07-22T10:00:00Z\""), says("'2026-11-28T02:00:07Z'"));
        let at = Some("2026-11-28T02:00:07Z".to_owned());
        for before in [None, Some(&*old), Some(&*says("never")), Some("a: b\n"), Some("")] {
            assert_eq!(recorded(before, Some(&new)), at, "{before:?}");
        }
        assert_eq!(recorded(Some(&old), Some(&says("2026-11-28T02:00:07Z"))), at, "without quotes");
        let late = format!("x: |\n  last-recovery-upgrade: {}\n", "2026-11-28T02:00:07Z");
        for after in [None, Some(&*old), Some(&*says("never")), Some(&*says("\"soon\"")), Some(&*late)] {
            assert_eq!(recorded(Some(&old), after), None, "{after:?}");
        }
        let large = format!("{old}{}", " ".repeat(1 << 20));
        assert_eq!(recorded(Some(&large), Some(&new)), None, "what it said before is not known");
        assert_eq!(recorded(Some(&old), Some(&format!("{new}{}", " ".repeat(1 << 20)))), None);
    }

    #[test]
    fn neither_a_pipe_nor_a_link_out_of_the_host_is_read() {
        let host = tempfile::tempdir().unwrap();
        let (root, path) = (host.path().join("host"), host.path().join("host/usr/local/.kairos-state"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let secret = host.path().join("secret");
        fs::write(&secret, "last-recovery-upgrade: \"2026-11-28T02:00:07Z\"\n").unwrap();
        let seen = before(&root);
        symlink(&secret, &path).unwrap();
        assert_eq!(seen.recorded_since(&root), None);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(before(&root).recorded_since(&root), None, "and it holds nobody up");
    }
}

//! Has the agent do what it is asked for and no more, whatever the node's cloud-config says.
//!
//! By `upgrade:` a cloud-config has every agent reboot the node when it is done, or power it off (`reboot`,
//! `poweroff`), and write the recovery image in place of the active one (`recovery`, `entry`). Here a waiter
//! reboots the node, if that is asked for and once it is drained, and the order says which image is written.
//!
//! Of what all files say the agent goes by the last, and reads [`LAST`] after its other directories, each by
//! name and with those below it (kairos-sdk, `collector.Scan`; kairos-agent, `GetUserConfigDirs`); what its
//! arguments say comes after that. So while it runs there is a directory of ours, the last by its name, with a
//! file that takes these keys back. On the disk that directory stays empty: the file is in memory, in a mount
//! of this container. Hooks that the agent runs in the new image get the node's partition without it.
//!
//! Agents before 2.15.3 read no file of the node, but those of the image.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tracing::{info, warn};

use crate::{
    contract::UpgradeOrder,
    node::{
        Permanent,
        host::{
            Host,
            mounts::{self, Access, open_in_root, read_in_root},
        },
    },
};

/// Where a node's cloud-config is, in the order in which agents read it.
const DIRECTORIES: [&str; 5] =
    ["/run/initramfs/live", "/etc/kairos", "/etc/elemental", "/usr/local/cloud-config", LAST];
/// Which of them is read last.
const LAST: &str = "/oem";
/// Our directory in it. A tilde comes after all other characters of ASCII.
const OURS: &str = "~kairos-operator";
/// What is in it.
const FILE: &str = "upgrade.yaml";
const TEXT: &str =
    "#cloud-config\nupgrade:\n  reboot: false\n  poweroff: false\n  recovery: false\n  entry: \"\"\n";

/// With what a cloud-config begins, in one of its first lines.
const HEADERS: [&str; 3] = ["#cloud-config", "#kairos-config", "#node-config"];
/// How many lines those are.
const FIRST: usize = 10;
/// Bytes of a file that an agent reads, about; it passes over larger ones.
const MAX_FILE: u64 = 2 << 20;

/// The node's cloud-config is overruled until this is dropped.
#[derive(Debug)]
pub struct Overruled {
    directory: PathBuf,
    in_memory: bool,
}

/// Overrules the node's cloud-config. Where that cannot be done, the upgrade is refused if there is something
/// to overrule.
pub fn overrule(order: &UpgradeOrder, host: &Host, host_dir: &Path) -> Result<Option<Overruled>> {
    match place(host, host_dir).and_then(|directory| lay(directory, host.is_real())) {
        Ok(overruled) => Ok(Some(overruled)),
        Err(why) => refuse(order, host_dir, &why).map(|()| None),
    }
}

/// Refuses the upgrade if it can be seen that the cloud-config is to be overruled, and cannot be.
pub fn check(order: &UpgradeOrder, host: &Host, host_dir: &Path) -> Result<()> {
    place(host, host_dir).map(drop).or_else(|why| refuse(order, host_dir, &why))
}

fn refuse(order: &UpgradeOrder, host_dir: &Path, why: &anyhow::Error) -> Result<()> {
    let Some(set) = to_overrule(order, host_dir) else {
        info!("the node's cloud-config cannot be overruled, and need not be: {why:#}");
        return Ok(());
    };
    bail!(Permanent(format!(
        "the node's cloud-config sets {set}; kairos-agent would go by that, and cannot be told otherwise: {why:#}. Take it out"
    )))
}

/// Our directory, if what is in it would be read last.
fn place(host: &Host, host_dir: &Path) -> Result<PathBuf> {
    let last = host_dir.join(LAST.trim_start_matches('/'));
    // The agent follows no link there.
    let Some(found) = fs::symlink_metadata(&last).ok().filter(fs::Metadata::is_dir) else {
        bail!("the node has no {LAST}")
    };
    let mountinfo = || fs::read("/proc/self/mountinfo").context("reading what is mounted");
    if host.is_real() && mounts::is_read_only(&mountinfo()?, found.dev()) {
        bail!("{LAST} is read-only");
    }
    for entry in fs::read_dir(&last).with_context(|| format!("listing {LAST}"))? {
        let name = entry.with_context(|| format!("listing {LAST}"))?.file_name();
        if name.as_bytes() > OURS.as_bytes() {
            bail!("{LAST}/{} is read later", name.display());
        }
    }
    Ok(last.join(OURS))
}

/// Makes it, with the file in it; one that was left behind is as good.
fn lay(directory: PathBuf, in_memory: bool) -> Result<Overruled> {
    let doing = format!("making {}", directory.display());
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).context(doing),
        _ if !fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir()) => {
            bail!("{doing}: a file is there")
        }
        _ => {}
    }
    if in_memory {
        mounts::in_memory(&directory).inspect_err(|_| drop(fs::remove_dir(&directory)))?;
    }
    let overruled = Overruled { directory, in_memory };
    let file = overruled.directory.join(FILE);
    fs::write(&file, TEXT).with_context(|| format!("writing {}", file.display()))?;
    Ok(overruled)
}

impl Drop for Overruled {
    fn drop(&mut self) {
        let emptied = if self.in_memory {
            mounts::unmount(&self.directory)
        } else {
            fs::remove_file(self.directory.join(FILE)).context("removing a file")
        };
        let removed = emptied.and_then(|()| fs::remove_dir(&self.directory).context("removing it"));
        if let Err(error) = removed {
            warn!("{} stays on the node, empty: {error:#}", self.directory.display());
        }
    }
}

/// What the node's cloud-config says that an agent must not go by, and in which files.
fn to_overrule(order: &UpgradeOrder, host_dir: &Path) -> Option<String> {
    let mut all = Vec::new();
    DIRECTORIES.iter().for_each(|directory| files(host_dir, directory, &mut all));
    let mut last = BTreeMap::new();
    for path in all {
        let Some(Value::Object(upgrade)) = section(host_dir, &path) else { continue };
        last.extend(upgrade.into_iter().map(|(key, value)| (key, (value, path.clone()))));
    }
    let acts = |key: &str, value: &Value| match key {
        "reboot" | "poweroff" => is_true(value),
        // The recovery image is what is asked for, where the active one is not.
        "recovery" => order.active && is_true(value),
        "entry" => order.active && value == "recovery",
        _ => false,
    };
    let set = last.iter().filter(|(key, (value, _))| acts(key, value));
    let set: Vec<_> = set.map(|(key, (_, path))| format!("upgrade.{key} ({path})")).collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// Also as text, which agents take for it.
fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || value == "true"
}

/// The files below a directory that an agent takes for cloud-config, in its order. What cannot be listed it
/// passes over, too.
fn files(host_dir: &Path, directory: &str, into: &mut Vec<String>) {
    let Ok(Some(open)) = open_in_root(host_dir, directory, Access::Directory) else { return };
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", open.as_raw_fd())) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{directory}/{}", entry.file_name().display());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(host_dir, &path, into);
        } else if [".yaml", ".yml"].iter().any(|end| path.ends_with(end)) {
            into.push(path);
        }
    }
}

/// What a file says under `upgrade`. One that cannot be read or parsed says nothing, to an agent either.
fn section(host_dir: &Path, path: &str) -> Option<Value> {
    let bytes = read_in_root(host_dir, path, MAX_FILE).ok()??;
    let text = std::str::from_utf8(&bytes).ok()?;
    text.lines().take(FIRST).find(|line| HEADERS.contains(&line.trim_end()))?;
    let document: Value = serde_saphyr::from_multiple(text).ok()?.into_iter().next()?;
    document.get("upgrade").cloned()
}

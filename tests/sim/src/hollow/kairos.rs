//! What is Kairos about a hollow node: its two images, which of them it boots, and the images that upgrade
//! it.
//!
//! An image is its release file. The agent ([`make_image`]) installs a new active one and keeps the old one
//! as passive; a boot shows the release that it booted in `/etc`, the image in the kernel's command line, and
//! both images where a real node has its state partition. A node with the file `will-not-boot` falls back to
//! its passive image, as a bootloader does that has counted failures.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

const AGENT: &str = include_str!("../../images/kairos-agent");

/// Where a running node shows its state partition; it leads to [`state`].
const STATE_PARTITION: &str = "run/initramfs/cos-state";

/// Where a node keeps its images (in `cOS`, as on its state partition), the log of its agent, and the
/// switches of tests.
pub fn state(disk: &Path) -> PathBuf {
    disk.join("var/lib/kairos-sim")
}

/// The release file of a version such as `v3.4.2`, which upgrades compare as `v3.4.2-k3sv1.30.11+k3s1`.
pub fn release(version: &str) -> String {
    let keys = [
        ("NAME", "kairos-standard-opensuse"),
        ("VERSION", version),
        ("FLAVOR", "opensuse"),
        ("FLAVOR_RELEASE", "leap-15.6"),
        ("FAMILY", "opensuse"),
        ("ARCH", "amd64"),
        ("MODEL", "generic"),
        ("VARIANT", "standard"),
        ("SOFTWARE_VERSION", "v1.30.11+k3s1"),
        ("SOFTWARE_VERSION_PREFIX", "k3s"),
    ];
    keys.map(|(key, value)| format!("KAIROS_{key}=\"{value}\"\n")).concat()
}

/// Makes a directory that stands for a Kairos image. Its agent knows `--exclude-path` from v3.6 on, as the
/// real one does.
pub fn make_image(dir: &Path, version: &str) -> io::Result<()> {
    for each in ["etc", "usr/bin"] {
        fs::create_dir_all(dir.join(each))?;
    }
    fs::write(dir.join("etc/kairos-release"), release(version))?;
    if version >= "v3.6" {
        fs::write(dir.join("etc/knows-exclude-path"), "")?;
    }
    let agent = dir.join("usr/bin/kairos-agent");
    fs::write(&agent, AGENT)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))
}

/// Installs a release as both images, and boots it.
pub fn install(disk: &Path, version: &str) -> io::Result<()> {
    fs::create_dir_all(state(disk).join("cOS"))?;
    for name in ["active", "passive"] {
        fs::write(image(disk, name), release(version))?;
    }
    boot(disk)
}

fn image(disk: &Path, name: &str) -> PathBuf {
    state(disk).join(format!("cOS/{name}.img"))
}

/// What a boot leaves on the disk: the release that booted, and how. A disk without Kairos is left alone.
pub fn boot(disk: &Path) -> io::Result<()> {
    let state = state(disk);
    let (booted, label) = if state.join("will-not-boot").exists() {
        ("passive", "COS_PASSIVE")
    } else {
        ("active", "COS_ACTIVE")
    };
    let Ok(release) = fs::read(image(disk, booted)) else { return Ok(()) };
    let partition = disk.join(STATE_PARTITION);
    if !partition.is_symlink() {
        fs::create_dir_all(partition.with_file_name(""))?;
        symlink("../../var/lib/kairos-sim", partition)?;
    }
    fs::write(disk.join("etc/kairos-release"), release)?;
    fs::write(disk.join("proc/cmdline"), format!("root=LABEL={label} quiet\n"))
}

/// Makes a node one that runs something else.
pub fn remove(disk: &Path) -> io::Result<()> {
    fs::remove_dir_all(state(disk))?;
    fs::remove_file(disk.join("etc/kairos-release"))?;
    fs::write(disk.join("etc/os-release"), "NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"24.04\"\n")?;
    fs::write(disk.join("proc/cmdline"), "quiet\n")
}

/// The calls of the agent on a node, one a line: the boot, then the command line.
pub fn agent_calls(disk: &Path) -> Vec<String> {
    let log = fs::read_to_string(state(disk).join("agent.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_boots_what_is_active_or_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path();
        for each in ["etc", "proc"] {
            fs::create_dir_all(disk.join(each)).unwrap();
        }
        install(disk, "v1").unwrap();
        fs::write(disk.join(STATE_PARTITION).join("cOS/active.img"), release("v2")).unwrap();
        let read = |path: &str| fs::read_to_string(disk.join(path)).unwrap();
        assert!(read("etc/kairos-release").contains("v1"), "until it boots");
        boot(disk).unwrap();
        assert!(read("etc/kairos-release").contains("v2") && read("proc/cmdline").contains("COS_ACTIVE"));
        fs::write(state(disk).join("will-not-boot"), "").unwrap();
        boot(disk).unwrap();
        assert!(read("etc/kairos-release").contains("v1") && read("proc/cmdline").contains("COS_PASSIVE"));
    }
}

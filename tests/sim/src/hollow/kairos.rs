//! What is Kairos about a hollow node: its two images, which of them it boots, and the images that upgrade
//! it.
//!
//! An image is its release file. The agent ([`make_image`]) installs a new active one and keeps the old one
//! as passive; a boot shows the release that it booted in `/etc`, the image in the kernel's command line, and
//! both images where a real node has its state partition. The active image of a node with the file
//! `will-not-boot` does not boot.
//!
//! Which image boots is decided as Kairos' GRUB decides it: after an upgrade the active one has one try, of
//! which a mark is left until it has booted; where both marks stand, the fallback boots. An entry that is
//! selected in `/oem/grubenv` boots once, whatever the marks are.

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
    fs::create_dir_all(disk.join("oem"))?;
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
    let active = boots_active(disk)?;
    let (booted, label) = if active { ("active", "COS_ACTIVE") } else { ("passive", "COS_PASSIVE") };
    if active {
        for mark in [UPGRADED, TRIED] {
            let _ = fs::remove_file(state.join(mark));
        }
    }
    let Ok(release) = fs::read(image(disk, booted)) else { return Ok(()) };
    let partition = disk.join(STATE_PARTITION);
    if !partition.is_symlink() {
        fs::create_dir_all(partition.with_file_name(""))?;
        symlink("../../var/lib/kairos-sim", partition)?;
    }
    fs::write(disk.join("etc/kairos-release"), release)?;
    fs::write(disk.join("proc/cmdline"), format!("root=LABEL={label} quiet\n"))
}

/// The marks of Kairos' boot assessment: there was an upgrade, which its agent says, and its image was tried.
const UPGRADED: &str = "enable_boot_assessment";
const TRIED: &str = "boot_assessment_tentative";

/// Whether GRUB comes to boot the active image, or falls back.
fn boots_active(disk: &Path) -> io::Result<bool> {
    let state = state(disk);
    let will = || !state.join("will-not-boot").exists();
    let block = disk.join("oem/grubenv");
    let text = fs::read_to_string(&block).unwrap_or_default();
    let selected = text.lines().find_map(|line| line.strip_prefix("next_entry=")).unwrap_or_default();
    if !selected.is_empty() {
        let taken = text.replace(&format!("next_entry={selected}\n"), "next_entry=\n");
        fs::write(&block, format!("{taken}{}", "#".repeat(text.len() - taken.len())))?;
        if selected == "cos" && will() {
            return Ok(true);
        }
    }
    if state.join(UPGRADED).exists() {
        if state.join(TRIED).exists() {
            return Ok(false);
        }
        fs::write(state.join(TRIED), "")?;
    }
    Ok(will())
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
        fs::write(state(disk).join(UPGRADED), "").unwrap();
        boot(disk).unwrap();
        assert!(read("etc/kairos-release").contains("v1") && read("proc/cmdline").contains("COS_PASSIVE"));
        // It was tried, and a better one is not; unless it is selected, for one boot.
        fs::remove_file(state(disk).join("will-not-boot")).unwrap();
        boot(disk).unwrap();
        assert!(read("proc/cmdline").contains("COS_PASSIVE"));
        fs::write(disk.join("oem/grubenv"), "# GRUB Environment Block\na=1\nnext_entry=cos\n###").unwrap();
        boot(disk).unwrap();
        assert!(read("proc/cmdline").contains("COS_ACTIVE") && !state(disk).join(TRIED).exists());
        assert_eq!(read("oem/grubenv"), "# GRUB Environment Block\na=1\nnext_entry=\n######");
    }
}

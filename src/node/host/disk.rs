//! What a directory's disk is like, for those who have to know whether a boot loader can write to it.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Context, Result};
use nix::sys::{
    stat::{major, minor},
    statfs::{EXT4_SUPER_MAGIC, fstatfs},
};

/// The disk of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// It is made of other disks or of files: what is encrypted, a loop, a RAID.
    pub layered: bool,
    /// Its filesystem is ext2, ext3 or ext4.
    pub ext: bool,
}

/// The disk of an open directory; `None` if it has none, as one in memory, or one of an overlay.
pub fn of(directory: &File) -> Result<Option<Disk>> {
    let device = directory.metadata().context("looking at a disk")?.dev();
    let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let Ok(shown) = fs::read_link(&link) else { return Ok(None) };
    let kind = fstatfs(directory).context("looking at a filesystem")?.filesystem_type();
    Ok(Some(Disk { layered: is_layered(&shown), ext: kind == EXT4_SUPER_MAGIC }))
}

/// By where the kernel shows it.
fn is_layered(device: &Path) -> bool {
    device.to_string_lossy().contains("/virtual/block/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_plain_or_made_of_others_or_none() {
        for (device, layered) in [
            ("../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda2", false),
            ("../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p2", false),
            ("../../devices/virtual/block/dm-0", true),
            ("../../devices/virtual/block/md127/md127p1", true),
            ("../../devices/virtual/block/loop0", true),
        ] {
            assert_eq!(is_layered(Path::new(device)), layered, "{device}");
        }
        assert_eq!(of(&File::open("/proc").unwrap()).unwrap(), None);
    }
}

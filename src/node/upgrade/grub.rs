//! Has GRUB try the new image on a node that runs from another one than its active image.
//!
//! Kairos' boot assessment (kairos-init, `08_grub.yaml`) keeps two marks on the state partition: that there
//! was an upgrade, and that its image was tried. GRUB boots the fallback where both stand and nothing else is
//! selected. A boot of the active image clears them; a node that fell back has never had one. So another
//! upgrade of it, be its image as good as it may, would boot the fallback again and never be tried (kairos
//! issue 4303, in images before September 2026).
//!
//! `next_entry` in GRUB's environment block selects an entry for one boot, before those marks count: GRUB
//! takes it out again before it boots the entry (`grub.cfg` of kairos-init). Kairos' agent sets it too, from
//! 2.31 on, but in `/oem/grubenv` as it sees it; here that is a file of the image's container, which is gone
//! with it. The marks themselves stay, and so the next boot after that one falls back, if the image is bad.
//!
//! GRUB writes into the blocks of that file, and knows neither device mapper nor any other layer over a disk;
//! and where it could not take the entry out, it would boot a bad image for ever. So the block is only
//! written where GRUB can do so: on an ext filesystem, as Kairos makes it, on a plain partition.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::node::host::{
    Host, disk, files,
    mounts::{Access, metadata_in_root, open_in_root},
};

/// Where a running node shows its partition for what people configure, below the host's root.
const OEM: &str = "/oem";
/// GRUB's environment block in it. `grub.cfg` looks for a file of this name in the root of any partition.
const BLOCK: &str = "grubenv";
/// Where it is instead where the partition of [`OEM`] is encrypted, and counts before that one.
const ON_STATE: &str = "/run/initramfs/cos-state/grubenv";

/// With what every block begins.
const HEADER: &[u8] = b"# GRUB Environment Block\n";
/// With what it is filled up.
const FILLER: u8 = b'#';
/// Its size in bytes, of which a larger one is a multiple.
const SIZE: usize = 1024;
/// No block that anybody makes is larger.
const MAX_SIZE: u64 = 64 * 1024;

/// The entry of the active image in Kairos' `grub.cfg`, selected for one boot.
const SELECT: (&str, &str) = ("next_entry", "cos");

/// Selects the active image for the next boot. The error says why that could not be done; what GRUB reads is
/// as it was then.
pub fn select_active(host: &Host, host_dir: &Path) -> Result<()> {
    if metadata_in_root(host_dir, ON_STATE)?.is_some() {
        bail!("GRUB may read {BLOCK} on the state partition");
    }
    let Some(directory) = open_in_root(host_dir, OEM, Access::Directory)? else {
        bail!("the node has no {OEM}");
    };
    if host.is_real() {
        can_grub_write(&directory)?;
    }
    let (key, value) = SELECT;
    let path = format!("{OEM}/{BLOCK}");
    let Some(file) = open_in_root(host_dir, &path, Access::Write)? else {
        // By the directory that was looked at, whatever its path leads to by now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(BLOCK);
        let block = set(HEADER, key, value).context("making an environment block")?;
        return files::write_atomic(&path, &block, 0o644);
    };
    let doing = || format!("setting {key} in {path}");
    let before = files::contents(file.try_clone().with_context(doing)?, MAX_SIZE).with_context(doing)?;
    let block =
        set(&before, key, value).with_context(|| format!("{path} is no environment block of GRUB"))?;
    // In its place and not beside it: its blocks stay where they are, so GRUB, which replays no journal,
    // finds what is synced here.
    file.write_all_at(&block, 0).and_then(|()| file.sync_all()).with_context(doing)
}

/// Fails unless GRUB can write what is in this directory.
fn can_grub_write(directory: &File) -> Result<()> {
    match disk::of(directory)? {
        None => bail!("{OEM} is on no disk of its own"),
        Some(disk) if disk.layered || !disk.ext => {
            bail!("GRUB cannot write to the disk of {OEM}, which is encrypted or of another kind")
        }
        Some(_) => Ok(()),
    }
}

/// A block with this value, and all else as it is; `None` if it is no block.
fn set(block: &[u8], key: &str, value: &str) -> Option<Vec<u8>> {
    let filled = block.iter().rev().take_while(|byte| **byte == FILLER).count();
    let mut rest = block.strip_prefix(HEADER)?;
    rest = &rest[..rest.len().saturating_sub(filled)];
    let mut new = HEADER.to_vec();
    let line = format!("{key}={value}\n");
    let prefix = format!("{key}=");
    let mut is_set = false;
    while !rest.is_empty() {
        let end = line_end(rest)?;
        let (this, others) = rest.split_at(end);
        rest = others;
        if !this.starts_with(prefix.as_bytes()) {
            new.extend_from_slice(this);
        } else if !std::mem::replace(&mut is_set, true) {
            new.extend_from_slice(line.as_bytes());
        }
    }
    if !is_set {
        new.extend_from_slice(line.as_bytes());
    }
    let size = block.len().max(new.len().next_multiple_of(SIZE));
    new.resize(size, FILLER);
    Some(new)
}

/// Where the first line ends, behind its newline. One that a backslash precedes belongs to a value.
fn line_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'\n' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    fn block(lines: &str) -> Vec<u8> {
        let mut block = [HEADER, lines.as_bytes()].concat();
        block.resize(block.len().next_multiple_of(SIZE), FILLER);
        block
    }

    #[test]
    fn one_key_is_set_and_all_others_stay_as_they_are() {
        for (before, after) in [
            ("", "next_entry=cos\n"),
            ("extra_cmdline=fips=1 selinux=0\n", "extra_cmdline=fips=1 selinux=0\nnext_entry=cos\n"),
            ("next_entry=\nsaved_entry=recovery\n", "next_entry=cos\nsaved_entry=recovery\n"),
            ("a=1#\nnext_entry=fallback\nnext_entry=\n", "a=1#\nnext_entry=cos\n"),
            ("a=1\\\nnext_entry=2\\\\\nb=\n", "a=1\\\nnext_entry=2\\\\\nb=\nnext_entry=cos\n"),
        ] {
            let set = set(&block(before), "next_entry", "cos").unwrap();
            assert_eq!(String::from_utf8_lossy(&set), String::from_utf8_lossy(&block(after)), "{before:?}");
            assert_eq!(set.len(), SIZE);
        }
        let full = format!("a={}\n", "x".repeat(SIZE - HEADER.len() - 4));
        assert_eq!(
            set(&block(&full), "next_entry", "cos").unwrap().len(),
            2 * SIZE,
            "one more, when it is full"
        );
        let large = [block("a=1\n"), vec![FILLER; SIZE]].concat();
        assert_eq!(set(&large, "next_entry", "cos").unwrap().len(), 2 * SIZE, "none less");
        for broken in
            [&b""[..], b"a=1\n", b"# GRUB Environment Block\na=1", b"# GRUB Environment Block\na=1\\"]
        {
            assert_eq!(set(broken, "next_entry", "cos"), None, "{broken:?}");
        }
    }

    #[test]
    fn it_is_written_in_its_place_and_nowhere_but_on_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("host");
        let host = Host::at(dir.path(), None);
        let failed = |root: &Path| format!("{:#}", select_active(&host, root).unwrap_err());
        fs::create_dir_all(&root).unwrap();
        assert_eq!(failed(&root), "the node has no /oem");
        fs::create_dir_all(root.join("oem")).unwrap();
        let file = root.join("oem/grubenv");
        select_active(&host, &root).unwrap();
        assert_eq!(fs::read(&file).unwrap(), block("next_entry=cos\n"), "there was none");
        fs::write(&file, block("a=1\nnext_entry=\n")).unwrap();
        let before = fs::metadata(&file).unwrap().ino();
        select_active(&host, &root).unwrap();
        assert_eq!(fs::read(&file).unwrap(), block("a=1\nnext_entry=cos\n"));
        assert_eq!(
            (fs::metadata(&file).unwrap().ino(), fs::read_dir(root.join("oem")).unwrap().count()),
            (before, 1)
        );
        fs::write(&file, "mine").unwrap();
        assert!(failed(&root).contains("is no environment block"));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        // A link leads to no file of this container.
        let outside = dir.path().join("outside");
        fs::write(&outside, block("")).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&outside, &file).unwrap();
        failed(&root);
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(root.join("run/initramfs/cos-state")).unwrap();
        fs::write(root.join("run/initramfs/cos-state/grubenv"), block("")).unwrap();
        assert!(failed(&root).contains("state partition"));
        assert_eq!((fs::read(&outside).unwrap(), file.exists()), (block(""), false));
    }

    #[test]
    fn grub_writes_to_disks_alone() {
        let kernel = File::open("/proc").unwrap();
        assert!(can_grub_write(&kernel).unwrap_err().to_string().contains("no disk of its own"));
    }
}

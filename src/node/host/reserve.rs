//! Room on the disk for a record that must not fail to be written, kept until it is.
//!
//! A record of what was done is written when the work is done; if the disk is full by then, nobody knows of
//! the work. So its room is taken before the work begins, by a file beside the record's path ([`keep`]). The
//! record is then written over that file, which is renamed: that takes no block and no inode, on a full disk
//! as on any other. A filesystem that never writes in place needs new blocks all the same; there the file is
//! removed, and the record gets the blocks that it held.
//!
//! Taking the room is also the trial of the directory: as much as will be written is written and synced.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use tracing::warn;

use super::files;

/// How much is kept: four times the largest record, which has to fit into a termination message of 4096
/// bytes.
pub const ROOM: usize = 16 * 1024;

/// The end of the name of the file that keeps the room.
pub const SUFFIX: &str = ".reserve";

/// The pause between two tries to write a record.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps room for the record at `path`, durably. Room that is kept already is left as it is: all that has to
/// be proved of it is that it can still be written to.
///
/// It is never written over here, for the record may be about to be: this may be a waiter that starts again
/// at the moment at which its Job succeeds.
pub fn keep(path: &Path) -> Result<()> {
    let kept = beside(path);
    let is_whole =
        |file: &File| file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == ROOM as u64);
    match open(&kept) {
        Ok(file) if is_whole(&file) => Ok(()),
        _ => {
            files::write_atomic(&kept, &filler(), 0o600).with_context(|| format!("keeping {ROOM} bytes free"))
        }
    }
}

/// Gives the room back. A courtesy: where nothing can be removed, there is nothing to be done about it here.
pub fn release(path: &Path) {
    let _ = files::remove(&beside(path));
}

/// Writes a record, as [`files::write_atomic`] does, into the room that is kept for it, if any is.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    match write_over(path, bytes, mode) {
        Ok(()) => Ok(()),
        Err(_) => {
            release(path);
            files::write_atomic(path, bytes, mode)
        }
    }
}

/// Writes a record, trying again for `patience`: what fills a disk may be cleaned up, by the kubelet above
/// all.
pub fn write_within(patience: Duration, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        match write(path, bytes, mode) {
            Err(error) if begun.elapsed() < patience => warn!("trying again: {error:#}"),
            ended => return ended,
        }
        std::thread::sleep(PAUSE);
    }
}

/// Keeps room in an open file, which stays as long as it is. A courtesy, which not every filesystem knows.
pub fn allocate(file: &File, bytes: usize) {
    if let Ok(bytes) = i64::try_from(bytes) {
        let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes);
    }
}

/// What is kept may be replaced on the way, by [`keep`] in another process; so what the path holds in the end
/// is looked at.
fn write_over(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let kept = beside(path);
    let mut file = open(&kept)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&kept, path)?;
    files::sync_directory(path)?;
    if fs::read(path)? == bytes { Ok(()) } else { Err(std::io::Error::other("it was replaced")) }
}

/// Opens what keeps the room. A link is not followed, as what it leads to is not ours, and a FIFO is not
/// waited for.
fn open(kept: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(kept)
}

/// The file that keeps the room of a record. Its name starts with a dot and does not end as a record's does.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{SUFFIX}"))
}

/// Bytes without a pattern: a filesystem that compresses would keep next to no room for zeros.
fn filler() -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..ROOM).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_record_takes_the_room_that_was_kept_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        keep(&path).unwrap();
        let kept = fs::metadata(beside(&path)).unwrap();
        assert!(
            kept.len() == ROOM as u64 && kept.blocks() * 512 >= ROOM as u64,
            "no hole: {} blocks",
            kept.blocks()
        );
        write(&path, b"one", 0o644).unwrap();
        let written = fs::metadata(&path).unwrap();
        assert_eq!((written.ino(), written.mode() & 0o777), (kept.ino(), 0o644), "the same file");
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), names(dir.path())),
            ("one", vec!["a.json".to_owned()])
        );
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two", "without room it is written as any other");
    }

    #[test]
    fn what_keeps_the_room_may_be_left_by_a_crash_or_be_no_file_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(beside(&path), "half of a reco").unwrap();
        write(&path, b"{}", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        fs::write(dir.path().join("victim"), "of somebody else").unwrap();
        symlink("victim", beside(&path)).unwrap();
        write(&path, b"[]", 0o644).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "of somebody else");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("[]", 2));
        symlink("victim", beside(&path)).unwrap();
        keep(&path).unwrap();
        assert!(fs::symlink_metadata(beside(&path)).unwrap().is_file());
        assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "of somebody else");
    }

    #[test]
    fn what_cannot_be_kept_says_why_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::create_dir(beside(&path)).unwrap();
        assert!(format!("{:#}", keep(&path).unwrap_err()).contains("Is a directory"));
        fs::remove_dir(beside(&path)).unwrap();
        keep(&path).unwrap();
        let kept = fs::metadata(beside(&path)).unwrap().ino();
        keep(&path).unwrap();
        assert_eq!(fs::metadata(beside(&path)).unwrap().ino(), kept, "it needs no other room");
        release(&path);
        release(&path);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn writing_is_tried_again_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/a.json");
        assert!(write_within(Duration::ZERO, &path, b"x", 0o644).is_err());
        let parent = dir.path().join("later");
        let repaired = std::thread::spawn(move || fs::create_dir(parent));
        write_within(Duration::from_secs(3600), &path, b"x", 0o644).unwrap();
        repaired.join().unwrap().unwrap();
    }

    #[test]
    fn the_filler_is_no_pattern() {
        let filler = filler();
        let mut counts = [0_usize; 256];
        filler.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (ROOM / 1024..ROOM / 64).contains(count)), "{counts:?}");
        assert!((1..4096).all(|distance| filler[..4096] != filler[distance..distance + 4096]));
    }
}

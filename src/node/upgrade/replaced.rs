//! Whether an agent has replaced the images that the node boots.
//!
//! The agent makes the active image the fallback and puts the new one in its place; only then it runs what a
//! cloud-config has for `after-upgrade`, and any of that may end it with a code other than 0 (kairos-agent,
//! `pkg/action/upgrade.go`: the hook with `strict`, or the label of the fallback between the two moves).
//! Another run would then make the new image, which nobody has booted, the fallback. So the images are looked
//! at before the agent runs and after it failed: a file that was moved or written is another one.
//!
//! And an agent that ended well has replaced them, or has done something else than it was asked for.
//!
//! Where none is seen, neither before nor after, nothing is known, and a failure is one that may be tried
//! again: a node that has booted its recovery image has that partition mounted nowhere but in the agent's own
//! mounts.

use std::{os::unix::fs::MetadataExt, path::Path};

use anyhow::Result;
use tracing::warn;

use crate::node::host::mounts::metadata_in_root;

/// Where the state partition is, below the host's root: the agent's `RunningStateDir`, and its `StateDir`.
const PARTITIONS: [&str; 2] = ["/run/initramfs/cos-state", "/run/cos/state"];
/// What of it is booted. The transition image, which an agent writes first, is not.
const IMAGES: [&str; 2] = ["cOS/active.img", "cOS/passive.img"];

/// A file that is this one and was not written since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub inode: u64,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
}

/// The images as they were seen, each of which may be missing; `None` if that could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(pub Option<Vec<Option<Identity>>>);

/// Looks at the images.
pub fn look(host_dir: &Path) -> Seen {
    let all = PARTITIONS.iter().flat_map(|partition| IMAGES.map(|image| format!("{partition}/{image}")));
    let seen: Result<_> = all.map(|path| identity(host_dir, &path)).collect();
    Seen(seen.inspect_err(|error| warn!("the node's images cannot be seen: {error:#}")).ok())
}

fn identity(host_dir: &Path, path: &str) -> Result<Option<Identity>> {
    let found = metadata_in_root(host_dir, path)?;
    Ok(found.map(|file| Identity {
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
    }))
}

impl Seen {
    /// Whether the images are others now. What could not be seen may be.
    pub fn is_replaced(&self, now: &Self) -> bool {
        self.0.is_none() || self != now
    }

    /// Whether an active image was seen, and it and its fallback are the same now.
    pub fn is_as_it_was(&self, now: &Self) -> bool {
        let mut active = self.0.iter().flatten().step_by(IMAGES.len());
        active.any(Option::is_some) && !self.is_replaced(now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_moved_or_written_is_another_one() {
        let host = tempfile::tempdir().unwrap();
        let path = |name: &str| host.path().join("run/initramfs/cos-state/cOS").join(name);
        let before = look(host.path());
        assert!(!before.is_replaced(&look(host.path())), "there is none");
        fs::create_dir_all(path("")).unwrap();
        fs::write(path("active.img"), "a").unwrap();
        assert!(before.is_replaced(&look(host.path())), "there was none");
        type Change = fn(&dyn Fn(&str) -> std::path::PathBuf);
        let changes: [(bool, Change); 6] = [
            (false, |_| ()),
            (false, |path| fs::write(path("transition.img"), "new").unwrap()),
            (true, |path| fs::rename(path("active.img"), path("passive.img")).unwrap()),
            (true, |path| {
                fs::rename(path("active.img"), path("passive.img")).unwrap();
                fs::rename(path("transition.img"), path("active.img")).unwrap();
            }),
            (true, |path| fs::write(path("passive.img"), "labelled").unwrap()),
            (true, |path| fs::remove_dir_all(path("")).unwrap()),
        ];
        for (number, (replaced, change)) in changes.into_iter().enumerate() {
            let _ = fs::remove_dir_all(path(""));
            fs::create_dir_all(path("")).unwrap();
            for image in ["active.img", "passive.img", "transition.img"] {
                fs::write(path(image), image).unwrap();
            }
            let before = look(host.path());
            change(&path);
            assert_eq!(before.is_replaced(&look(host.path())), replaced, "change {number}");
        }
    }

    #[test]
    fn where_no_active_image_was_seen_it_is_not_known_to_be_as_it_was() {
        let host = tempfile::tempdir().unwrap();
        let images = host.path().join("run/cos/state/cOS");
        fs::create_dir_all(&images).unwrap();
        for (image, known) in [("transition.img", false), ("passive.img", false), ("active.img", true)] {
            fs::write(images.join(image), image).unwrap();
            let seen = look(host.path());
            assert_eq!(seen.is_as_it_was(&look(host.path())), known, "{image}");
        }
        let seen = look(host.path());
        fs::write(images.join("active.img"), "another").unwrap();
        assert!(!seen.is_as_it_was(&look(host.path())) && !Seen(None).is_as_it_was(&Seen(None)));
    }

    #[test]
    fn what_cannot_be_seen_may_be_another_one() {
        let host = tempfile::tempdir().unwrap();
        let (nothing, seen) = (Seen(None), look(host.path()));
        assert_eq!(look(&host.path().join("nowhere")), nothing);
        assert!(nothing.is_replaced(&seen) && seen.is_replaced(&nothing) && nothing.is_replaced(&nothing));
        assert!(!seen.is_replaced(&seen));
    }
}

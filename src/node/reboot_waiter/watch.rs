//! The inotify watch on the state directory and its parent.
//!
//! A watch stays with the directory that it was set on: one that is removed, or renamed away, and made again
//! under the same name is never heard of. So the parent is watched too, and [`Watch::arm`] sets both watches
//! anew before every look at the directory; setting one that stands already costs a system call and changes
//! nothing. That order, first watch and then look, and that events only say "look again", leave no gap for a
//! sentinel to fall into, and make an overflow of the kernel's queue an event like any other.

use std::{io::ErrorKind, path::Path, path::PathBuf, sync::Arc};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;
use tracing::warn;

/// Opens the kernel's queue; replaced in tests by one that the kernel refuses.
type Open = fn(Arc<Notify>) -> notify::Result<RecommendedWatcher>;

/// A watch that may have been refused.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// The last try failed, which has been said.
    refused: bool,
    open: Open,
}

impl Watch {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, changed: Arc::default(), watcher: None, refused: false, open }
    }

    /// Sets both watches. Whether they stand, [`Self::stands`] tells; if not, the next call tries again.
    pub fn arm(&mut self) {
        let result = self.try_arm();
        if result.is_err() {
            self.watcher = None;
        }
        match result {
            Err(error) if !self.refused => warn!("inotify is refused, relying on events of the Job: {error}"),
            _ => {}
        }
        self.refused = self.watcher.is_none();
    }

    fn try_arm(&mut self) -> notify::Result<()> {
        if self.watcher.is_none() {
            self.watcher = Some((self.open)(self.changed.clone())?);
        }
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        // The parent first: a directory made between the two calls is then either an event or there to be
        // watched.
        if let Some(parent) = self.directory.parent() {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        match watcher.watch(&self.directory, RecursiveMode::NonRecursive) {
            Err(error) if is_missing(&error) => {
                make(&self.directory)?;
                watcher.watch(&self.directory, RecursiveMode::NonRecursive)
            }
            other => other,
        }
    }

    pub fn stands(&self) -> bool {
        self.watcher.is_some()
    }

    /// Returns at the next event, or at once if there was one since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn open(changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, matters) {
            changed.notify_one();
        }
    })
}

/// Everything matters but what a mere reader causes: our own look would be an event that asks for a look.
fn matters(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => event.need_rescan(),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

fn make(directory: &Path) -> notify::Result<()> {
    std::fs::create_dir_all(directory).map_err(notify::Error::io)
}

#[cfg(test)]
impl Watch {
    /// A watch on a node that has no inotify instance left.
    pub fn refused(directory: PathBuf) -> Self {
        let open: Open = |_| Err(notify::Error::io(emfile()));
        Self { directory, changed: Arc::default(), watcher: None, refused: false, open }
    }
}

#[cfg(test)]
fn emfile() -> std::io::Error {
    std::io::Error::other("too many open files (EMFILE)")
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use notify::event::{CreateKind, Flag};

    use super::*;

    /// An event that comes is waited for as long as a machine under load may take to tell of it.
    async fn hears(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    async fn stays_silent(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_millis(500), watch.changed()).await.is_err()
    }

    /// Events come late and in several pieces; what is heard next must be news.
    async fn settle(watch: &Watch) {
        while tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_ok() {}
    }

    fn armed() -> (tempfile::TempDir, PathBuf, Watch) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(".kairos");
        let mut watch = Watch::new(directory.clone());
        watch.arm();
        assert!(watch.stands() && directory.is_dir());
        (root, directory, watch)
    }

    #[tokio::test]
    async fn a_new_file_is_heard_and_a_reader_is_not() {
        let (_root, directory, mut watch) = armed();
        settle(&watch).await;
        fs::write(directory.join("a"), "x").unwrap();
        assert!(hears(&watch).await);
        settle(&watch).await;
        fs::read(directory.join("a")).unwrap();
        fs::read_dir(&directory).unwrap().count();
        watch.arm();
        assert!(stays_silent(&watch).await, "a look must not ask for a look");
        fs::rename(directory.join("a"), directory.join("b")).unwrap();
        assert!(hears(&watch).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_made_again_is_watched_again() {
        let (root, directory, mut watch) = armed();
        for remove in [true, false] {
            settle(&watch).await;
            if remove {
                fs::remove_dir_all(&directory)
            } else {
                fs::rename(&directory, root.path().join("away"))
            }
            .unwrap();
            assert!(hears(&watch).await);
            settle(&watch).await;
            fs::create_dir(&directory).unwrap();
            assert!(hears(&watch).await, "the parent tells");
            watch.arm();
            settle(&watch).await;
            fs::write(directory.join("a"), "x").unwrap();
            assert!(hears(&watch).await);
            watch.arm();
        }
    }

    #[tokio::test]
    async fn a_removed_directory_is_made_again_by_arming() {
        let (_root, directory, mut watch) = armed();
        fs::remove_dir_all(&directory).unwrap();
        watch.arm();
        assert!(directory.is_dir(), "made again");
        settle(&watch).await;
        // What is told late of the old directory's end takes the new watch off; it is an event, after which
        // everybody looks, and so arms.
        watch.arm();
        fs::write(directory.join("a"), "x").unwrap();
        assert!(hears(&watch).await);
    }

    #[tokio::test]
    async fn a_flood_ends_in_an_event() {
        let (_root, directory, mut watch) = armed();
        for number in 0..20_000 {
            fs::write(directory.join((number % 7).to_string()), "x").unwrap();
        }
        assert!(hears(&watch).await);
        settle(&watch).await;
        watch.arm();
        fs::write(directory.join("last"), "x").unwrap();
        assert!(hears(&watch).await);
    }

    #[test]
    fn an_overflow_matters_and_so_does_whatever_is_unknown() {
        let reading = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any)));
        assert!(!matters(&reading));
        assert!(matters(&reading.clone().set_flag(Flag::Rescan)));
        assert!(matters(&Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(matters(&Event::new(EventKind::Create(CreateKind::Any))));
    }

    #[test]
    fn a_refusal_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let mut watch = Watch::refused(root.path().join(".kairos"));
        watch.arm();
        assert!(!watch.stands());
    }
}

//! The node's lock, and applet `node-lock`, which holds it for a command that cannot hold it itself.
//!
//! Whatever runs an operation on a node holds this lock, so that no two do at once, whoever made their pods:
//! a pod that was deleted by force is gone for the API server while its processes go on, and its Job has
//! another one made; and a Job controller may replace the pods of nodes in maintenance early (KEP-6262).
//!
//! An upgrade's wrapper takes it and is its agent's parent, so the kernel gives it back when both have ended.
//! A user's command runs in an image that has nothing of ours, and cannot be wrapped. A container of ours
//! that is started before it and ended after it (a native sidecar, Kubernetes 1.29) holds the lock in its
//! place. The kubelet starts the command when this container's startup probe, `node-lock --check`, has
//! succeeded, and sends it SIGTERM when the pod's other containers have ended.
//!
//! That container can die by itself while the command goes on, of want of memory say; then the kernel gives
//! the lock back, and the kubelet starts the container again. So its pod's UID is written into the lock's
//! file and taken out on SIGTERM alone. Who finds the lock free and another pod's UID in it waits for
//! [`ABANDONED`]: as long as a kubelet takes to start the container of a living pod again, several times.
//!
//! A command that is followed by a reboot runs in an init container. Those a kubelet does not count among the
//! containers that have to end before a sidecar does: when such a pod is deleted, it ends both at the same
//! time, and gives the command its grace period. So there the UID stays in the file, and whoever is next
//! waits for longer than that period. As a rule nobody is: the node reboots.
//!
//! | the pod's `node-lock` | lock | file | what another pod does |
//! |---|---|---|---|
//! | waits | of somebody else | somebody else's UID | waits |
//! | holds it | its own | its UID | waits |
//! | died, and is started again | free, then its own | its UID | waits |
//! | died, with its pod | free | its UID | waits for that time, then takes it |
//! | was told to end | free | empty | takes it |
//! | was told to end, beside an init container | free | its UID | waits for that time, then takes it |
//! | is of an earlier boot | free | none, `/run` was emptied | takes it |

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    mem,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tracing::info;

use super::{
    AppletExit, Locked,
    host::{
        Host,
        files::{self, LOCK_RETRY, Lock},
    },
    signals::{Event, Signals},
};
use crate::contract;

/// For how long a lock must have been free before it is taken from a pod that has not given it back. A
/// kubelet starts a container that died again at once, then after 10 s, then after 20 s; and a command that
/// is told to end has 30 s for that, the grace period of pods that name none.
pub const ABANDONED: Duration = Duration::from_secs(45);

/// Bytes of the file that are read. A UID has 36.
const MAX_UID: u64 = 128;

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct LockArgs {
    /// The lock's file.
    #[arg(long)]
    pub file: PathBuf,
    /// Only see whether this pod holds the lock.
    #[arg(long)]
    pub check: bool,
    /// The command is an init container, which may end after this one.
    #[arg(long)]
    pub beside_init: bool,
    /// UID of the pod.
    #[arg(long, env = contract::env::POD_UID)]
    pub pod_uid: Option<String>,
}

impl LockArgs {
    fn pod(&self) -> Result<&str> {
        let uid = self.pod_uid.as_deref().filter(|uid| !uid.is_empty());
        uid.with_context(|| format!("{} is not set", contract::env::POD_UID))
    }
}

/// Holds the lock from the moment at which it can be had until SIGTERM.
pub fn run(args: &LockArgs, host: &Host) -> Result<AppletExit> {
    let signals = Signals::listen()?;
    let mut taker = Taker::new(host.path(&args.file), args.pod()?, ABANDONED);
    let Some(mut lock) = taker.take_unless(|| signals.told_to_stop())? else {
        return Ok(AppletExit::success("told to end before the node's lock could be had"));
    };
    info!("the node's lock is held; the command may run");
    while !matches!(signals.next()?, Event::Terminate { .. }) {}
    if args.beside_init {
        let told = "told to end; the node's lock is free when the command has had the time to end, too";
        return Ok(AppletExit::success(told));
    }
    lock.set_text("").context("giving the node's lock back")?;
    Ok(AppletExit::success("the command has ended, the node's lock is given back"))
}

/// Succeeds if this pod has the lock.
pub fn check(args: &LockArgs, host: &Host) -> Result<AppletExit> {
    let by = named(&host.path(&args.file)).with_context(|| format!("reading {}", args.file.display()))?;
    Ok(match by.as_str() {
        by if by == args.pod()? => AppletExit::success(""),
        "" => AppletExit::failure("the node's lock is not taken yet, or an upgrade on this node holds it"),
        by => AppletExit::failure(format!("pod {by} on this node holds the node's lock")),
    })
}

/// What stands in the lock's file: the UID of the pod that has the lock, or had it last. An upgrade leaves
/// nothing there.
fn named(path: &Path) -> io::Result<String> {
    let mut uid = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_UID).read_to_string(&mut uid)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(uid)
}

/// Who has the lock, for people.
fn holder(path: &Path) -> String {
    match named(path) {
        Ok(by) if !by.is_empty() => {
            let by: String = by.chars().filter(|c| !c.is_control()).collect();
            format!("pod {by} on this node")
        }
        Ok(_) | Err(_) => "another operation on this node".into(),
    }
}

/// Takes the lock of a node whose root is `root`, for as long as what is returned lives, waiting for it at
/// most `patience`, or until `gives_up`, which ends with [`Locked`]. For whoever ends with all that it has
/// started.
pub fn on_node(root: &Path, patience: Duration, gives_up: impl Fn() -> bool) -> Result<Lock> {
    let directory = root.join(contract::LOCK_DIR.trim_start_matches('/'));
    std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let mut taker = Taker::new(directory.join(contract::LOCK_FILE), "", ABANDONED);
    let until = Instant::now() + patience;
    if let Some(lock) = taker.take_unless(|| Instant::now() >= until || gives_up())? {
        return Ok(lock);
    }
    let by = holder(&taker.path);
    bail!(Locked(if Instant::now() >= until {
        format!("{by} has held it for {} s", patience.as_secs())
    } else {
        format!("told to stop while {by} holds it")
    }))
}

/// Somebody who wants the lock.
struct Taker {
    path: PathBuf,
    /// What is written into the file: a pod's UID, or nothing.
    me: String,
    abandoned: Duration,
    /// Whose UID stood in the file of a lock that was free, and since when that has been so.
    left: Option<(String, Instant)>,
}

impl Taker {
    fn new(path: PathBuf, me: &str, abandoned: Duration) -> Self {
        Self { path, me: me.to_owned(), abandoned, left: None }
    }

    /// Takes the lock as soon as it can be had; `None` once that is given up. Whom it waits for it says once.
    fn take_unless(&mut self, gives_up: impl Fn() -> bool) -> Result<Option<Lock>> {
        let mut told = false;
        loop {
            if let Some(lock) = self.take()? {
                return Ok(Some(lock));
            }
            if !mem::replace(&mut told, true) {
                info!("waiting for the node's lock, which {} holds", holder(&self.path));
            }
            if gives_up() {
                return Ok(None);
            }
            sleep(LOCK_RETRY);
        }
    }

    /// Takes the lock, if it can be had now.
    fn take(&mut self) -> Result<Option<Lock>> {
        let Some(mut lock) = files::try_lock(&self.path)? else {
            self.left = None;
            return Ok(None);
        };
        let doing = || format!("using {}", self.path.display());
        let by = lock.text(MAX_UID).with_context(doing)?;
        if !by.is_empty() && by != self.me && !self.is_abandoned(&by) {
            return Ok(None);
        }
        lock.set_text(&self.me).with_context(|| format!("using {}", self.path.display()))?;
        Ok(Some(lock))
    }

    fn is_abandoned(&mut self, by: &str) -> bool {
        match &self.left {
            Some((left_by, since)) if left_by == by => since.elapsed() >= self.abandoned,
            _ => {
                self.left = Some((by.to_owned(), Instant::now()));
                self.abandoned.is_zero()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.lock");
        (dir, path)
    }

    fn taker(path: &Path, me: &str) -> Taker {
        Taker::new(path.to_owned(), me, Duration::from_millis(200))
    }

    fn has(path: &Path, uid: &str) -> AppletExit {
        let args =
            LockArgs { file: path.to_owned(), check: true, beside_init: false, pod_uid: Some(uid.into()) };
        check(&args, &Host::at("/", None)).unwrap()
    }

    #[test]
    fn one_pod_has_the_lock_and_another_when_it_is_given_back() {
        let (_dir, path) = file();
        assert!(has(&path, "a").code != 0, "nobody has taken it");
        let mut held = taker(&path, "a").take().unwrap().unwrap();
        let mut other = taker(&path, "b");
        assert!(other.take().unwrap().is_none());
        assert_eq!((has(&path, "a").code, has(&path, "b").code), (0, 1));
        assert_eq!(has(&path, "b").message, "pod a on this node holds the node's lock");
        held.set_text("").unwrap();
        assert!(other.take().unwrap().is_none(), "its holder still runs");
        drop(held);
        let _held = other.take().unwrap().unwrap();
        assert_eq!((has(&path, "a").code, has(&path, "b").code), (1, 0));
    }

    #[test]
    fn a_holder_that_died_is_waited_for_and_comes_back_to_its_own() {
        let (_dir, path) = file();
        drop(taker(&path, "a").take().unwrap().unwrap());
        let mut other = taker(&path, "b");
        assert!(other.take().unwrap().is_none(), "its command may go on");
        assert_eq!(has(&path, "a").code, 0);
        let again = taker(&path, "a").take().unwrap().unwrap();
        sleep(Duration::from_millis(250));
        assert!(other.take().unwrap().is_none());
        drop(again);
        assert!(other.take().unwrap().is_none(), "the time counts anew");
        sleep(Duration::from_millis(250));
        let _held = other.take().unwrap().unwrap();
        assert_eq!((has(&path, "a").code, has(&path, "b").code), (1, 0));
    }

    #[test]
    fn who_ends_with_all_that_it_started_leaves_a_lock_that_is_free() {
        let (dir, path) = (tempfile::tempdir().unwrap(), Path::new("run/kairos-operator/node.lock"));
        let held = on_node(dir.path(), Duration::ZERO, || false).unwrap();
        let mut other = taker(&dir.path().join(path), "b");
        assert!(other.take().unwrap().is_none());
        for (patience, told) in
            [(Duration::ZERO, "has held it for 0 s"), (Duration::from_secs(600), "told to stop")]
        {
            let error = on_node(dir.path(), patience, || true).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(told) && said.contains("another operation on this node"), "{said}");
            assert!(error.is::<Locked>(), "nothing has begun: {error:?}");
        }
        std::fs::write(dir.path().join(path), "a").unwrap();
        let error = on_node(dir.path(), Duration::ZERO, || false).unwrap_err().to_string();
        assert!(error.contains("pod a on this node has held it"), "{error}");
        std::fs::write(dir.path().join(path), "").unwrap();
        drop(held);
        other.take().unwrap().unwrap();
    }

    #[test]
    fn a_pod_must_be_known() {
        let (_dir, path) = file();
        for pod_uid in [None, Some(String::new())] {
            let args = LockArgs { file: path.clone(), check: true, beside_init: false, pod_uid };
            assert!(check(&args, &Host::at("/", None)).is_err());
        }
    }
}

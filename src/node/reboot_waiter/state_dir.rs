//! The waiter's side of the state directory: its Job's sentinel, and what may be swept.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::{
    contract::{self, Sentinel, Succeeded},
    node::{
        host::{files, reserve},
        state_directory,
    },
};

/// How large a sentinel may be. Ours are a few hundred bytes.
const MAX_SENTINEL: u64 = 64 * 1024;

/// How old another Job's file must be before it is swept, besides naming an old boot.
///
/// A *sentinel* that names an old boot never makes a reboot due again, so removing it could at most keep its
/// own waiter from saying `completed`. A *result* is another matter: as long as its Job may be tried again it
/// is what keeps the agent from running twice, in later boots too. No Job of ours lives for a week (they have
/// deadlines of hours), and files of a week are no burden. By the age of a file as its own disk tells it; a
/// clock that jumps back keeps files.
const SWEEP_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the note that a reboot is asked for may take to be written. A disk that hangs must not keep the
/// reboot from being asked for, which may be what brings the disk back.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// The state directory of a node and the Job that a waiter cares for.
#[derive(Clone, Debug)]
pub struct StateDir {
    pub path: PathBuf,
    job: String,
    /// What is recorded of the Job, until the reboot that it asks for is over.
    succeeded: Option<Succeeded>,
}

/// A reboot that was asked for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    job_uid: String,
    boot: String,
    /// When the init was started that was asked.
    init: String,
}

/// All that sentinels and results have in common.
#[derive(Deserialize)]
struct Record {
    boot: String,
}

impl StateDir {
    pub fn new(path: PathBuf, job: &str, succeeded: Option<Succeeded>) -> Self {
        Self { path, job: job.into(), succeeded }
    }

    /// Makes the directory if it is missing, and proves that the sentinel can be written, and then the note
    /// of what is asked: their room is kept from now on, whatever fills the disk while the operation runs. A
    /// sentinel that is there already needs none, and must be found on a full disk too.
    pub fn prepare(&self) -> Result<()> {
        if self.sentinel().is_some() {
            return Ok(());
        }
        let made = fs::create_dir_all(&self.path).with_context(|| format!("making {}", self.path.display()));
        made.and_then(|()| reserve::keep(&self.own()))
            .and_then(|()| reserve::keep(&self.asked()))
            .with_context(|| format!("{} takes no sentinel", state_directory()))
    }

    fn own(&self) -> PathBuf {
        self.path.join(contract::sentinel_file(&self.job))
    }

    /// The sentinel of our Job; what is recorded of the Job stands for one that is gone. One that cannot be
    /// read is as good as none until it changes: acting on half of one would be worse, and `sentinel`
    /// replaces files whole.
    pub fn sentinel(&self) -> Option<Sentinel> {
        let path = self.own();
        let read = || -> Result<Option<Sentinel>> {
            let Some(bytes) = files::read(&path, MAX_SENTINEL)? else {
                return Ok(None);
            };
            let sentinel =
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
            Ok(Some(sentinel))
        };
        let found = read().inspect_err(|error| warn!("no use: {error:#}")).ok().flatten();
        let found = found.filter(|sentinel| sentinel.job == self.job && !sentinel.boot.is_empty());
        found.or_else(|| Some(self.succeeded.as_ref()?.sentinel(&self.job)))
    }

    /// Whether there is, or may be, a file in the sentinel's place, also if it cannot be read.
    pub fn has_record(&self) -> bool {
        !fs::symlink_metadata(self.own()).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Writes down that the reboot which this sentinel asks for is asked of the init that was started then.
    pub fn note_asked(&self, sentinel: &Sentinel, init: &str) -> Result<()> {
        let (job_uid, boot) = (sentinel.job_uid.clone(), sentinel.boot.clone());
        let (asked, path) = (serde_json::to_vec(&Asked { job_uid, boot, init: init.into() })?, self.asked());
        within(NOTED_WITHIN, move || reserve::write(&path, &asked, 0o644))
    }

    /// When the init was started that was asked for the reboot which this sentinel asks for, if any was.
    pub fn asked_init(&self, sentinel: &Sentinel) -> Option<String> {
        let bytes = files::read(&self.asked(), MAX_SENTINEL).ok().flatten()?;
        let asked: Asked = serde_json::from_slice(&bytes).ok()?;
        (asked.job_uid == sentinel.job_uid && asked.boot == sentinel.boot).then_some(asked.init)
    }

    fn asked(&self) -> PathBuf {
        self.path.join(contract::asked_file(&self.job))
    }

    /// Removes our Job's sentinel if it is still the one that was judged, and sweeps.
    pub fn remove(&mut self, sentinel: &Sentinel, boot: &str) -> Result<()> {
        if self.sentinel().as_ref() == Some(sentinel) {
            files::remove(&self.own())?;
            files::remove(&self.asked())?;
            self.succeeded = None;
        }
        reserve::release(&self.own());
        reserve::release(&self.asked());
        self.sweep(boot, SystemTime::now());
        Ok(())
    }

    /// Removes files of other Jobs that are of no use to anybody. A courtesy: errors are left to the next
    /// waiter.
    fn sweep(&self, boot: &str, now: SystemTime) {
        let own = [
            contract::sentinel_file(&self.job),
            contract::asked_file(&self.job),
            contract::result_file(&self.job),
        ];
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_another_job = !own.contains(&name) && (name.ends_with(".json") || is_remnant(&name));
            let age = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .ok()
                .and_then(|time| now.duration_since(time).ok());
            if of_another_job
                && age.is_some_and(|age| age > SWEEP_AFTER)
                && names_an_old_boot(&entry.path(), boot)
            {
                debug!(file = name, "sweeping");
                let _ = files::remove(&entry.path());
            }
        }
    }
}

/// What a crash left of a write, or room that was kept for a record that was never written.
fn is_remnant(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".tmp") || name.ends_with(reserve::SUFFIX))
}

/// A record that cannot be read names nothing and stays, unless it is a remnant.
fn names_an_old_boot(path: &Path, boot: &str) -> bool {
    if path.file_name().is_some_and(|name| is_remnant(&name.to_string_lossy())) {
        return true;
    }
    let record = files::read(path, MAX_SENTINEL)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    record.is_some_and(|record| record.boot != boot)
}

/// Does this, for at most that time. What takes longer goes on in a thread of its own, which ends with the
/// process.
fn within(limit: Duration, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (tell, done) = mpsc::channel();
    thread::Builder::new().spawn(move || drop(tell.send(work()))).context("starting a thread")?;
    let late = || anyhow!("the disk did not take it within {} s", limit.as_secs());
    done.recv_timeout(limit).unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinel(job: &str, boot: &str) -> Sentinel {
        Sentinel { job: job.into(), job_uid: "u".into(), boot: boot.into(), ..Sentinel::default() }
    }

    fn directory() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path().join("usr/local/.kairos"), "mine", None);
        state.prepare().unwrap();
        (root, state)
    }

    fn write(state: &StateDir, name: &str, text: &str, days: u64) {
        let path = state.path.join(name);
        fs::write(&path, text).unwrap();
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_disk_that_hangs_holds_nothing_up() {
        let hangs = || {
            within(Duration::ZERO, || {
                loop {
                    thread::park()
                }
            })
        };
        assert_eq!(hangs().unwrap_err().to_string(), "the disk did not take it within 0 s");
        let fails = within(NOTED_WITHIN, || Err(anyhow!("no space left on device")));
        assert_eq!(fails.unwrap_err().to_string(), "no space left on device");
        assert!(within(NOTED_WITHIN, || Ok(())).is_ok());
    }

    #[test]
    fn it_is_made_and_keeps_room_for_what_is_written_there_that_is_removed_with_it() {
        let (root, mut state) = directory();
        for name in [".mine.json.reserve", ".mine.asked.json.reserve"] {
            assert_eq!(fs::metadata(state.path.join(name)).unwrap().len(), reserve::ROOM as u64, "{name}");
        }
        state.prepare().unwrap();
        state.remove(&sentinel("mine", "old"), "new").unwrap();
        assert_eq!(fs::read_dir(&state.path).unwrap().count(), 0);
        fs::remove_dir(&state.path).unwrap();
        fs::write(&state.path, "in its place").unwrap();
        let message = format!("{:#}", state.prepare().unwrap_err());
        assert!(
            message.contains("/usr/local/.kairos by default") && message.contains("File exists"),
            "{message}"
        );
        drop(root);
    }

    #[test]
    fn a_waiter_that_starts_beside_its_sentinel_needs_no_room() {
        let (_root, state) = directory();
        for name in [".mine.json.reserve", ".mine.asked.json.reserve"] {
            fs::remove_file(state.path.join(name)).unwrap();
        }
        write(&state, "mine.json", &serde_json::to_string(&sentinel("mine", "b")).unwrap(), 0);
        state.prepare().unwrap();
        assert_eq!(fs::read_dir(&state.path).unwrap().count(), 1);
    }

    #[test]
    fn only_a_whole_sentinel_of_our_job_counts() {
        let (_root, state) = directory();
        let good = serde_json::to_string(&sentinel("mine", "b")).unwrap();
        let foreign = serde_json::to_string(&sentinel("other", "b")).unwrap();
        let nameless = serde_json::to_string(&sentinel("mine", "")).unwrap();
        for text in ["", &good[..good.len() - 1], "[]", &foreign, &nameless, &" ".repeat(70_000)] {
            write(&state, "mine.json", text, 0);
            assert_eq!(state.sentinel(), None, "{text:.60}");
        }
        write(&state, "mine.json", &good, 0);
        assert_eq!(state.sentinel(), Some(sentinel("mine", "b")));
    }

    #[test]
    fn a_sentinel_that_changed_is_not_removed() {
        let (_root, mut state) = directory();
        write(&state, "mine.json", &serde_json::to_string(&sentinel("mine", "new")).unwrap(), 0);
        state.remove(&sentinel("mine", "old"), "new").unwrap();
        assert!(state.sentinel().is_some());
        state.remove(&sentinel("mine", "new"), "new").unwrap();
        assert!(state.sentinel().is_none());
    }

    #[test]
    fn what_was_asked_is_of_one_job_and_boot_and_goes_with_the_sentinel() {
        let (_root, mut state) = directory();
        write(&state, "mine.json", &serde_json::to_string(&sentinel("mine", "b")).unwrap(), 0);
        let of = sentinel("mine", "b");
        assert_eq!(state.asked_init(&of), None);
        state.note_asked(&of, "17").unwrap();
        assert!(!state.path.join(".mine.asked.json.reserve").exists(), "it is written into its room");
        assert_eq!(state.asked_init(&of).as_deref(), Some("17"));
        assert_eq!(state.asked_init(&sentinel("mine", "c")), None);
        assert_eq!(state.asked_init(&Sentinel { job_uid: "v".into(), ..of.clone() }), None);
        state.remove(&of, "new").unwrap();
        assert_eq!(fs::read_dir(&state.path).unwrap().count(), 0);
    }

    #[test]
    fn only_old_files_of_other_jobs_in_old_boots_are_swept() {
        let (_root, state) = directory();
        let of = |boot: &str| format!(r#"{{"boot":"{boot}","jobUid":"u"}}"#);
        let kept = [
            "mine.json",
            "mine.upgrade.json",
            "mine.asked.json",
            "live.json",
            "live.upgrade.json",
            "young.json",
            "young.upgrade.json",
            "odd.json",
            "lock",
            ".mine.json.reserve",
            ".mine.asked.json.reserve",
            ".young.json.reserve",
        ];
        let swept = [
            "old.json",
            "old.upgrade.json",
            "old.asked.json",
            ".old.json.tmp",
            ".old.json.reserve",
            "..old.json.reserve.tmp",
        ];
        for (name, boot, days) in [
            ("mine.json", "old", 30),
            ("mine.upgrade.json", "old", 30),
            ("mine.asked.json", "old", 30),
            ("old.asked.json", "old", 8),
            ("live.json", "now", 30),
            ("live.upgrade.json", "now", 30),
            ("young.json", "old", 6),
            ("young.upgrade.json", "old", 6),
            ("lock", "old", 30),
            ("old.json", "old", 8),
            ("old.upgrade.json", "old", 8),
        ] {
            write(&state, name, &of(boot), days);
        }
        write(&state, "odd.json", "not ours", 30);
        write(&state, ".young.json.reserve", "", 6);
        for name in [".old.json.tmp", ".old.json.reserve", "..old.json.reserve.tmp"] {
            write(&state, name, "", 30);
        }
        state.sweep("now", SystemTime::now());
        let mut left: Vec<_> = fs::read_dir(&state.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = kept.map(String::from).to_vec();
        expected.sort();
        assert_eq!(left, expected, "swept should be {swept:?}");
    }
}

//! Files whose loss a power cut must not cause: written whole or not at all, read with a limit.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};

/// Reads a regular file of at most `limit` bytes; `None` if there is none.
///
/// Not blocking, because whatever stands in the file's place (a FIFO) must not hold the applet up.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading {}", path.display());
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(doing),
    };
    contents(file, limit).with_context(doing).map(Some)
}

/// The contents of an open regular file of at most `limit` bytes.
pub fn contents(file: File, limit: u64) -> Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        bail!("not a regular file");
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("larger than {limit} bytes");
    }
    Ok(bytes)
}

/// Writes a file so that, whenever the power goes, its path holds the old contents or the new, and holds the
/// new once this has returned: file, rename and directory are all synced.
///
/// The temporary name starts with a dot, and so is never taken for a sentinel. It is a fixed one, so that
/// crashes leave at most one of it.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} names no file", path.display())
    };
    let temporary = directory.join(format!(".{}.tmp", name.to_string_lossy()));
    let write = || -> std::io::Result<()> {
        remove_if_there(&temporary)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(doing)
}

/// Removes a file, durably; one that is gone already is as good.
pub fn remove(path: &Path) -> Result<()> {
    let remove = || -> std::io::Result<()> {
        remove_if_there(path)?;
        sync_directory(path)
    };
    match remove() {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes durable that a file of this path was made, renamed or removed.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An exclusive lock on a file, which the kernel drops with the last descriptor of it, however its holder
/// ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

/// How often a lock that somebody else holds is tried: `flock` itself cannot wait with a deadline.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Takes the lock on `path`, which is made if missing, waiting for it at most `patience`.
pub fn lock(path: &Path, patience: Duration) -> Result<Lock> {
    let doing = || format!("locking {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(doing)?;
    let until = Instant::now() + patience;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Lock(lock)),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < until => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(anyhow!("held by somebody else for {} s", patience.as_secs()))
                    .with_context(doing);
            }
            Err((_, errno)) => return Err(errno).with_context(doing),
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(dir.path().join(".a.json.tmp"), "of a crash").unwrap();
        for text in ["one", "two"] {
            write_atomic(&path, text.as_bytes(), 0o640).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a.json/full")).unwrap();
        let error = write_atomic(&dir.path().join("a.json"), b"x", 0o600).unwrap_err();
        assert!(format!("{error:#}").starts_with("writing "), "{error:#}");
        assert!(!dir.path().join(".a.json.tmp").exists());
    }

    #[test]
    fn reading_has_a_limit_and_wants_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read(&path, 3).unwrap(), None);
        fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert!(format!("{:#}", read(&path, 2).unwrap_err()).contains("larger than 2 bytes"));
        assert!(format!("{:#}", read(dir.path(), 9).unwrap_err()).contains("not a regular file"));
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&dir.path().join("fifo"), 9).is_err(), "a FIFO without a writer must not hold us up");
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        remove(Path::new("/nowhere/at/all")).unwrap();
    }

    #[test]
    fn a_lock_is_held_by_one_and_given_up_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path, Duration::ZERO).unwrap();
        let error = lock(&path, Duration::from_millis(150)).unwrap_err();
        assert!(format!("{error:#}").contains("held by somebody else"), "{error:#}");
        drop(held);
        lock(&path, Duration::ZERO).unwrap();
    }
}

//! Files whose loss a power cut must not cause: written whole or not at all, read with a limit.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
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
/// ends. What stands in the file is its holder's to read and to write.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// What stands in the file, at most `limit` bytes of it.
    pub fn text(&mut self, limit: u64) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        self.0.rewind()?;
        (&*self.0).take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Leaves `text` in the file, and nothing else. It is on the disk when the kernel writes it there, and
    /// not before.
    pub fn set_text(&mut self, text: &str) -> std::io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(text.as_bytes())
    }
}

/// How often a lock that somebody else holds is tried: `flock` itself cannot wait with a deadline.
pub const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Takes the lock on `path`, which is made if missing; `None` if somebody else holds it.
pub fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let doing = || format!("locking {}", path.display());
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(path).with_context(doing)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(Lock(lock))),
            Err((back, Errno::EINTR)) => file = back,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno).with_context(doing),
        }
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
    fn a_lock_is_held_by_one_who_alone_writes_into_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut held = try_lock(&path).unwrap().unwrap();
        for text in ["one", "2", ""] {
            held.set_text(text).unwrap();
            assert_eq!(
                (held.text(9).unwrap().as_str(), fs::read_to_string(&path).unwrap().as_str()),
                (text, text)
            );
            assert!(try_lock(&path).unwrap().is_none());
        }
        held.set_text("longer").unwrap();
        assert_eq!(held.text(4).unwrap(), "long");
        drop(held);
        assert_eq!(try_lock(&path).unwrap().unwrap().text(9).unwrap(), "longer");
    }
}

//! Mounts of this mount namespace, and files below a directory whose links must not lead out of it.

use std::{
    fs::{File, Metadata},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, major, minor},
};

use super::files;

/// For what something below a root is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only to be looked at.
    Look,
    Read,
    /// A directory.
    Directory,
    /// A file that is written in its place, and is no link.
    Write,
}

/// Opens a file below `root`, with every link resolved as if `root` were `/`: the host's `/etc/os-release` is
/// a link to `../usr/lib/os-release`, or to an absolute path, of *its* root. `None` if there is none.
pub fn open_in_root(root: &Path, path: &str, access: Access) -> Result<Option<File>> {
    // Whatever stands in the file's place (a FIFO) must not hold the applet up.
    let flags = match access {
        Access::Look => OFlag::O_PATH,
        Access::Read => OFlag::O_RDONLY | OFlag::O_NONBLOCK,
        Access::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Access::Write => OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK,
    };
    let doing = || format!("opening {path} below {}", root.display());
    let directory = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(doing)?;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(&directory, path.trim_start_matches('/'), how) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(doing),
    }
}

/// Reads a regular file below `root`, found as [`open_in_root`] finds it. `None` if there is none.
pub fn read_in_root(root: &Path, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading {path} below {}", root.display());
    let file = open_in_root(root, path, Access::Read)?;
    file.map(|file| files::contents(file, limit).with_context(doing)).transpose()
}

/// What is known of a file below `root`, found as [`open_in_root`] finds it, without opening it for reading.
/// `None` if there is none.
pub fn metadata_in_root(root: &Path, path: &str) -> Result<Option<Metadata>> {
    let doing = || format!("looking at {path} below {}", root.display());
    let file = open_in_root(root, path, Access::Look)?;
    file.map(|file| file.metadata().with_context(doing)).transpose()
}

/// The mount points in a `/proc/<pid>/mountinfo`, in order; a path mounted over twice is named twice.
pub fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        };
        match (byte, tail.get(..3).and_then(octal)) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Whether the filesystem of a device is read-only, by a `/proc/<pid>/mountinfo`. That a mount of it is says
/// nothing: a container may have it so.
pub fn is_read_only(mountinfo: &[u8], device: u64) -> bool {
    let device = format!("{}:{}", major(device), minor(device));
    String::from_utf8_lossy(mountinfo).lines().any(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(2) == Some(&device.as_str())
            && fields.last().is_some_and(|options| options.split(',').any(|option| option == "ro"))
    })
}

/// Takes the uppermost mount off a path. Lazily, for somebody may have the file open.
pub fn unmount(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", path.display()))
}

/// Shows `from`, with all that is mounted below it, at `to` too.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    let nothing: Option<&str> = None;
    let doing = || format!("binding {} to {}", from.display(), to.display());
    mount(Some(from), to, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing).with_context(doing)
}

/// Mounts a small filesystem in memory at a directory.
pub fn in_memory(at: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=64k,mode=0700"))
        .with_context(|| format!("mounting memory at {}", at.display()))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a file may be executed by this process.
pub fn is_executable(path: &Path) -> bool {
    let access = nix::unistd::AccessFlags::X_OK;
    path.is_file() && nix::unistd::faccessat(AT_FDCWD, path, access, nix::fcntl::AtFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::create_dir_all(dir.path().join("root/usr/lib")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(dir.path().join("root/usr/lib/os-release"), "inside").unwrap();
        let root = dir.path().join("root");
        for target in ["../usr/lib/os-release", "/usr/lib/os-release", "../../../../usr/lib/os-release"] {
            let link = root.join("etc/os-release");
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            let found = read_in_root(&root, "/etc/os-release", 99).unwrap();
            assert_eq!(found.as_deref(), Some(&b"inside"[..]), "{target}");
        }
        symlink(dir.path().join("secret"), root.join("etc/absolute")).unwrap();
        symlink("../../secret", root.join("etc/relative")).unwrap();
        for path in ["etc/absolute", "etc/relative", "etc/nothing", "etc/os-release/x"] {
            assert_eq!(read_in_root(&root, path, 99).unwrap(), None, "{path}");
        }
        symlink("loop", root.join("etc/loop")).unwrap();
        assert!(read_in_root(&root, "etc/loop", 99).is_err());
        assert!(read_in_root(&root, "etc", 99).is_err(), "a directory");
        assert!(read_in_root(&root, "usr/lib/os-release", 5).is_err(), "too large");
    }

    #[test]
    fn mount_points_are_read_from_mountinfo() {
        let text = b"36 35 98:0 /mnt1 / rw,noatime master:1 - ext3 /dev/root rw\n\
            40 36 0:5 /etc-hosts /etc/hosts rw - ext4 /dev/sda rw\n41 36 0:5 / /with\\040space\\134 rw - tmpfs t rw\n\ngarbage\n";
        let points = mount_points(text);
        assert_eq!(points, ["/", "/etc/hosts", "/with space\\"].map(PathBuf::from));
        assert_eq!(unescape(b"a\\9zz\\04"), PathBuf::from("a\\9zz\\04"));
    }

    #[test]
    fn a_filesystem_is_read_only_and_not_one_mount_of_it() {
        let text =
            b"1 0 8:2 / / ro,noatime - ext4 /dev/sda2 ro,seclabel\n2 1 8:3 / /oem ro - ext4 /dev/sda3 rw\n";
        for (device, read_only) in [(0x802, true), (0x803, false), (0x804, false)] {
            assert_eq!(is_read_only(text, device), read_only, "{device:x}");
        }
    }

    /// In a mount namespace of this thread's own.
    #[test]
    fn a_file_mounted_over_comes_back_and_binds_are_recursive() {
        let test = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing: Option<&str> = None;
            mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)?;
            let dir = tempfile::tempdir().unwrap();
            let (ours, theirs) = (dir.path().join("hosts"), dir.path().join("injected"));
            fs::write(&ours, "ours").unwrap();
            fs::write(&theirs, "theirs").unwrap();
            bind(&theirs, &ours).unwrap();
            assert_eq!(fs::read_to_string(&ours).unwrap(), "theirs");
            let mountinfo = fs::read("/proc/thread-self/mountinfo").unwrap();
            assert!(mount_points(&mountinfo).contains(&ours));
            unmount(&ours).unwrap();
            assert_eq!(fs::read_to_string(&ours).unwrap(), "ours");
            assert!(unmount(&ours).is_err());

            let (outer, inner, copy) =
                (dir.path().join("outer"), dir.path().join("outer/inner"), dir.path().join("copy"));
            fs::create_dir_all(&inner).unwrap();
            fs::create_dir_all(&copy).unwrap();
            mount(nothing, &inner, Some("tmpfs"), MsFlags::empty(), nothing)?;
            fs::write(inner.join("deep"), "").unwrap();
            bind(&outer, &copy).unwrap();
            assert!(copy.join("inner/deep").exists());
            unmount(&copy).unwrap();
            unmount(&inner).unwrap();
            Ok::<_, Errno>(())
        });
        if let Err(errno) = test.join().unwrap() {
            eprintln!("skipped: a mount namespace is not permitted here ({errno})");
        }
    }
}

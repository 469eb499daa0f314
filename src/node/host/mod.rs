//! The node as an applet sees it: files, boot, init, under a root directory that is a parameter.
//!
//! Only this module and those below it use nix and rustix. With any root but `/` nothing outside the root is
//! touched: a signal goes to the process of [`contract::env::INIT_PID`] or to none, and `reboot(2)` is never
//! called.

pub mod disk;
pub mod files;
pub mod init;
pub mod mounts;
pub mod reserve;

use std::path::{Path, PathBuf};

use crate::contract;

/// How large a file may be that holds a few lines.
const SMALL: u64 = 4096;

/// The root directory of a node, or of a directory that stands for one.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    init_pid: Option<i32>,
}

impl Host {
    /// The host of this process: `/`, or what the environment says.
    pub fn from_env() -> Self {
        let root = std::env::var_os(contract::env::ROOT)
            .filter(|root| !root.is_empty())
            .unwrap_or_else(|| "/".into());
        let init_pid = std::env::var(contract::env::INIT_PID).ok().and_then(|pid| pid.parse().ok());
        Self::at(root, init_pid)
    }

    /// A host under `root`; `init_pid` stands for PID 1 there.
    pub fn at(root: impl Into<PathBuf>, init_pid: Option<i32>) -> Self {
        Self { root: root.into(), init_pid }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this is the machine itself. Whatever is not plainly `/` is not.
    pub fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the node is.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_under_the_root() {
        let host = Host::at("/tmp/n1", None);
        assert_eq!(host.path("/proc/1/comm"), Path::new("/tmp/n1/proc/1/comm"));
        assert_eq!(host.path("state/.kairos"), Path::new("/tmp/n1/state/.kairos"));
        assert_eq!(Host::at("/", None).path("/proc/1/comm"), Path::new("/proc/1/comm"));
    }

    #[test]
    fn only_the_plain_root_is_the_machine() {
        assert!(Host::at("/", None).is_real());
        for root in ["/tmp", "/tmp/..", "tmp", ".", ""] {
            assert!(!Host::at(root, None).is_real(), "{root}");
        }
    }
}

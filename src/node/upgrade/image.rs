//! Makes the container look like the image on a machine: without the files that Kubernetes mounted over the
//! image's own, and with the devices of the host.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tracing::{info, warn};

use crate::node::host::{Host, mounts};

/// What Kubernetes mounts over files of every container. `kairos-agent` copies `/` as it sees it; an image
/// with the hostname and hosts of a pod in it is upstream's best known defect. What else is mounted is below
/// directories that the agent leaves out.
const INJECTED: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Directories of the host that the agent needs: block devices, and what the boot left in `/run`.
const FROM_HOST: [&str; 2] = ["/dev", "/run"];

/// Unmounts what was injected, and returns the paths that stayed covered.
pub fn uncover(host: &Host) -> Result<Vec<String>> {
    let mut covered = Vec::new();
    for path in injected(host)? {
        match mounts::unmount(&path) {
            Ok(()) => info!(path = %path.display(), "took off what Kubernetes mounted"),
            Err(error) => {
                warn!("leaving it out of the image instead: {error:#}");
                covered.push(path.to_string_lossy().into_owned());
            }
        }
    }
    covered.dedup();
    Ok(covered)
}

fn injected(host: &Host) -> Result<Vec<PathBuf>> {
    if !host.is_real() {
        return Ok(Vec::new());
    }
    let mountinfo = std::fs::read("/proc/self/mountinfo").context("reading what is mounted")?;
    Ok(only_injected(mounts::mount_points(&mountinfo)))
}

fn only_injected(points: Vec<PathBuf>) -> Vec<PathBuf> {
    points.into_iter().filter(|point| INJECTED.iter().any(|path| point == Path::new(path))).collect()
}

/// Shows the host's devices. A directory that stands for a node has none to show.
pub fn show_host(host: &Host, host_dir: &Path) -> Result<()> {
    if !host.is_real() {
        return Ok(());
    }
    FROM_HOST.iter().try_for_each(|path| mounts::bind(&host_dir.join(&path[1..]), Path::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_injects_is_taken_off() {
        let text = b"1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /dev rw - tmpfs t rw\n3 2 0:2 /x /dev/termination-log rw - ext4 e rw\n\
            4 1 0:2 /h /etc/hosts rw - ext4 e rw\n5 1 0:2 /n /etc/hostname rw - ext4 e rw\n6 1 0:2 /r /etc/resolv.conf rw - ext4 e rw\n\
            7 1 0:2 / /host rw - ext4 e rw\n8 7 0:2 / /host/etc/hosts rw - ext4 e rw\n";
        let found = only_injected(mounts::mount_points(text));
        assert_eq!(found, ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(PathBuf::from));
    }

    #[test]
    fn a_directory_that_stands_for_a_node_keeps_its_mounts() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        assert_eq!(uncover(&host).unwrap(), Vec::<String>::new());
        show_host(&host, Path::new("/nowhere")).unwrap();
    }
}

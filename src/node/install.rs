//! Applet `install`: copies this very binary, which is static, to where a container of the user's image can
//! run it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::{
    AppletExit,
    host::{Host, files},
};

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    /// Where to put the binary.
    #[arg(long)]
    pub to: PathBuf,
}

/// Copies the running binary. Read from `/proc/self/exe`, which is this process's own even below another
/// root.
pub fn run(args: &InstallArgs, host: &Host) -> Result<AppletExit> {
    let binary = std::fs::read("/proc/self/exe").context("reading the running binary")?;
    let to = host.path(&args.to);
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    files::write_atomic(&to, &binary, 0o755)?;
    Ok(AppletExit::success(format!("installed {} bytes as {}", binary.len(), args.to.display())))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_copy_is_whole_and_may_be_run() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        let args = InstallArgs { to: "/mnt/kairos-operator/kairos-operator".into() };
        for _ in 0..2 {
            run(&args, &host).unwrap();
        }
        let copy = host.path(&args.to);
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(fs::read(&copy).unwrap() == fs::read(std::env::current_exe().unwrap()).unwrap());
    }
}

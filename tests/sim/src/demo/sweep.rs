//! Nothing is left behind, however the demo ends: also by `kill -9`, and by a terminal that is closed.
//!
//! A process of its own waits for the end of ours, which it sees by a pipe that nobody holds any more. Then it
//! ends what still runs of the demo, and removes its files.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Between two looks for processes that still run.
const PAUSE: Duration = Duration::from_millis(50);
/// How often one looks: what has been killed is gone after the first.
const LOOKS: usize = 40;

/// The process that removes what the demo leaves.
#[derive(Debug)]
pub struct Sweeper {
    child: Child,
}

impl Sweeper {
    /// Removes `directory` when this process ends. A group of its own keeps the terminal's signals from it.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("--sweep")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting what cleans up behind the demo")?;
        Ok(Self { child })
    }

    /// Removes it now, and waits for that.
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the process does.
pub fn run(directory: &Path) -> anyhow::Result<()> {
    // Nobody writes: this returns when the other end is closed, whatever closed it.
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
    for _ in 0..LOOKS {
        let left = processes_of(directory);
        if left.is_empty() {
            break;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Our own programs that were told of the directory, in an argument or a variable: the operator and what
/// watches it by their kubeconfig, what runs on nodes by the node's root. A user's kubectl has the same
/// variable, and is left alone.
fn processes_of(directory: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = i32::try_from(std::process::id()).unwrap_or_default();
    pids.filter(|pid| *pid != ours && is_ours(*pid, directory)).map(Pid::from_raw).collect()
}

fn is_ours(pid: i32, directory: &Path) -> bool {
    let of = PathBuf::from(format!("/proc/{pid}"));
    let (Ok(program), Ok(own)) = (fs::read_link(of.join("exe")), std::env::current_exe()) else {
        return false;
    };
    let Some(wanted) = directory.to_str().map(str::as_bytes) else { return false };
    let told = ["cmdline", "environ"].iter().any(|file| {
        let text = fs::read(of.join(file)).unwrap_or_default();
        text.windows(wanted.len()).any(|part| part == wanted)
    });
    told && (program.parent() == own.parent() || program.starts_with(directory))
}

//! How much is logged, changed while the process runs: by a signal, since the image has no shell and the
//! operator no door for it. `kubectl exec POD -- /kairos-operator log-level debug` sends one.

use std::{env, ffi::OsStr, fmt, fs, os::unix::ffi::OsStrExt, path::Path};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::contract::applet;

/// How much is logged.
pub struct Verbosity {
    started: Targets,
    apply: Box<dyn Fn(Targets) + Send + Sync>,
}

impl fmt::Debug for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbosity").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Verbosity {
    /// That with which the process started, and what applies another one.
    pub(super) fn new(started: Targets, apply: impl Fn(Targets) + Send + Sync + 'static) -> Self {
        Self { started, apply: Box::new(apply) }
    }

    /// Logs as asked from now on. What other crates log stays as it was.
    pub fn set(&self, level: LogLevel) {
        (self.apply)(match level {
            LogLevel::Debug => self.started.clone().with_target(env!("CARGO_CRATE_NAME"), Level::DEBUG),
            LogLevel::Default => self.started.clone(),
        });
    }
}

/// How much the operator is to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Each request and each step, too
    Debug,
    /// As its flags said when it started
    Default,
}

impl LogLevel {
    pub const ALL: [Self; 2] = [Self::Debug, Self::Default];

    /// The signal that asks a running controller for it.
    pub const fn signal(self) -> Signal {
        match self {
            Self::Debug => Signal::SIGUSR1,
            Self::Default => Signal::SIGUSR2,
        }
    }
}

/// What to log, and whom to tell.
#[derive(Debug, Args)]
pub struct LogLevelArgs {
    #[arg(value_enum)]
    pub level: LogLevel,
    /// The controller's process; in its container it is the first one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
}

/// Applet `log-level`: tells the controller that runs in the same container.
///
/// # Errors
///
/// The process is not there, or is not a controller of this program. To others these signals mean something
/// else: in a reboot waiter, which runs the same image, process 1 is the host's init, and busybox's halts the
/// machine for one and powers it off for the other.
pub fn run(args: &LogLevelArgs) -> anyhow::Result<()> {
    let pid = args.pid;
    let telling = || format!("telling process {pid} what to log");
    let command = fs::read(format!("/proc/{pid}/cmdline")).with_context(telling)?;
    let this = env::current_exe().with_context(telling)?;
    if !is_controller(&command, this.file_name()) {
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let command: String = command.trim().chars().take(MAX_SHOWN).collect();
        anyhow::bail!(
            "process {pid} ({command}) is no controller of this program, and is told nothing: exec into the \
             operator's own pod, kubectl -n operator-system exec POD -- /kairos-operator log-level …"
        );
    }
    kill(Pid::from_raw(pid), args.level.signal()).with_context(telling)
}

/// Characters of a foreign process's command line that a message shows.
const MAX_SHOWN: usize = 80;

/// Whether a command line, with a zero byte behind each argument, runs the controller: by a link of the
/// applet's name, or as the first argument of a file called as this program's is.
fn is_controller(command: &[u8], this: Option<&OsStr>) -> bool {
    let mut arguments = command.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let program = arguments.next().and_then(|path| Path::new(path).file_name());
    let controller = OsStr::new(applet::CONTROLLER);
    program == Some(controller)
        || program.is_some() && program == this && arguments.next() == Some(controller)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_controller_is_known_by_its_command_line() {
        let is = |command: &[u8]| is_controller(command, Some(OsStr::new("kairos-operator")));
        assert!(is(b"/kairos-operator\0controller\0--leader-elect\0") && is(b"/bin/controller\0--x\0"));
        for other in [
            &b"/sbin/init\0"[..],
            b"init\0controller\0",
            b"/pause\0",
            b"/kairos-operator\0reboot-waiter\0controller\0",
            b"k0s\0controller\0",
            b"",
        ] {
            assert!(!is(other), "{}", String::from_utf8_lossy(other));
        }
        assert!(!is_controller(b"", None));
    }

    #[test]
    fn debug_messages_are_logged_until_it_is_set_back() {
        let started: Targets = "warn,kube_client=off,kairos_operator=info".parse().unwrap();
        let now = Arc::new(Mutex::new(started.clone()));
        let applied = now.clone();
        let verbosity = Verbosity::new(started, move |filter| *applied.lock().unwrap() = filter);
        let logs = |target: &str, level: Level| now.lock().unwrap().would_enable(target, &level);
        assert!(!logs("kairos_operator::plan", Level::DEBUG));
        verbosity.set(LogLevel::Debug);
        assert!(logs("kairos_operator::plan", Level::DEBUG));
        assert!(!logs("kube_client::client", Level::ERROR) && !logs("hyper", Level::INFO));
        verbosity.set(LogLevel::Default);
        assert!(!logs("kairos_operator::plan", Level::DEBUG) && logs("kairos_operator::plan", Level::INFO));
    }
}

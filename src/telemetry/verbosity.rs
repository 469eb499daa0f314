//! How much is logged, changed while the process runs: by a signal, since the image has no shell and the
//! operator no door for it. `kubectl exec POD -- /kairos-operator log-level debug` sends one.

use std::fmt;

use anyhow::Context;
use clap::{Args, ValueEnum};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracing::Level;
use tracing_subscriber::filter::Targets;

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
pub fn run(args: &LogLevelArgs) -> anyhow::Result<()> {
    kill(Pid::from_raw(args.pid), args.level.signal())
        .with_context(|| format!("telling process {} what to log", args.pid))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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

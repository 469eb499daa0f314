//! On the node: the applets that a NodeOp's pods run. Synchronous and small, with the root directory as a
//! parameter ([`host::Host`]), so that a temporary directory can be a node.
//!
//! An applet's result is an exit code and its termination message, which the kubelet keeps in the pod's
//! status. A non-zero code never comes without them.

mod clock;
pub mod facts;
pub mod host;
pub mod image_check;
pub mod install;
pub mod lock;
pub mod os_release;
pub mod reboot_waiter;
pub mod result;
pub mod sentinel;
mod signals;
mod trusted_boot;
pub mod upgrade;
pub mod version;

use std::{fmt, process::ExitCode};

use tracing::{error, info};

use self::host::{Host, reserve};
use crate::{
    contract,
    telemetry::{MAX_TERMINATION_MESSAGE, TerminationMessage},
};

/// How an applet ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppletExit {
    /// The exit code; 0 is success.
    pub code: u8,
    /// The termination message.
    pub message: String,
}

impl AppletExit {
    pub fn success(message: impl Into<String>) -> Self {
        Self { code: 0, message: message.into() }
    }

    /// Gave up; another try may succeed.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

/// How many seconds a record that comes after the work is tried to be written, if nobody says. A kubelet
/// short of disk space begins to clean up within ten.
pub(crate) const RECORD_TIMEOUT: u32 = 30;

/// The state directory, for people: an applet sees it somewhere else, and knows only the default of
/// `--state-dir`.
pub(crate) fn state_directory() -> String {
    format!("the node's state directory ({} by default)", contract::STATE_DIR)
}

/// An error that no retry can repair; it ends the process with [`contract::EXIT_PERMANENT`], at which Jobs
/// fail at once.
#[derive(Debug)]
pub struct Permanent(pub String);

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Permanent {}

/// The node's lock could not be had, and nothing was done; it ends the process with
/// [`contract::EXIT_LOCKED`].
#[derive(Debug)]
pub struct Locked(pub String);

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Locked {}

/// Runs an applet: gives it the host, and its termination message to the kubelet.
///
/// The termination message is opened first, because an applet may cover `/dev` with another mount; and room
/// is kept in it, because an applet may fill the disk that it is on.
pub fn run(applet: impl FnOnce(&Host) -> anyhow::Result<AppletExit>) -> ExitCode {
    let host = Host::from_env();
    let mut termination_message = TerminationMessage::open(host.root());
    if let Some(file) = termination_message.file() {
        reserve::allocate(file, MAX_TERMINATION_MESSAGE);
    }
    let ended = applet(&host)
        .unwrap_or_else(|error| AppletExit { code: code_of(&error), message: format!("{error:#}") });
    match ended.code {
        0 if ended.message.is_empty() => {}
        0 => info!("{}", ended.message),
        code => error!(code, "{}", ended.message),
    }
    termination_message.say(&ended.message);
    ExitCode::from(ended.code)
}

/// Runs a probe of a container of ours. What it says goes to the kubelet's Event about it, and not into the
/// container's termination message, which is that of the process that it looks at.
pub fn probe(probe: impl FnOnce(&Host) -> anyhow::Result<AppletExit>) -> ExitCode {
    let ended = probe(&Host::from_env())
        .unwrap_or_else(|error| AppletExit { code: code_of(&error), message: format!("{error:#}") });
    if !ended.message.is_empty() {
        println!("{}", ended.message);
    }
    ExitCode::from(ended.code)
}

fn code_of(error: &anyhow::Error) -> u8 {
    let of = |is: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(is);
    if of(|cause| cause.is::<Permanent>()) {
        contract::EXIT_PERMANENT
    } else if of(|cause| cause.is::<Locked>()) {
        contract::EXIT_LOCKED
    } else {
        1
    }
}

/// A Job's name as the name of a file: it ends up in a path, so it may not lead out of its directory.
pub(crate) fn job_name(value: &str) -> Result<String, String> {
    if value.is_empty() || value.starts_with('.') || value.contains(['/', '\0']) {
        return Err("a Job's name is a DNS label".into());
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_permanent_error_is_seen_under_its_context() {
        let error = anyhow!(Permanent("no such agent".into()));
        assert_eq!(code_of(&error), contract::EXIT_PERMANENT);
        assert_eq!(code_of(&Err::<(), _>(error).context("upgrading").unwrap_err()), contract::EXIT_PERMANENT);
        assert_eq!(
            code_of(&anyhow!(Locked("by another".into())).context("upgrading")),
            contract::EXIT_LOCKED
        );
        assert_eq!(code_of(&anyhow!("disk full")), 1);
    }
}

//! Logging, and the termination message of an applet.
//!
//! Logs go to standard error. What an applet wants the controller to know goes to the container's termination
//! message instead: the kubelet shows it in the pod's status, where it outlives the log.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, Seek, Write},
    path::Path,
};

use tracing_subscriber::{filter::Targets, fmt, prelude::*, reload};

mod verbosity;

pub use self::verbosity::{LogLevel, LogLevelArgs, Verbosity, run as log_level};

/// The kubelet's default `terminationMessagePath`.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The kubelet cuts a termination message at 4096 bytes; a cut JSON document would be worse than none.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Starts logging. `RUST_LOG`, a list of levels and `target=level`, wins over `default` (for example `info`);
/// `json` writes one JSON object a line. What is returned changes the level while the process runs. A second
/// call changes nothing.
///
/// What `EnvFilter` can besides, spans and patterns of fields, nobody asks of an operator, and it would bring
/// an engine for regular expressions into the binary.
pub fn init(default: &str, json: bool) -> Verbosity {
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    let asked = asked.and_then(|asked| asked.parse().ok());
    let filter: Targets = asked.or_else(|| default.parse().ok()).unwrap_or_default();
    let (started, (filter, level)) = (filter.clone(), reload::Layer::new(filter));
    let layer = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let logs = tracing_subscriber::registry();
    let _ = if json {
        logs.with(layer.json().with_filter(filter)).try_init()
    } else {
        logs.with(layer.with_target(false).with_filter(filter)).try_init()
    };
    // It fails only where the subscriber is gone, and with it all logs.
    Verbosity::new(started, move |filter| drop(level.reload(filter)))
}

/// The container's termination message, opened early: a later mount over `/dev` hides the path, not the open
/// file. Outside a container there is no such file, and nothing is written: these are a courtesy, never the
/// result.
#[derive(Debug)]
pub struct TerminationMessage(Option<File>);

impl TerminationMessage {
    /// Opens the termination message under `root`, if there is one.
    pub fn open(root: &Path) -> Self {
        let path = root.join(TERMINATION_LOG.trim_start_matches('/'));
        Self(OpenOptions::new().write(true).open(path).ok())
    }

    /// The open file, to keep room in it: the message of an applet that filled a disk must fit on that disk.
    pub fn file(&self) -> Option<&File> {
        self.0.as_ref()
    }

    /// Leaves `message`, cut at a character to what the kubelet keeps, instead of what was said before.
    /// Written first and cut afterwards: cutting gives room that was kept back to the disk.
    pub fn say(&mut self, message: &str) {
        let mut end = message.len().min(MAX_TERMINATION_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        if let Some(file) = &mut self.0 {
            let _ = file
                .rewind()
                .and_then(|()| file.write_all(&message.as_bytes()[..end]))
                .and_then(|()| file.set_len(end as u64));
        }
    }
}

/// Leaves `message` as the container's termination message under `root`; see [`TerminationMessage`].
pub fn termination_message(root: &Path, message: &str) {
    TerminationMessage::open(root).say(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program's own defaults say must be understood, or everything would be logged, or nothing.
    #[test]
    fn the_filters_that_are_used_can_be_read() {
        for (filter, targets) in [
            ("info,kube_client=off,notify=off", 2),
            ("warn,kube_client=off,kube_runtime=off,kairos_operator=debug", 3),
            ("debug", 0),
        ] {
            assert!(filter.parse::<Targets>().is_ok_and(|all| all.iter().count() == targets), "{filter}");
        }
    }

    #[test]
    fn the_last_message_wins_and_is_cut_at_a_character() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("dev/termination-log");
        termination_message(root.path(), "there is no file, and none is made");
        assert!(!path.exists());
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(&path, "").unwrap();
        let mut message = TerminationMessage::open(root.path());
        message.say(&"\u{e9}".repeat(4000));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\u{e9}".repeat(2048));
        message.say("done");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "done");
    }
}

//! Logging, and the last words of an applet.
//!
//! Logs go to standard error. What an applet wants the controller to know goes to the container's termination
//! message instead: the kubelet shows it in the pod's status, where it outlives the log.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, Seek, Write},
    path::Path,
};

use tracing_subscriber::{EnvFilter, fmt};

/// The kubelet's default `terminationMessagePath`.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The kubelet cuts a termination message at 4096 bytes; a cut JSON document would be worse than none.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Starts logging. `RUST_LOG` wins over `default` (for example `info`); `json` writes one JSON object a line.
/// A second call changes nothing.
pub fn init(default: &str, json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder =
        fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
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

    /// The open file, to keep room in it: the words of an applet that filled a disk must fit on that disk.
    pub fn file(&self) -> Option<&File> {
        self.0.as_ref()
    }

    /// Leaves `words`, cut at a character to what the kubelet keeps, instead of what was said before. Written
    /// first and cut afterwards: cutting gives room that was kept back to the disk.
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

/// Leaves `words` as the container's termination message under `root`; see [`TerminationMessage`].
pub fn termination_message(root: &Path, message: &str) {
    TerminationMessage::open(root).say(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_win_and_are_cut_at_a_character() {
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

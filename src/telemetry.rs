//! Logging, and the last words of an applet.
//!
//! Logs go to standard error. What an applet wants the controller to know goes to the container's termination message
//! instead: the kubelet shows it in the pod's status, where it outlives the log.

use std::{io::Write, path::Path};

use tracing_subscriber::{EnvFilter, fmt};

/// The kubelet's default `terminationMessagePath`.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The kubelet cuts a termination message at 4096 bytes; a cut JSON document would be worse than none.
pub const MAX_LAST_WORDS: usize = 4096;

/// Starts logging. `RUST_LOG` wins over `default` (for example `info`); `json` writes one JSON object a line.
/// A second call changes nothing.
pub fn init(default: &str, json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
}

/// Leaves `words` as the container's termination message under `root`, cut at a character to what the kubelet keeps.
/// Outside a container there is no such file, and nothing is written: these are a courtesy, never the result.
pub fn last_words(root: &Path, words: &str) {
    let path = root.join(TERMINATION_LOG.trim_start_matches('/'));
    let mut end = words.len().min(MAX_LAST_WORDS);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).truncate(true).open(path) {
        let _ = file.write_all(&words.as_bytes()[..end]);
    }
}

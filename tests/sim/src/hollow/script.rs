//! What containers do that are not the operator's own: by script, not by process.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Pod};

/// One run of one container, as a script sees it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Node.
    pub node: String,
    /// Boot of the node.
    pub boot: String,
    /// Pod.
    pub pod: Arc<Pod>,
    /// Container.
    pub container: Container,
    /// The directory that stands for the container's `/`.
    pub root: PathBuf,
    /// What its image holds: the image's name, unless the registry was told something else.
    pub content: String,
    /// How often this container was started before.
    pub restarts: i32,
}

impl Run {
    /// The command with its arguments.
    pub fn argv(&self) -> Vec<String> {
        let parts = [&self.container.command, &self.container.args];
        parts.into_iter().flatten().flatten().cloned().collect()
    }
}

/// What a run comes to.
pub enum Outcome {
    /// It ends after a time, with an exit code and a termination message.
    Exit(Duration, i32, String),
    /// It runs until it is stopped.
    Forever,
    /// It runs until it is killed: SIGTERM is ignored.
    Stubborn,
    /// The image cannot be pulled.
    NoImage,
    /// It ends when a future does.
    Until(Pin<Box<dyn Future<Output = (i32, String)> + Send>>),
    /// The same, and SIGTERM is ignored.
    Through(Pin<Box<dyn Future<Output = (i32, String)> + Send>>),
}

impl Outcome {
    /// Ends at once with a code.
    pub fn code(code: i32) -> Self {
        Self::Exit(Duration::ZERO, code, String::new())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exit(..) => "Exit",
            Self::Forever => "Forever",
            Self::Stubborn => "Stubborn",
            Self::NoImage => "NoImage",
            Self::Until(_) => "Until",
            Self::Through(_) => "Through",
        })
    }
}

/// A script: what a run does, if the script is about it.
pub type Script = Arc<dyn Fn(&Run) -> Option<Outcome> + Send + Sync>;

/// What a run does that no script is about: a workload runs on, a line of shell is read as far as tests use
/// it, all else succeeds after `time`.
pub fn by_default(run: &Run, time: Duration) -> Outcome {
    let workload =
        run.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).is_none_or(|p| p == "Always");
    let argv = run.argv();
    let shell = argv.iter().position(|a| a == "-c" || a == "-ec").and_then(|at| argv.get(at + 1));
    match shell {
        Some(line) => shell_line(line, time),
        None if workload => Outcome::Forever,
        None if argv.first().is_some_and(|a| a == "false") => Outcome::Exit(time, 1, String::new()),
        None if argv.first().is_some_and(|a| a == "sleep") => match argv.get(1).map(String::as_str) {
            Some("infinity" | "inf") => Outcome::Forever,
            seconds => Outcome::Exit(seconds.and_then(seconds_of).unwrap_or(time), 0, String::new()),
        },
        None => Outcome::Exit(time, 0, String::new()),
    }
}

fn seconds_of(text: &str) -> Option<Duration> {
    text.trim_end_matches('s').parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok())
}

/// `sleep`, `exit`, `true`, `false`, and `echo` into the termination message; other commands succeed in no
/// time.
fn shell_line(line: &str, mut time: Duration) -> Outcome {
    let (mut code, mut message) = (0, String::new());
    for command in line.split([';', '\n']).flat_map(|part| part.split("&&")) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["sleep", "infinity"] => return Outcome::Forever,
            ["sleep", seconds, ..] => time += seconds_of(seconds).unwrap_or_default(),
            ["exit", number, ..] => return Outcome::Exit(time, number.parse().unwrap_or(1), message),
            ["false", ..] => code = 1,
            ["echo", text @ .., ">", "/dev/termination-log"] => {
                message = text.join(" ").replace(['"', '\''], "")
            }
            [] => {}
            _ => code = 0,
        }
    }
    Outcome::Exit(time, code, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, shell_line};

    #[test]
    fn a_line_of_shell_is_read_as_far_as_tests_use_it() {
        let Outcome::Exit(time, code, message) =
            shell_line("echo 'up to date' > /dev/termination-log; sleep 2 && exit 7", Duration::ZERO)
        else {
            panic!("ends");
        };
        assert_eq!((time, code, message.as_str()), (Duration::from_secs(2), 7, "up to date"));
        assert!(matches!(shell_line("false", Duration::ZERO), Outcome::Exit(_, 1, _)));
        assert!(matches!(shell_line("sleep infinity", Duration::ZERO), Outcome::Forever));
    }
}

//! `kairos-agent` of the image: found, asked what it knows, run.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tracing::{info, warn};

use crate::node::signals::{Event, Signals};
use crate::{
    contract,
    node::{
        Permanent,
        host::{Host, init, mounts},
    },
};

const AGENT: &str = "kairos-agent";
/// One binary for all of Kairos' programs, which does what the name says that it is called by, and else what
/// its first argument names. Images have both names, as long as nobody leaves the links out.
const MULTI_CALL: (&str, &str) = ("kairos", "agent");

/// Where to look if the image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long output may go on after the agent's end: something that it left behind may hold the pipe for ever.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of the agent's output that are kept for the exit message; the termination message has room for more,
/// the node's `message` should not.
const MAX_OUTPUT_TAIL: usize = 1024;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Run {
    Succeeded,
    /// A code other than 0, and the last lines.
    Failed(String),
    /// By a signal: it may have been anywhere.
    Killed(String),
}

/// An agent that this machine can run.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    /// What the binary has to be told to be the agent.
    subcommand: Option<&'static str>,
}

impl Agent {
    /// Finds the agent of the image. That there is none, or none for this machine, is permanent.
    pub fn find(host: &Host) -> Result<Self> {
        let directories = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.into());
        let find = |name: &str| {
            let candidates = directories.split(':').filter(|directory| directory.starts_with('/'));
            let mut paths = candidates.map(|directory| host.path(directory).join(name));
            paths.find(|path| mounts::is_executable(path))
        };
        let (multi_call, agent) = MULTI_CALL;
        let by_name = find(AGENT).map(|path| (path, None));
        let Some((path, subcommand)) = by_name.or_else(|| Some((find(multi_call)?, Some(agent)))) else {
            bail!(Permanent(no_agent()));
        };
        if let (Some(agent), Some(own)) = (machine(&path), machine(Path::new("/proc/self/exe")))
            && agent != own
        {
            bail!(Permanent(format!(
                "the image's {AGENT} is for another architecture (ELF machine {agent}, this node has {own})"
            )));
        }
        Ok(Self { path, subcommand })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(self.subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Whether `upgrade --help` lists `--exclude-path`. Agents before Kairos 3.6 end with "unknown flag"
    /// instead. A `kairos` in which no agent was built knows no such command at all.
    pub fn knows_exclude_path(&self) -> Result<bool> {
        let output = self.answer(&["upgrade", "--help"])?;
        if self.subcommand.is_some() && !output.status.success() {
            bail!(Permanent(no_agent()));
        }
        let help = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&help).contains("--exclude-path"))
    }

    /// What the agent takes for what the node has booted, in its own names; `None` if it does not say.
    pub fn boot_state(&self) -> Option<String> {
        let output = self.answer(&["state", "get", "boot"]).ok().filter(|output| output.status.success())?;
        last_lines(&output.stdout).rsplit(" | ").next().map(str::to_owned)
    }

    /// Asks it for something that it says at once.
    fn answer(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command();
        let question = args.join(" ");
        let child = command.args(args).spawn().with_context(|| format!("running {AGENT} {question}"))?;
        let pid = child.id();
        let (done, output) = mpsc::channel();
        std::thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = output.recv_timeout(ANSWER_TIMEOUT) else {
            init::kill_now(pid);
            bail!("{AGENT} {question} does not end")
        };
        output.with_context(|| format!("reading what {AGENT} {question} says"))
    }

    /// Runs the agent to its end, streaming what it says. The Job's deadline is the limit: only it knows how
    /// long an upgrade may take, and ends with SIGTERM. The first SIGTERM is not passed on, because an agent
    /// stopped while it writes leaves more to repair than one that ends in its own time; a second one is,
    /// also if the first one came while another agent ran.
    pub fn run(&self, args: &[String], host_dir: &Path, signals: &Signals) -> Result<Run> {
        info!(?args, "running {AGENT}");
        let mut command = self.command();
        command.args(args).env(contract::env::HOST_DIR, host_dir);
        let mut child = command.spawn().with_context(|| format!("running {}", self.path.display()))?;
        let tail = Tail::default();
        let output = [
            stream(child.stdout.take(), std::io::stdout(), &tail),
            stream(child.stderr.take(), std::io::stderr(), &tail),
        ];
        let status = wait(child, signals)?;
        for done in output {
            let _ = done.recv_timeout(OUTPUT_TIMEOUT);
        }
        Ok(match status.code() {
            Some(0) => Run::Succeeded,
            Some(code) => Run::Failed(format!("{AGENT} ended with {code}: {}", tail.last_lines())),
            None => Run::Killed(format!("{AGENT} was ended by a signal ({status}): {}", tail.last_lines())),
        })
    }
}

fn no_agent() -> String {
    format!("the image has no {AGENT} that can be run; is it a Kairos image?")
}

fn wait(mut child: Child, signals: &Signals) -> Result<ExitStatus> {
    let (pid, events) = (child.id(), signals.sender());
    std::thread::spawn(move || events.send(Event::Ended(child.wait())));
    loop {
        match signals.next().context("waiting for the agent")? {
            Event::Ended(status) => return status.context("waiting for the agent"),
            Event::Terminate { again: true } => {
                warn!("told to stop again: passing it on");
                init::terminate(pid);
            }
            Event::Terminate { again: false } => {
                warn!("told to stop, but {AGENT} is writing: letting it end");
            }
        }
    }
}

/// The last bytes of two streams.
#[derive(Clone, Debug, Default)]
struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(MAX_OUTPUT_TAIL);
        tail.drain(..surplus);
    }

    fn last_lines(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        last_lines(&bytes)
    }
}

/// The last five lines of an output in one, without what terminals colour them with.
pub fn last_lines(output: &[u8]) -> String {
    let text = plain(&String::from_utf8_lossy(output));
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// Text without escape sequences and control characters, but for line ends.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().skip_while(|c| *c == '[').find(char::is_ascii_alphabetic)),
            '\r' | '\n' => plain.push('\n'),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

/// Copies a pipe to our own output and into the tail, in a thread; the receiver hears of its end.
fn stream(
    from: Option<impl Read + Send + 'static>,
    mut to: impl Write + Send + 'static,
    tail: &Tail,
) -> mpsc::Receiver<()> {
    let (done, ended) = mpsc::channel();
    let tail = tail.clone();
    std::thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            tail.push(&buffer[..length]);
            let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
        }
        let _ = done.send(());
    });
    ended
}

/// The machine that an ELF file is for; `None` for a script or anything else that the kernel may know how to
/// run.
fn machine(path: &Path) -> Option<u16> {
    let mut header = [0; 20];
    std::fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    let big_endian = header[5] == 2;
    let machine = [header[18], header[19]];
    let number = if big_endian { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    header.starts_with(b"\x7fELF").then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_a_few_plain_lines() {
        let tail = Tail::default();
        tail.push(&[b'x'; 5000]);
        tail.push(b"\n1\n2\n\n\x1b[31mred\x1b[0m alert\t!\r\n4\n5\nno space \xff\n");
        assert_eq!(tail.last_lines(), "2 | red alert ! | 4 | 5 | no space \u{fffd}");
        assert_eq!(Tail::default().last_lines(), "");
        assert_eq!(plain("a\u{1b}"), "a");
    }

    #[test]
    fn an_elf_files_machine_is_read_in_its_own_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut header = [0; 64];
        header[..4].copy_from_slice(b"\x7fELF");
        for (order, bytes) in [(1, [183, 0]), (2, [0, 183])] {
            header[5] = order;
            header[18..20].copy_from_slice(&bytes);
            std::fs::write(&path, header).unwrap();
            assert_eq!(machine(&path), Some(183));
        }
        std::fs::write(&path, "#!/bin/sh\necho a script is for any machine\n").unwrap();
        assert_eq!(machine(&path), None);
        assert!(machine(Path::new("/proc/self/exe")).is_some());
    }
}

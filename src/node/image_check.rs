//! Whether the image can run the operation's command, found out without running any of it.
//!
//! That this applet runs says that the node has the image, and starts a container of it. Whether the command
//! is there, may be executed, is for this machine, and has the interpreter or loader that it names, the
//! kernel knows best. So it is asked to execute the command, by a child which its parent traces: the kernel
//! stops that child before the first instruction of the new program, and there it is killed.
//!
//! What is refused is refused for good. Where the kernel says anything else (that this container may not
//! trace, say, or has not the rights that the operation will have), the image is taken as it is.

use std::{
    env,
    ffi::CString,
    fs, io,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::{AccessFlags, Pid, access, execv},
};
use rustix::process::{Signal as DeathSignal, set_parent_process_death_signal};
use tracing::warn;

use super::{AppletExit, Permanent, host::Host};
use crate::contract;

/// Arguments of the applet.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ImageCheckArgs {
    /// The command's first word; nothing is asked of the command if it is absent.
    #[arg(long, allow_hyphen_values = true)]
    pub program: Option<String>,
    /// Executes the program, for the parent that traces it. Only this applet calls itself so.
    #[arg(long, hide = true)]
    pub traced: bool,
}

/// Succeeds unless the image can never run the program.
pub fn run(args: &ImageCheckArgs, host: &Host) -> Result<AppletExit> {
    // A directory that stands for `/` holds nothing of an image.
    let program = args.program.as_deref().filter(|program| !program.is_empty() && host.is_real());
    match program.map_or(Ok(None), refusal) {
        Ok(None) => {}
        Ok(Some(why)) => bail!(Permanent(format!("the image can't run the command: {why}"))),
        Err(error) => warn!("whether the image can run the command is not known: {error:#}"),
    }
    Ok(AppletExit::success(""))
}

/// Why the kernel will never execute the program.
fn refusal(program: &str) -> Result<Option<String>> {
    let mut child = Command::new(env::current_exe().context("finding this binary")?)
        .args([contract::applet::IMAGE_CHECK, "--traced"])
        .args(contract::image_check_args(Some(program)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the child that is traced")?;
    let status = stopped_or_ended(&child);
    if let Ok(WaitStatus::Exited(_, code)) = status {
        let mut said = String::new();
        child.stdout.take().context("the child's output")?.read_to_string(&mut said)?;
        return match u8::try_from(code) {
            Ok(0) => Ok(None),
            Ok(contract::EXIT_PERMANENT) => Ok(Some(said)),
            _ => Err(anyhow!(said)),
        };
    }
    // It stands before the program's first instruction, or before the program: nothing has run.
    child.kill().context("killing the child that is traced")?;
    child.wait().context("waiting for the child that is traced")?;
    match status? {
        WaitStatus::PtraceEvent(..) => Ok(None),
        other => bail!("the child that is traced has come to {other:?}"),
    }
}

/// Follows the child until the kernel has put the program in its place, or it has ended.
fn stopped_or_ended(child: &Child) -> Result<WaitStatus> {
    let pid = Pid::from_raw(child.id().try_into().context("the child's process id")?);
    let status = waitpid(pid, None).context("waiting for the child that is traced")?;
    if !matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP)) {
        return Ok(status);
    }
    // It dies with its parent, and stops once the program is in its place.
    let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(pid, options).context("tracing the child")?;
    ptrace::cont(pid, None).context("letting the child go on")?;
    waitpid(pid, None).context("waiting for the child to execute the program")
}

/// In the child: becomes the program, or prints why that can't be.
pub fn attempt(args: &ImageCheckArgs) -> ExitCode {
    let (code, said) = match executed(args.program.as_deref().unwrap_or_default()) {
        Ok(None) => (0, String::new()),
        Ok(Some(refused)) => (contract::EXIT_PERMANENT, refused),
        Err(error) => (1, format!("{error:#}")),
    };
    print!("{said}");
    ExitCode::from(code)
}

/// Looks for the program as a container runtime does, and executes what it finds. `None`: it is there, and
/// this container may not trace.
fn executed(program: &str) -> Result<Option<String>> {
    set_parent_process_death_signal(Some(DeathSignal::KILL)).context("asking to die with the parent")?;
    let is_traced = ptrace::traceme().is_ok();
    if is_traced {
        raise(Signal::SIGSTOP).context("waiting for the parent")?;
    }
    let path = env::var("PATH").unwrap_or_default();
    for candidate in candidates(program, &path) {
        match passed_over(&candidate) {
            Ok(None) => {}
            Ok(Some(why)) if program.contains('/') => return Ok(Some(format!("{program} {why}"))),
            Ok(Some(_)) => continue,
            Err(error) => return Err(error).context(candidate.display().to_string()),
        }
        let name = CString::new(candidate.as_os_str().as_bytes())?;
        let error = match is_traced {
            true => execv(&name, &[&name]).unwrap_err(),
            false => match access(&candidate, AccessFlags::X_OK) {
                Ok(()) => return Ok(None),
                Err(error) => error,
            },
        };
        let at = candidate.display();
        return match error {
            Errno::ENOENT => Ok(Some(format!("{at} names an interpreter or a loader that is not there"))),
            Errno::ENOEXEC => Ok(Some(format!(
                "{at} is no program for this machine ({}), and no script that names its interpreter",
                env::consts::ARCH
            ))),
            other => Err(other).with_context(|| format!("executing {at}")),
        };
    }
    Ok(Some(format!("{program} is in no directory of the PATH {path}")))
}

/// Where the program may be: itself, or in each directory of the PATH.
fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    match program.contains('/') {
        true => vec![program.into()],
        false => path.split(':').map(|directory| Path::new(directory).join(program)).collect(),
    }
}

/// Why a search passes a file over.
fn passed_over(file: &Path) -> io::Result<Option<&'static str>> {
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => Ok(Some("is a directory")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Ok(Some("may not be executed (its mode)")),
        Ok(_) => Ok(None),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(Some("is not there"))
        }
        Err(error) => Err(error),
    }
}

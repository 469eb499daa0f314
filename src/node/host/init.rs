//! The boot that the node is in, its init, and the two ways to end the boot: ask init, or the kernel.

use std::{convert::Infallible, process, sync::mpsc, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
    },
    unistd::{Pid, sync},
};
use rustix::process as posix;
use rustix_libc_wrappers::process::SignalExt;
use tracing::warn;

use super::{Host, SMALL, files};
use crate::contract;

/// systemd's signal for `reboot.target`: SIGRTMIN+5 as the kernel and glibc on the host count. A literal,
/// because another C library reserves another number of real-time signals and would count from elsewhere.
const SYSTEMD_REBOOT: i32 = 39;

/// Bit of CAP_SYS_BOOT in `/proc/self/status`.
const CAP_SYS_BOOT: u32 = 22;

/// How long after the kernel's the start of a machine's own init may be, in ticks of a hundredth of a second:
/// the kernel makes it before it looks for any device, within a second. A node that is a container (kind,
/// k3d) has one that was started when the container was, which is seconds after the kernel at the earliest:
/// container runtimes start theirs anew with the machine.
const INIT_OF_A_MACHINE: u64 = 5 * 100;

/// How long `sync` may take. A dead network disk holds it for ever, and the reboot is what ends that.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// What may be asked to reboot the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Init takes our signals.
    Init,
    /// Init does not, for the reason given, but the kernel may be asked.
    KernelOnly(String),
}

impl Host {
    /// The id of the boot that the node is in. The kernel makes it; containers see the node's.
    pub fn boot_id(&self) -> Result<String> {
        let id = self.trimmed("/proc/sys/kernel/random/boot_id")?;
        if id.is_empty() {
            bail!("the boot id is empty");
        }
        Ok(id)
    }

    /// When PID 1 was started, in the kernel's ticks since its own start. On a machine that is the same in a
    /// whole boot; a container (kind, k3d) that starts anew has another one, in the same boot of the kernel.
    pub fn init_start(&self) -> Result<String> {
        let stat = self.trimmed("/proc/1/stat")?;
        // The second field is the name in parentheses, which may hold anything; the start is the 22nd.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().nth(19));
        fields.flatten().map(str::to_owned).context("/proc/1/stat has too few fields")
    }

    /// Whether the node plainly is no machine: its PID 1 was started long after the kernel. Where that cannot
    /// be told, it is taken for one.
    pub fn is_container(&self) -> bool {
        self.init_start().is_ok_and(|start| start.parse().is_ok_and(|ticks: u64| ticks > INIT_OF_A_MACHINE))
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> Result<String> {
        self.trimmed("/proc/cmdline")
    }

    /// Whether the node can be rebooted from here, without doing it.
    pub fn reach(&self) -> Result<Reach> {
        let reason = match self.init().and_then(|(pid, _)| kill(pid, None).context("signalling init")) {
            Ok(()) => return Ok(Reach::Init),
            Err(error) => error,
        };
        if self.is_real() && process::id() != 1 && self.may_reboot()? {
            return Ok(Reach::KernelOnly(format!("{reason:#}")));
        }
        Err(reason.context("the node cannot be rebooted from here"))
    }

    /// Asks init to stop all services and reboot the node. Returns at once; init takes its time. Logind, from
    /// which a kubelet hears of shutdowns, is not in that way, so pods end as other processes do.
    pub fn ask_init(&self) -> Result<()> {
        let (pid, comm) = self.init()?;
        match comm.as_str() {
            "systemd" => {
                let signal =
                    posix::Signal::from_raw(SYSTEMD_REBOOT).context("this C library reserves signal 39")?;
                let pid = posix::Pid::from_raw(pid.as_raw()).context("a process id of zero")?;
                posix::kill_process(pid, signal).context("sending systemd the signal for a reboot")
            }
            "init" => kill(pid, Signal::SIGTERM).context("sending init SIGTERM"),
            other => bail!("{other:?} is not an init that we know how to ask"),
        }
    }

    /// Syncs, and has the kernel reboot at once. Returns only if it does not.
    pub fn ask_kernel(&self) -> Result<Infallible> {
        if !self.is_real() {
            bail!("the root {} stands for a node, and the kernel is the machine's", self.root().display());
        }
        let (done, synced) = mpsc::channel();
        std::thread::spawn(move || {
            sync();
            let _ = done.send(());
        });
        if synced.recv_timeout(SYNC_TIMEOUT).is_err() {
            warn!("the disks do not finish writing; rebooting all the same");
        }
        reboot(RebootMode::RB_AUTOBOOT).context("calling reboot(2)")
    }

    /// The process that stands for PID 1, and its name.
    ///
    /// Our being PID 1 ourselves means that the pod lacks `hostPID`; the pod would only shoot itself.
    fn init(&self) -> Result<(Pid, String)> {
        let pid = match self.init_pid {
            _ if self.is_real() => 1,
            Some(pid) if pid > 1 => pid,
            Some(pid) => bail!("{}={pid} is no process that may stand for init", contract::env::INIT_PID),
            None => bail!("no process stands for init under {}", self.root().display()),
        };
        if u32::try_from(pid).is_ok_and(|pid| pid == process::id()) {
            bail!("this process is its own init; the pod needs hostPID");
        }
        Ok((Pid::from_raw(pid), self.trimmed("/proc/1/comm")?))
    }

    fn may_reboot(&self) -> Result<bool> {
        let status = self.trimmed("/proc/self/status")?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        Ok(mask & (1 << CAP_SYS_BOOT) != 0)
    }

    /// A small file of the kernel's, which must be there.
    fn trimmed(&self, path: &str) -> Result<String> {
        let bytes = files::read(&self.path(path), SMALL)?.with_context(|| format!("{path} is missing"))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

/// Asks a child to end.
pub fn terminate(pid: u32) {
    signal(pid, Signal::SIGTERM);
}

/// Ends a child.
pub fn kill_now(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// Signals a child that may have ended meanwhile.
fn signal(pid: u32, signal: Signal) {
    if let Ok(pid @ 2..) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::process::ExitStatusExt,
        process::{Child, Command},
    };

    use super::*;

    /// A root whose init has the given name, and a process to stand for it.
    fn node(comm: &str) -> (tempfile::TempDir, Host, Child) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        fs::write(root.path().join("proc/1/comm"), format!("{comm}\n")).unwrap();
        let init = Command::new("sleep").arg("600").spawn().unwrap();
        let host = Host::at(root.path(), i32::try_from(init.id()).ok());
        (root, host, init)
    }

    #[test]
    fn each_init_is_asked_in_its_own_way() {
        for (comm, signal) in [("systemd", SYSTEMD_REBOOT), ("init", Signal::SIGTERM as i32)] {
            let (_root, host, mut init) = node(comm);
            assert_eq!(host.reach().unwrap(), Reach::Init);
            host.ask_init().unwrap();
            assert_eq!(init.wait().unwrap().signal(), Some(signal), "{comm}");
        }
    }

    #[test]
    fn the_start_of_init_is_read_whatever_its_name() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        assert!(host.init_start().is_err());
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        let after: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        for (stat, start) in [
            (format!("1 (systemd) {}", after.join(" ")), Some("22")),
            (format!("1 (a) 7 (b) {}", after.join(" ")), Some("22")),
            ("1 (systemd) S 0".to_owned(), None),
            (String::new(), None),
        ] {
            fs::write(root.path().join("proc/1/stat"), &stat).unwrap();
            assert_eq!(host.init_start().ok().as_deref(), start, "{stat}");
            assert!(!host.is_container(), "{stat}");
        }
        for (ticks, is_container) in [("0", false), ("500", false), ("501", true), ("a", false)] {
            fs::write(
                root.path().join("proc/1/stat"),
                format!("1 (systemd) {} {ticks}", after[..19].join(" ")),
            )
            .unwrap();
            assert_eq!(host.is_container(), is_container, "{ticks}");
        }
        assert!(Host::at("/", None).init_start().is_ok(), "every Linux has one");
    }

    #[test]
    fn an_unknown_init_is_not_signalled() {
        let (_root, host, mut init) = node("runit");
        let error = host.ask_init().unwrap_err();
        assert!(error.to_string().contains("runit"), "{error:#}");
        assert_eq!(init.try_wait().unwrap(), None);
        init.kill().unwrap();
        init.wait().unwrap();
    }

    #[test]
    fn without_a_process_for_init_nothing_is_signalled() {
        let (root, _, mut init) = node("systemd");
        for pid in [None, Some(1), Some(0), Some(-1), i32::try_from(process::id()).ok()] {
            let host = Host::at(root.path(), pid);
            assert!(host.reach().is_err(), "{pid:?}");
            assert!(host.ask_init().is_err(), "{pid:?}");
        }
        init.kill().unwrap();
        init.wait().unwrap();
    }

    #[test]
    fn the_kernel_is_never_asked_for_another_root() {
        let (root, host, mut init) = node("systemd");
        init.kill().unwrap();
        init.wait().unwrap();
        assert!(host.reach().is_err(), "its init is gone");
        for host in [host, Host::at(root.path(), None), Host::at("/tmp/..", None)] {
            assert!(host.ask_kernel().unwrap_err().to_string().contains("stands for a node"));
        }
    }

    #[test]
    fn the_boot_id_is_read_under_the_root() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        assert!(host.boot_id().is_err());
        let path = host.path("/proc/sys/kernel/random/boot_id");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "b-1\n").unwrap();
        assert_eq!(host.boot_id().unwrap(), "b-1");
        fs::write(&path, "\n").unwrap();
        assert!(host.boot_id().is_err());
        assert!(Host::at("/", None).boot_id().is_ok(), "every Linux has one");
    }
}

//! A directory that stands for a node, and the applets on it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kairos_operator::contract;
use tempfile::TempDir;

use super::api::{Api, JOB, NAMESPACE, OWNER, POD};

pub const BINARY: &str = env!("CARGO_BIN_EXE_kairos-operator");

/// How long anything may take before a test says no: far longer than a loaded machine needs.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Waits until `holds`, or panics with `what`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A node with an init, and an API server.
#[derive(Debug)]
pub struct Node {
    pub root: TempDir,
    pub api: Api,
    pub init: Child,
}

impl Node {
    pub fn new(boot: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let api = Api::start();
        for path in ["proc/1", "proc/sys/kernel/random", "dev", "state"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        // Where the sentinel's container and the waiter's see the same directory of the node.
        std::os::unix::fs::symlink("state/.kairos", root.path().join("sentinel")).unwrap();
        fs::write(root.path().join("proc/1/comm"), "systemd\n").unwrap();
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"{}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            api.url
        );
        fs::write(root.path().join("kubeconfig"), config).unwrap();
        let node = Self { root, api, init: init() };
        node.boot(boot);
        node
    }

    /// The node comes up in another boot; its init stays whatever it is.
    pub fn boot(&self, boot: &str) {
        fs::write(self.root.path().join("proc/sys/kernel/random/boot_id"), format!("{boot}\n")).unwrap();
    }

    pub fn reboot(&mut self, boot: &str) {
        let _ = self.init.kill();
        let _ = self.init.wait();
        self.init = init();
        self.boot(boot);
    }

    /// When PID 1 was started, in ticks.
    pub fn init_started(&self, ticks: u32) {
        let between = "0 ".repeat(18);
        fs::write(self.root.path().join("proc/1/stat"), format!("1 (systemd) S {between}{ticks} 0 0\n"))
            .unwrap();
    }

    pub fn state_dir(&self) -> PathBuf {
        self.root.path().join("state/.kairos")
    }

    pub fn sentinel_file(&self) -> PathBuf {
        self.state_dir().join(contract::sentinel_file(JOB))
    }

    pub fn termination_message(&self) -> String {
        fs::read_to_string(self.root.path().join("dev/termination-log")).unwrap()
    }

    fn applet(&self, name: &str) -> Command {
        fs::write(self.root.path().join("dev/termination-log"), "").unwrap();
        let mut command = Command::new(BINARY);
        command.arg(name).env_clear().stdout(Stdio::null());
        command
            .env(contract::env::ROOT, self.root.path())
            .env(contract::env::INIT_PID, self.init.id().to_string());
        command.env(contract::env::JOB_UID, "job-uid").env("KUBECONFIG", self.root.path().join("kubeconfig"));
        command
            .env(contract::env::POD_NAME, POD)
            .env(contract::env::POD_NAMESPACE, NAMESPACE)
            .env(contract::env::POD_UID, "pod-1");
        command
    }

    pub fn waiter_command(&self, timeout: u32, grace: u32) -> Command {
        let mut command = self.applet(contract::applet::REBOOT_WAITER);
        command.args(contract::reboot_waiter_args(JOB, OWNER, ".kairos", (timeout, grace), None));
        command
    }

    /// A waiter that is made when the success of the Job is recorded, in this boot.
    pub fn late_waiter(&self, boot: &str) -> Waiter {
        let mut command = self.applet(contract::applet::REBOOT_WAITER);
        let recorded = contract::Succeeded { job_uid: "job-uid".into(), boot: boot.into() };
        command.args(contract::reboot_waiter_args(JOB, OWNER, ".kairos", (60, 60), Some(&recorded)));
        Waiter(command.spawn().unwrap())
    }

    pub fn waiter(&self) -> Waiter {
        Waiter(self.waiter_command(60, 60).spawn().unwrap())
    }

    /// A waiter that has announced itself, and its Job, which runs.
    pub fn waiting(&self) -> Waiter {
        let waiter = self.waiter();
        self.is_announced("waiting");
        self.api.job(None);
        waiter
    }

    pub fn is_announced(&self, state: &str) {
        eventually(state, || self.api.reboot_state().as_deref() == Some(state));
    }

    /// The Job's last container.
    pub fn sentinel(&self) {
        fs::create_dir_all(self.state_dir()).unwrap();
        assert!(self.sentinel_command().status().unwrap().success());
    }

    pub fn sentinel_command(&self) -> Command {
        let mut command = self.applet(contract::applet::SENTINEL);
        command.args(contract::sentinel_args(JOB, false, None));
        command
    }

    /// Whether init was asked to reboot, by now.
    pub fn is_asked(&mut self) -> bool {
        self.init.try_wait().unwrap().is_some_and(|status| {
            assert_eq!(status.signal(), Some(39), "systemd is asked by SIGRTMIN+5");
            true
        })
    }

    pub fn gets_asked(&mut self) {
        eventually("asking init", || self.is_asked());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn init() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

/// A running waiter; it does not outlive the test.
#[derive(Debug)]
pub struct Waiter(pub Child);

impl Waiter {
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its exit code, once it ends by itself.
    pub fn ends(&mut self) -> i32 {
        eventually("the end of the waiter", || !self.runs());
        self.0.wait().unwrap().code().unwrap()
    }

    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

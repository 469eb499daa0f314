//! A directory that is both a Kairos image and the node below it, with an agent that is a script.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use kairos_operator::contract::{
    self, EXIT_PERMANENT, Sentinel, UpgradeOrder, UpgradeResult, UpgradeState, applet,
};
use tempfile::TempDir;

use super::node::BINARY;

const JOB: &str = "job-1";
/// The state directory is not where it is by default: each applet has to be told.
pub const STATE_DIR: &str = "/var/lib/kairos";

/// A node with the release `v1`, in state active, and an image with the release `v2`.
#[derive(Debug)]
pub struct Machine(TempDir);

impl Machine {
    pub fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for path in [
            "etc",
            "usr/bin",
            "dev",
            "proc/sys/kernel/random",
            "host/etc",
            "host/usr/local",
            "host/var/lib/kairos",
        ] {
            fs::create_dir_all(machine.path(path)).unwrap();
        }
        symlink("host/var/lib/kairos", machine.path("sentinel")).unwrap();
        symlink(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kairos-agent"),
            machine.path("usr/bin/kairos-agent"),
        )
        .unwrap();
        machine.write("etc/kairos-release", "KAIROS_VERSION=\"v2\"\n");
        machine.write("help", "   --source value\n   --exclude-path value\n");
        machine.agent("echo writing");
        machine.boots("b1", "active", "v1");
        machine
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    pub fn agent(&self, behaviour: &str) {
        self.write("behaviour", &format!("{behaviour}\n"));
    }

    /// The image has Kairos' one binary, with or without a link by the agent's name.
    pub fn is_one_binary(&self, linked: bool) {
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kairos"), self.path("usr/bin/kairos"))
            .unwrap();
        fs::remove_file(self.path("usr/bin/kairos-agent")).unwrap();
        if linked {
            symlink("kairos", self.path("usr/bin/kairos-agent")).unwrap();
        }
    }

    pub fn boots(&self, boot: &str, state: &str, release: &str) {
        self.write("proc/sys/kernel/random/boot_id", boot);
        self.write("proc/cmdline", &format!("root=LABEL=COS_{}", state.to_uppercase()));
        self.write("host/etc/kairos-release", &format!("KAIROS_VERSION={release}\n"));
    }

    pub fn command(&self, name: &str, args: Vec<String>) -> Command {
        self.write("dev/termination-log", "");
        let mut command = Command::new(BINARY);
        command.arg(name).args(args).env_clear().env("PATH", std::env::var("PATH").unwrap());
        command.env(contract::env::ROOT, self.0.path()).env(contract::env::JOB_UID, "job-uid");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn upgrade(&self, order: &UpgradeOrder) -> Command {
        self.command(applet::UPGRADE, contract::upgrade_args(JOB, STATE_DIR, order))
    }

    /// Runs the wrapper and returns its exit code and termination message.
    pub fn try_once(&self, order: &UpgradeOrder) -> (i32, String) {
        self.ended(&self.upgrade(order).output().unwrap())
    }

    pub fn check(&self, order: &UpgradeOrder, skip_foreign: bool) -> (i32, String) {
        let args = contract::check_args(STATE_DIR, order, skip_foreign);
        self.ended(&self.command(applet::UPGRADE, args).output().unwrap())
    }

    pub fn ended(&self, output: &Output) -> (i32, String) {
        (output.status.code().unwrap(), fs::read_to_string(self.path("dev/termination-log")).unwrap())
    }

    pub fn start(&self) -> Child {
        self.upgrade(&active()).spawn().unwrap()
    }

    pub fn runs(&self) -> Vec<String> {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().map(String::from).collect()
    }

    pub fn result(&self) -> Option<UpgradeResult> {
        let bytes = fs::read(self.path("sentinel").join(contract::result_file(JOB))).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    pub fn state(&self) -> Option<(UpgradeState, String)> {
        self.result().map(|result| (result.state, result.boot))
    }

    /// What the sentinel container after the wrapper writes.
    pub fn sentinel_boot(&self) -> String {
        self.sentinel().boot
    }

    pub fn sentinel(&self) -> Sentinel {
        let mut command = self.command(applet::SENTINEL, contract::sentinel_args(JOB, true, None));
        let (code, words) = self.ended(&command.output().unwrap());
        assert_eq!(code, 0, "{words}");
        serde_json::from_str(&words).unwrap()
    }
}

pub fn active() -> UpgradeOrder {
    UpgradeOrder { active: true, ..UpgradeOrder::default() }
}

pub fn permanent() -> i32 {
    i32::from(EXIT_PERMANENT)
}

pub fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

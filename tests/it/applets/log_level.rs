//! `log-level` tells a controller what to log, and nobody else anything.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use kairos_operator::contract::applet;

use super::node::{BINARY, eventually};

/// A process that is ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tells the process to log more; whether that was done, and what was said.
fn tell(process: &Process) -> (bool, String) {
    let mut command = Command::new(BINARY);
    command.args([applet::LOG_LEVEL, "debug", "--pid", &process.0.id().to_string()]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// In a reboot waiter, which has the same image, process 1 is the host's init: busybox's halts the machine
/// for the signal that a controller takes for "log more".
#[test]
fn only_a_controller_is_told_what_to_log() {
    let mut sleeps = Process(Command::new("sleep").args(["3600"]).spawn().unwrap());
    // Another program with a verb of that name, as k0s has one.
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("k0s");
    fs::write(&script, "sleep 3600 & wait $!").unwrap();
    let mut other = Process(Command::new("sh").arg(&script).arg(applet::CONTROLLER).spawn().unwrap());
    for process in [&mut sleeps, &mut other] {
        let (told, said) = tell(process);
        assert!(!told && said.contains("is no controller of this program"), "{said}");
        assert!(said.contains("kubectl -n operator-system exec"), "what to do instead: {said}");
        assert!(process.0.try_wait().unwrap().is_none(), "it was signalled: {said}");
    }
}

#[test]
fn a_controller_logs_more_once_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let (config, log) = (directory.path().join("kubeconfig"), directory.path().join("log"));
    let nobody = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\n\
        users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n";
    fs::write(&config, nobody).unwrap();
    let file = File::create(&log).unwrap();
    let mut command = Command::new(BINARY);
    command.args([applet::CONTROLLER, "--health-probe-bind-address=0", "--zap-devel", "--kubeconfig"]);
    command.arg(&config).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let controller = Process(command.spawn().unwrap());
    let logged = || fs::read_to_string(&log).unwrap();
    // It names the flag that means nothing after it has begun to listen for signals.
    eventually("it begins", || logged().contains("--zap-devel"));
    let (told, said) = tell(&controller);
    assert!(told, "{said}");
    eventually("it is told", || logged().contains("told what to log"));
}

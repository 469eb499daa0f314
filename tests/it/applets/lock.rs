//! The node's lock with real processes: two pods' holders, their probes, and an upgrade.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use kairos_operator::contract::{self, NodeLock, applet};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    machine::{Machine, active},
    node::{BINARY, eventually},
};

/// A directory that stands for the roots of all containers, in which they see the same lock.
fn node() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in ["lock", "dev"] {
        fs::create_dir_all(root.path().join(path)).unwrap();
    }
    root
}

fn command(root: &Path, pod: &str, does: NodeLock) -> Command {
    let mut command = Command::new(BINARY);
    command.arg(applet::NODE_LOCK).args(contract::node_lock_args(does));
    command.env(contract::env::ROOT, root).env(contract::env::POD_UID, pod);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn holder(root: &Path, pod: &str) -> Child {
    command(root, pod, NodeLock::Hold).stdout(Stdio::null()).spawn().unwrap()
}

/// What the kubelet's probe of a pod comes to, and what it says.
fn probe(root: &Path, pod: &str) -> (bool, String) {
    let output = command(root, pod, NodeLock::Check).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Ends a container as a kubelet does; its exit code.
fn end(child: &mut Child) -> Option<i32> {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn commands_of_two_pods_have_the_lock_one_after_the_other() {
    let node = node();
    let root = node.path();
    let not_yet = "the node's lock is not taken yet, or an upgrade on this node holds it";
    assert_eq!(probe(root, "a"), (false, not_yet.into()));
    let mut first = holder(root, "a");
    eventually("the lock", || probe(root, "a").0);
    let mut second = holder(root, "b");
    let log = root.join("third.log");
    let mut third = command(root, "c", NodeLock::Hold);
    third
        .stdout(fs::File::create(&log).unwrap())
        .stderr(fs::File::options().append(true).open(&log).unwrap());
    let mut third = third.spawn().unwrap();
    eventually("that it waits", || fs::read_to_string(&log).unwrap().contains("waiting for the node's lock"));
    assert_eq!(end(&mut third), Some(0), "one that waits ends at once, too");
    assert_eq!(probe(root, "b"), (false, "pod a on this node holds the node's lock".into()));
    // It dies, and the kubelet starts it again; meanwhile its command goes on.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut first = holder(root, "a");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(probe(root, "a").0 && !probe(root, "b").0);
    assert_eq!(end(&mut first), Some(0));
    eventually("the next one's turn", || probe(root, "b").0);
    assert!(!probe(root, "a").0);
    assert_eq!(end(&mut second), Some(0));
    assert_eq!(fs::read_to_string(root.join("lock/node.lock")).unwrap(), "");
}

/// A kubelet ends a command in an init container at the same time as its holder, and gives it time to end.
#[test]
fn beside_an_init_container_the_lock_is_not_given_back_at_once() {
    let node = node();
    let mut first =
        command(node.path(), "a", NodeLock::HoldBesideInit).stdout(Stdio::null()).spawn().unwrap();
    eventually("the lock", || probe(node.path(), "a").0);
    assert_eq!(end(&mut first), Some(0));
    assert_eq!(fs::read_to_string(node.path().join("lock/node.lock")).unwrap(), "a");
    let mut second = holder(node.path(), "b");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!probe(node.path(), "b").0, "the command may still be ending");
    assert_eq!(end(&mut second), Some(0));
}

/// Both find the lock where the host has it.
#[test]
fn an_upgrade_waits_for_a_command_and_says_so() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("host/run/kairos-operator")).unwrap();
    std::os::unix::fs::symlink("host/run/kairos-operator", machine.path("lock")).unwrap();
    let mut first = holder(&machine.path(""), "a");
    eventually("the lock", || probe(&machine.path(""), "a").0);
    let mut upgrade = machine.upgrade(&active()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(upgrade.try_wait().unwrap().is_none() && machine.runs().is_empty(), "it does not run beside it");
    assert_eq!(end(&mut first), Some(0));
    assert_eq!((upgrade.wait().unwrap().code(), machine.runs().len()), (Some(0), 1));
}

#[test]
fn a_lock_that_cannot_be_had_ends_its_holder_with_the_reason() {
    let node = node();
    fs::create_dir(node.path().join("lock/node.lock")).unwrap();
    fs::write(node.path().join("dev/termination-log"), "").unwrap();
    assert_eq!(holder(node.path(), "a").wait().unwrap().code(), Some(1));
    let told = fs::read_to_string(node.path().join("dev/termination-log")).unwrap();
    assert_eq!(
        told,
        "locking /lock/node.lock: Is a directory (os error 21)"
            .replace("/lock/", &format!("{}/lock/", node.path().display()))
    );
    assert!(!probe(node.path(), "a").0);
    assert_eq!(
        fs::read_to_string(node.path().join("dev/termination-log")).unwrap(),
        told,
        "a probe says nothing there"
    );
}

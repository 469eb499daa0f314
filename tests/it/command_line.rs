//! What somebody sees who runs the operator's binary by hand.

use std::process::{Command, Stdio};

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-operator"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `kairos-operator manifests | head`, also under `set -o pipefail`.
#[test]
fn whoever_reads_only_the_beginning_of_the_manifests_gets_no_error() {
    let mut child = binary().arg("manifests").spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && !said.contains("ERROR"), "{said}");
}

#[test]
fn an_error_tells_its_cause_once() {
    let ended = binary().args(["controller", "--kubeconfig", "/no/such/file"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.matches("No such file or directory").count(), 1, "{said}");
    assert!(said.contains("/no/such/file"), "{said}");
}

//! What the kernel says of commands of all kinds, and that none of them has run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use kairos_operator::contract::{self, EXIT_PERMANENT, applet};

use super::node::BINARY;

/// The header of a program for a machine of that number (ELF's `e_machine`).
fn elf(machine: u8) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0);
    (header[16], header[18], header[20]) = (2, machine, 1);
    header
}

fn file(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Exit code and log of a look at a command in `image`, a directory that stands for the working directory and
/// for all of its PATH.
fn look(image: &Path, program: &str) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.arg(applet::IMAGE_CHECK).args(contract::image_check_args(Some(program)));
    command.current_dir(image).env("PATH", image).env_remove(contract::env::ROOT);
    let output = command.output().unwrap();
    let log = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(log).unwrap())
}

#[test]
fn what_can_never_run_is_refused_and_what_can_has_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path();
    // An emulator that is registered on this machine would not know a program for BPF either.
    file(&image.join("foreign"), &elf(247), 0o755);
    file(&image.join("script"), b"#!/bin/sh\ntouch ran\n", 0o755);
    file(&image.join("no-interpreter"), b"#!/nowhere/sh\ntouch ran\n", 0o755);
    file(&image.join("no-shebang"), b"touch ran\n", 0o755);
    file(&image.join("no-mode"), b"#!/bin/sh\ntouch ran\n", 0o644);
    fs::create_dir(image.join("folder")).unwrap();
    symlink("nowhere", image.join("dangling")).unwrap();
    let binary = fs::canonicalize(BINARY).unwrap();
    let here = |name: &str| image.join(name).display().to_string();
    for program in ["script", "./script", &here("script"), &binary.display().to_string()] {
        let (code, log) = look(image, program);
        assert_eq!((code, log.contains("WARN")), (Some(0), false), "{program}: {log}");
    }
    let missing = format!("is in no directory of the PATH {}", image.display());
    let cases = [
        ("/nothing/here", "/nothing/here is not there"),
        ("nothing", &missing),
        ("dangling", &missing),
        ("folder", &missing),
        ("no-mode", &missing),
        ("./folder", "./folder is a directory"),
        ("./no-mode", "./no-mode may not be executed (its mode)"),
        ("./script/below", "./script/below is not there"),
        ("foreign", "is no program for this machine"),
        ("./no-shebang", "./no-shebang is no program for this machine"),
        ("no-interpreter", "names an interpreter or a loader that is not there"),
    ];
    for (program, why) in cases {
        let (code, log) = look(image, program);
        assert_eq!(code, Some(EXIT_PERMANENT.into()), "{program}: {log}");
        let told = format!("the image can't run the command: {}", if why == missing { program } else { "" });
        assert!(log.contains(&told) && log.contains(why), "{program}: {log}");
    }
    assert!(!image.join("ran").exists(), "a command has run");
}

#[test]
fn without_a_command_the_image_is_all_that_is_asked_for() {
    let output = Command::new(BINARY)
        .arg(applet::IMAGE_CHECK)
        .args(contract::image_check_args(None))
        .env_remove(contract::env::ROOT)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

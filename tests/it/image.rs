//! `scripts/image` takes a tool that can do what is asked, whichever others are there, and it and
//! `scripts/build` build for the machine that they run on. `scripts/demo` judges its flags first.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::tidy::scan::root;

/// Which tool is taken where these work, and the others are there and do not.
fn tool(working: &[&str], asked: &[&str]) -> Option<String> {
    let tools = tempfile::tempdir().unwrap();
    for name in ["docker", "podman", "buildah"] {
        let file = tools.path().join(name);
        let answer = if working.contains(&name) { "exit 0" } else { "exit 1" };
        fs::write(&file, format!("#!/bin/sh\n{answer}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let script = root().join("scripts/image");
    let output = Command::new(script).arg("--print-tool").args(asked).env("PATH", path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| said.trim().to_owned())
}

/// What a script prints where rustc says that it runs on this machine.
fn on(host: &str, script: &str, asked: &[&str]) -> Vec<String> {
    let tools = tempfile::tempdir().unwrap();
    let rustc = tools.path().join("rustc");
    fs::write(&rustc, format!("#!/bin/sh\nprintf 'rustc 1.0.0\\nhost: {host}\\nrelease: 1.0.0\\n'\n"))
        .unwrap();
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(root().join(script)).args(asked).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_runs_on_this_machine_is_built_for_it() {
    let (amd64, arm64) = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu");
    for (host, own, other) in [
        ("x86_64-unknown-linux-gnu", amd64, arm64),
        ("aarch64-unknown-linux-gnu", arm64, amd64),
        ("x86_64-unknown-linux-musl", amd64, arm64),
        ("aarch64-apple-darwin", arm64, amd64),
    ] {
        for asked in [&["--print-path"][..], &["--plugin", "--print-path"]] {
            let path = &on(host, "scripts/build", asked)[0];
            assert!(path.contains(&format!("/{own}/release/k")), "{host}: {path}");
        }
        let named = &on(host, "scripts/build", &["--target", other, "--print-path"])[0];
        assert!(named.contains(&format!("/{other}/release/")), "{host}: {named}");
        let targets = |asked: &[&str]| on(host, "scripts/image", &[&["--print-targets"], asked].concat());
        assert_eq!(targets(&[]), [own], "{host}");
        let push = ["--push", "example.com/operator"];
        assert_eq!(targets(&push), [own, other], "{host}: the manifests are printed by the first one");
        assert_eq!(targets(&[&push[..], &["--target", other]].concat()), [other], "{host}");
    }
}

#[test]
fn what_docker_cannot_do_another_tool_does_that_is_there() {
    let (plain, push, oci): (&[&str], _, _) = (&[], ["--push", "example.com/operator"], ["--oci", "file"]);
    for (working, here, elsewhere) in [
        (&["docker", "podman", "buildah"][..], Some("docker"), Some("podman")),
        (&["docker", "buildah"], Some("docker"), Some("buildah")),
        (&["buildah"], Some("buildah"), Some("buildah")),
        (&["docker"], Some("docker"), None),
        (&[], None, None),
    ] {
        assert_eq!(tool(working, plain).as_deref(), here, "{working:?}");
        assert_eq!(tool(working, &push).as_deref(), elsewhere, "{working:?} to push");
        assert_eq!(tool(working, &oci).as_deref(), elsewhere, "{working:?} for an archive");
    }
}

/// A misspelt flag costs no build, and is answered by the script's own usage. There is no cargo on this PATH.
#[test]
fn the_demo_judges_its_flags_before_it_builds() {
    let run = |flags: &[&str]| {
        let mut demo = Command::new(root().join("scripts/demo"));
        demo.args(flags).env("PATH", "/usr/bin:/bin").env_remove("CARGO_HOME").output().unwrap()
    };
    for flags in [&["--foo"][..], &["--keep", "--foo"], &["more"], &["--nodeop", "--failure"]] {
        let refused = run(flags);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(flags.last().unwrap()) && said.contains("scripts/demo --help"), "{said}");
    }
    for flags in [&["-h"][..], &["--keep", "--help"]] {
        let helped = run(flags);
        let said = String::from_utf8_lossy(&helped.stdout).into_owned();
        assert!(helped.status.success() && said.contains("--failure"), "{flags:?}: {said}");
    }
}

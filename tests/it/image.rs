//! `scripts/image` takes a tool that can do what is asked, whichever others are there.

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

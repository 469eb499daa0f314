//! What runs before and beside an upgrade: the preflight, `install`, `node-labeler`, and the mounts of a real
//! container.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use kairos_operator::contract::{self, Facts, Proceed, UpgradeOrder, applet};
use serde_json::json;

use super::{
    machine::{Machine, active, permanent},
    node::BINARY,
};

#[test]
fn an_image_that_cannot_do_it_fails_for_good_and_before_anything() {
    let exclude = UpgradeOrder { exclude_paths: vec!["/x".into()], ..active() };
    type Spoil = fn(&Machine);
    let spoil: [(&UpgradeOrder, &str, Spoil); 5] = [
        (&active(), "no kairos-agent", |node| fs::remove_file(node.path("usr/bin/kairos-agent")).unwrap()),
        (&active(), "no kairos-agent", |node| {
            node.is_one_binary(false);
            node.write("no-agent", "");
        }),
        (&active(), "another architecture", |node| {
            let mut elf = [0_u8; 64];
            elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
            elf[18] = 250;
            fs::remove_file(node.path("usr/bin/kairos-agent")).unwrap();
            fs::write(node.path("usr/bin/kairos-agent"), elf).unwrap();
            fs::set_permissions(node.path("usr/bin/kairos-agent"), fs::Permissions::from_mode(0o755))
                .unwrap();
        }),
        (&exclude, "--exclude-path", |node| node.write("help", "--source value\n")),
        (&UpgradeOrder::default(), "neither partition", |_| {}),
    ];
    for (order, reason, spoil) in spoil {
        let node = Machine::new();
        spoil(&node);
        for (code, words) in [node.check(order, true), node.try_once(order)] {
            assert!(code == permanent() && words.contains(reason), "{reason}: {code} {words}");
        }
        assert_eq!((node.runs().len(), node.result()), (0, None));
    }
}

#[test]
fn an_old_agent_is_fine_without_exclude_paths() {
    let node = Machine::new();
    node.write("help", "--source value\n");
    proceeds(&node, &active());
    assert_eq!(node.try_once(&active()).0, 0);
    assert_eq!(node.runs(), ["upgrade --source dir:/"]);
}

/// The preflight goes ahead, and says what the sentinel will say.
fn proceeds(node: &Machine, order: &UpgradeOrder) -> Proceed {
    let (code, words) = node.check(order, false);
    let record: Proceed = serde_json::from_str(&words).unwrap();
    assert!(code == 0 && record.proceed && record.boot == "b1", "{code} {words}");
    assert_eq!(record.target.as_deref(), Some("v2"));
    record
}

#[test]
fn the_preflight_skips_proceeds_or_refuses_and_writes_nothing() {
    let node = Machine::new();
    assert_eq!(proceeds(&node, &active()).before.as_deref(), Some("v1"));
    node.boots("b1", "active", "v2");
    assert_eq!(node.check(&active(), false), (0, r#"{"upToDateAt":"v2"}"#.into()));
    proceeds(&node, &UpgradeOrder { force: true, ..active() });
    proceeds(&node, &UpgradeOrder { recovery: true, ..UpgradeOrder::default() });
    node.write("host/etc/kairos-release", "");
    assert_eq!(node.check(&active(), true), (0, "the node does not run Kairos".into()));
    assert_eq!(node.check(&active(), false).0, permanent());
    assert_eq!((node.runs().len(), fs::read_dir(node.path("sentinel")).unwrap().count()), (0, 0));
}

/// Another Job's agent has written `release` in that boot.
fn has_written(node: &Machine, boot: &str, release: &str) {
    let result =
        json!({"jobUid": "other", "state": "upgraded", "boot": boot, "active": true, "target": release});
    node.write("sentinel/another-job.upgrade.json", &result.to_string());
}

/// An upgrade has written another image in this boot, and its Job failed afterwards: what the node runs is
/// not what it boots next.
#[test]
fn a_node_that_boots_another_release_next_is_not_said_to_be_at_the_one_that_it_runs() {
    let node = Machine::new();
    node.boots("b1", "active", "v2");
    has_written(&node, "b1", "v3");
    for (code, words) in [node.check(&active(), false), node.try_once(&active())] {
        assert!(code == permanent() && words.contains("only until its next boot"), "{code} {words}");
        assert!(words.contains("Job another-job has written v3"), "{words}");
    }
    assert!(node.runs().is_empty());
    proceeds(&node, &UpgradeOrder { force: true, ..active() });
    has_written(&node, "b0", "v3");
    assert_eq!(node.check(&active(), false), (0, r#"{"upToDateAt":"v2"}"#.into()));
}

/// Whatever became of the Job that wrote it: a second agent would make that image, which nobody has booted,
/// the fallback.
#[test]
fn an_image_that_no_boot_has_tried_is_written_over_by_no_other_upgrade() {
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    for (written, words) in [("v2", "but a reboot"), ("v3", "Reboot the node first")] {
        let node = Machine::new();
        has_written(&node, "b1", written);
        for (code, said) in [node.check(&active(), false), node.try_once(&active())] {
            assert!(code == permanent() && said.contains(words), "{code} {said}");
        }
        let both = UpgradeOrder { recovery: true, ..active() };
        assert_eq!((node.check(&both, false).0, node.try_once(&both).0), (permanent(), permanent()));
        assert_eq!((node.runs().len(), node.result()), (0, None));
        proceeds(&node, &recovery);
        proceeds(&node, &UpgradeOrder { force: true, ..active() });
        // The node was rebooted, and fell back.
        node.boots("b2", "passive", "v1");
        assert_eq!(node.check(&active(), false).0, 0);
        assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
    }
}

/// It boots the same again, whatever is written on its disk.
#[test]
fn a_node_that_runs_from_memory_is_refused_untouched_unless_it_is_at_the_release() {
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    for order in [active(), UpgradeOrder { force: true, ..active() }, recovery] {
        let node = Machine::new();
        node.write("proc/cmdline", "root=live:LABEL=COS_LIVE kairos.ram");
        for (code, words) in [node.check(&order, true), node.try_once(&order)] {
            assert!(code == permanent() && words.contains("runs from memory"), "{code} {words}");
        }
        assert_eq!((node.runs().len(), node.result()), (0, None));
    }
    let node = Machine::new();
    node.boots("b1", "active", "v2");
    node.write("proc/cmdline", "netboot kairos.ram");
    assert_eq!(node.check(&active(), false), (0, r#"{"upToDateAt":"v2"}"#.into()));
}

/// Agents refuse a machine of which they do not know what it has booted; others know more than we do.
#[test]
fn a_boot_that_is_unknown_is_refused_where_the_images_agent_would_refuse_it() {
    for (cmdline, answer, refused) in [
        ("root=/dev/sda2", "unknown", true),
        ("root=/dev/sda2", "livecd_boot", true),
        ("root=/dev/sda2", "active_boot", false),
        ("root=/dev/sda2", "", false),
        ("root=LABEL=COS_ACTIVE", "unknown", false),
    ] {
        let node = Machine::new();
        node.write("proc/cmdline", cmdline);
        node.write("boot", answer);
        for (code, words) in [node.check(&active(), true), node.try_once(&active())] {
            assert_eq!(code, if refused { permanent() } else { 0 }, "{cmdline} {answer}: {words}");
            assert!(!refused || words.contains("what the node has booted"), "{words}");
        }
        assert_eq!((node.runs().is_empty(), node.result().is_none()), (refused, refused));
    }
}

/// Before, it was drained, tried as often as the Job may be, and left cordoned.
#[test]
fn a_node_with_trusted_boot_is_refused_untouched() {
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    for order in [active(), UpgradeOrder { force: true, ..active() }, recovery] {
        let node = Machine::new();
        node.write("proc/cmdline", "console=tty1 rd.immucore.uki");
        for (code, words) in [node.check(&order, true), node.try_once(&order)] {
            assert!(code == permanent() && words.contains("Trusted Boot"), "{code} {words}");
        }
        assert_eq!((node.runs().len(), node.result()), (0, None));
    }
    // At the release, if it has not fallen back to it.
    let node = Machine::new();
    node.boots("b1", "active", "v2");
    node.write("proc/cmdline", "console=tty1 rd.immucore.uki");
    assert_eq!(node.check(&active(), true).0, permanent(), "nothing tells which entry it has booted");
    let efivars = "host/sys/firmware/efi/efivars";
    fs::create_dir_all(node.path(efivars)).unwrap();
    for (entry, code) in [("passive.conf", permanent()), ("active.conf", 0)] {
        let variable = "LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        node.write(&format!("{efivars}/{variable}"), &format!("\u{6}\0\0\0{}", entry.replace("", "\0")));
        assert_eq!(node.check(&active(), true).0, code, "{entry}");
    }
}

const K3S: &str = "KAIROS_SOFTWARE_VERSION_PREFIX=k3s\nKAIROS_SOFTWARE_VERSION=";

/// Neither the preflight nor, where there was none or the node changed since, the wrapper itself goes back to
/// an older release.
#[test]
fn an_older_image_is_refused_untouched_unless_it_is_forced() {
    for (host, image, older) in [
        ("KAIROS_VERSION=v3.5.0\n".to_owned(), "KAIROS_VERSION=v3.4.2\n".to_owned(), true),
        ("KAIROS_VERSION=v3.5.1-rc1\n".into(), "KAIROS_VERSION=v3.5.0\n".into(), true),
        ("KAIROS_VERSION=v3.10\n".into(), "KAIROS_VERSION=v3.9\n".into(), true),
        (
            format!("KAIROS_VERSION=v3.5.0\n{K3S}v1.30.11+k3s1\n"),
            format!("KAIROS_VERSION=v3.5.0\n{K3S}v1.30.9+k3s1\n"),
            true,
        ),
        ("KAIROS_VERSION=v3.5.0\n".into(), "KAIROS_VERSION=v3.5.1-rc1\n".into(), false),
        ("KAIROS_VERSION=v3.5.0\n".into(), "KAIROS_VERSION=of-ours\n".into(), false),
        (
            "KAIROS_VERSION=v3.5.0\nKAIROS_FLAVOR=ubuntu\n".into(),
            "KAIROS_VERSION=v3.4.2\nKAIROS_FLAVOR=debian\n".into(),
            false,
        ),
    ] {
        let node = Machine::new();
        node.write("host/etc/kairos-release", &host);
        node.write("etc/kairos-release", &image);
        for (code, words) in [node.check(&active(), true), node.try_once(&active())] {
            let refused = code == permanent()
                && words.contains("older than what the node runs (v3.")
                && words.ends_with("set force: true to go back");
            assert!(refused == older && (older || code == 0), "{host} {image}: {code} {words}");
        }
        assert_eq!((node.runs().is_empty(), node.result().is_none()), (older, older));
        let force = UpgradeOrder { force: true, ..active() };
        assert_eq!((node.check(&force, true).0, node.try_once(&force).0), (0, 0));
        assert_eq!(node.runs().len(), 1, "{host} {image}");
    }
}

#[test]
fn facts_are_the_termination_message() {
    let node = Machine::new();
    let (code, words) =
        node.ended(&node.command(applet::NODE_LABELER, contract::facts_args()).output().unwrap());
    let facts: Facts = serde_json::from_str(&words).unwrap();
    assert_eq!((code, facts.boot.as_str(), facts.boot_state.as_str()), (0, "b1", "active"));
    assert_eq!((facts.kairos, facts.version.as_deref()), (true, Some("v1")));
}

#[test]
fn install_puts_a_binary_that_runs() {
    let node = Machine::new();
    assert_eq!(node.ended(&node.command(applet::INSTALL, contract::install_args()).output().unwrap()).0, 0);
    let copy = node.path(contract::INSTALLED.trim_start_matches('/'));
    let output = Command::new(copy).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// In a mount namespace of its own and on the machine's own root, as in a container: what was mounted over
/// the image's files is off, the host's devices are there, and the node's cloud-config is overruled in
/// memory, when the agent runs. What it binds into the new image is the disk as it is.
#[test]
fn the_agent_sees_the_image_and_the_hosts_devices() {
    let permitted = Command::new("unshare").args(["-m", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a mount namespace is not permitted here");
        return;
    }
    let node = Machine::new();
    for path in ["host/dev", "host/run", "host/oem", "chroot"] {
        fs::create_dir_all(node.path(path)).unwrap();
    }
    node.write("host/oem/90_custom.yaml", "#cloud-config\nupgrade: {reboot: true}\n");
    for path in ["host/dev/null", "host/run/of-the-host"] {
        node.write(path, "");
    }
    node.write("injected", "of the pod\n");
    node.agent(
        "cat /etc/hosts >\"$KAIROS_TEST/hosts\"; ls /dev /run >\"$KAIROS_TEST/seen\"
        mount --bind \"$HOST_DIR/oem\" \"$KAIROS_TEST/chroot\"
        for oem in \"$HOST_DIR/oem\" \"$KAIROS_TEST/chroot\"; do
            find \"$oem\" -name '*.yaml' | LC_ALL=C sort | xargs cat | grep -o 'reboot: [a-z]*' | tail -1
        done >\"$KAIROS_TEST/reboots\"",
    );
    let host = node.path("host");
    let script = "mount --bind \"$KAIROS_TEST/injected\" /etc/hosts && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, BINARY, "upgrade", "--job=j", "--active", "--force"]);
    command
        .arg(format!("--host-dir={}", host.display()))
        .arg(format!("--state-dir={}", node.path("sentinel").display()));
    command.env("PATH", format!("{}:{}", node.path("usr/bin").display(), std::env::var("PATH").unwrap()));
    command.env("KAIROS_TEST", node.path("")).env("KAIROS_ROOT", "").env(contract::env::JOB_UID, "u");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!fs::read_to_string(node.path("hosts")).unwrap().contains("of the pod"));
    assert_eq!(
        fs::read_to_string(node.path("seen")).unwrap(),
        "/dev:\nnull\n\n/run:\nkairos-operator\nof-the-host\n"
    );
    assert_eq!(fs::read_to_string(node.path("reboots")).unwrap(), "reboot: false\nreboot: true\n");
    let left = fs::read_dir(node.path("host/oem")).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["90_custom.yaml"], "nothing of it stays");
    assert_eq!(node.runs(), ["upgrade --source dir:/"]);
}

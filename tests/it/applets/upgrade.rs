//! The upgrade wrapper as a process: what it does with the agent, and what a retry does.

use std::{fs, process::Stdio, time::Duration};

use kairos_operator::contract::{RecoveryProof, UpgradeOrder, UpgradeState};

use super::{
    machine::{Machine, active, permanent, signal},
    node::eventually,
};

#[test]
fn it_runs_the_agent_once_whatever_is_retried() {
    let node = Machine::new();
    assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
    assert_eq!(node.state(), Some((UpgradeState::Upgraded, "b1".into())));
    assert_eq!(
        fs::read_to_string(node.path("host_dir")).unwrap().trim(),
        node.path("host").to_str().unwrap()
    );
    assert_eq!(node.sentinel_boot(), "b1");
    for boot in ["b1", "b2"] {
        node.boots(boot, "active", "v1");
        assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
        assert_eq!(
            node.state(),
            Some((UpgradeState::Upgraded, "b1".into())),
            "the boot in which it succeeded"
        );
        assert_eq!(node.sentinel_boot(), "b1");
    }
    assert_eq!(node.runs(), ["upgrade --source dir:/"]);
}

/// Kairos is one binary, with a link by each program's name. Called by a link it is that program; where an
/// image has none it is told.
#[test]
fn the_one_binary_of_kairos_is_the_agent_by_its_link_or_by_its_first_argument() {
    let node = Machine::new();
    node.is_one_binary(true);
    assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
    assert_eq!(node.runs(), ["upgrade --source dir:/"]);

    let node = Machine::new();
    node.is_one_binary(false);
    let order = UpgradeOrder { exclude_paths: vec!["/x".into()], debug: true, ..active() };
    assert_eq!(node.check(&order, false).0, 0);
    assert_eq!(node.try_once(&order), (0, "upgraded to v2".into()));
    assert_eq!(node.runs(), ["--debug upgrade --source dir:/ --exclude-path /x"]);
}

#[test]
fn a_failure_says_the_agents_words_and_may_be_tried_again() {
    let node = Machine::new();
    node.agent("echo first; echo no space left on device >&2; exit 1");
    let (code, words) = node.try_once(&active());
    assert!(code == 1 && words.contains("no space left on device"), "{code} {words}");
    assert_eq!(node.state(), Some((UpgradeState::Failed, "b1".into())));
    node.agent("echo better");
    assert_eq!(node.try_once(&active()).0, 0);
    assert_eq!(node.runs().len(), 2);
}

/// A cloud-config may end the agent with an error when the new image is in its place already: another run
/// would make that one the fallback. Rows: what the agent does before it fails, and whether it may be tried
/// again.
#[test]
fn a_failure_after_the_images_were_replaced_is_not_tried_again() {
    for (agent, again) in [
        ("echo half >transition.img", true),
        ("echo new >transition.img; mv active.img passive.img", false),
        ("echo new >transition.img; mv active.img passive.img; mv transition.img active.img", false),
        ("rm -r ../cOS", false),
    ] {
        let node = Machine::new();
        let images = "host/run/initramfs/cos-state/cOS";
        fs::create_dir_all(node.path(images)).unwrap();
        for image in ["active", "passive"] {
            node.write(&format!("{images}/{image}.img"), image);
        }
        node.agent(&format!("cd \"$KAIROS_ROOT/{images}\"; {agent}; echo the hook failed; exit 1"));
        let (code, words) = node.try_once(&active());
        assert!(words.contains("kairos-agent ended with 1: the hook failed"), "{agent}: {words}");
        let expected = if again { (1, UpgradeState::Failed) } else { (permanent(), UpgradeState::Started) };
        assert_eq!((code, node.result().unwrap().state), expected, "{agent}: {words}");
        assert!(again || words.starts_with("kairos-agent failed after it had replaced the image"), "{words}");
        node.agent(&format!("echo again >\"$KAIROS_ROOT/{images}/active.img\""));
        assert_eq!(
            (node.try_once(&active()).0, node.runs().len()),
            if again { (0, 2) } else { (permanent(), 1) }
        );
    }
}

/// As an agent does whose cloud-config has it write another image. Rows: what the agent writes before it says
/// that all went well, and whether there was an active image to be seen before.
#[test]
fn a_success_that_wrote_another_image_than_the_active_one_is_none() {
    for (agent, seen, upgraded) in [
        ("echo new >recovery.img", true, false),
        ("true", true, false),
        ("echo new >transition.img; mv active.img passive.img; mv transition.img active.img", true, true),
        ("true", false, true),
    ] {
        let node = Machine::new();
        let images = "host/run/initramfs/cos-state/cOS";
        fs::create_dir_all(node.path(images)).unwrap();
        if seen {
            node.write(&format!("{images}/active.img"), "active");
        }
        node.agent(&format!("cd \"$KAIROS_ROOT/{images}\"; {agent}"));
        let (code, words) = node.try_once(&active());
        let expected =
            if upgraded { (0, UpgradeState::Upgraded) } else { (permanent(), UpgradeState::Failed) };
        assert_eq!((code, node.result().unwrap().state), expected, "{agent}: {words}");
        assert!(upgraded || words.starts_with("kairos-agent ended well, and has not written"), "{words}");
    }
    // Of the recovery image alone nothing is seen.
    let node = Machine::new();
    fs::create_dir_all(node.path("host/run/initramfs/cos-state/cOS")).unwrap();
    node.write("host/run/initramfs/cos-state/cOS/active.img", "active");
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    assert_eq!(node.try_once(&recovery), (0, "recovery upgraded to v2".into()));
}

#[test]
fn output_streams_while_the_agent_runs() {
    let node = Machine::new();
    node.agent("echo to-stdout; echo to-stderr >&2");
    let output = node.upgrade(&active()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("to-stdout"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("to-stderr"));
}

#[test]
fn something_left_behind_does_not_hold_it_up() {
    let node = Machine::new();
    node.agent("sleep 3600 & echo $! >\"$KAIROS_ROOT/left\"; exit 0");
    let mut child = node.upgrade(&active()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let left =
        nix::unistd::Pid::from_raw(fs::read_to_string(node.path("left")).unwrap().trim().parse().unwrap());
    nix::sys::signal::kill(left, nix::sys::signal::Signal::SIGKILL)
        .expect("it still ran: nothing waited for its end");
}

/// A wrapper that is killed while its agent runs.
fn interrupted() -> Machine {
    let node = Machine::new();
    node.agent("exec sleep 3");
    let mut child = node.start();
    eventually("the agent", || node.runs().len() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(node.state(), Some((UpgradeState::Started, "b1".into())));
    node.agent("echo again");
    node
}

#[test]
fn interrupted_in_this_boot_it_fails_for_good() {
    let node = interrupted();
    for _ in 0..2 {
        let (code, words) = node.try_once(&active());
        assert!(code == permanent() && words.contains("interrupted"), "{code} {words}");
    }
    assert_eq!(node.runs().len(), 1);
}

#[test]
fn an_agent_that_rebooted_the_node_itself_is_recognized() {
    let node = interrupted();
    node.boots("b2", "active", "v2");
    assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
    assert_eq!(node.state(), Some((UpgradeState::Upgraded, "b1".into())));
    assert_eq!((node.sentinel_boot(), node.runs().len()), ("b1".into(), 1));
}

#[test]
fn a_reboot_that_proves_nothing_fails_for_good() {
    for (state, release) in [("active", "v1"), ("passive", "v2"), ("recovery", "v2")] {
        let node = interrupted();
        node.boots("b2", state, release);
        assert_eq!(node.try_once(&active()).0, permanent(), "{state} {release}");
        assert_eq!(node.runs().len(), 1);
    }
}

#[test]
fn a_node_that_is_there_already_is_left_alone() {
    let node = Machine::new();
    node.boots("b1", "active", "v2");
    for _ in 0..2 {
        assert_eq!(node.try_once(&active()), (0, r#"{"upToDateAt":"v2"}"#.into()));
        assert_eq!(node.sentinel_boot(), "", "no reboot");
    }
    assert!(node.runs().is_empty() && !node.path("sentinel/job-1.json").exists());
    let force = UpgradeOrder { force: true, ..active() };
    assert_eq!(node.try_once(&force).0, 0);
    assert_eq!(node.runs().len(), 1);
}

#[test]
fn partitions_flags_and_paths_reach_the_agent() {
    let node = Machine::new();
    let paths = vec!["/etc/a b".into(), "*.log".into()];
    let order = UpgradeOrder { recovery: true, debug: true, exclude_paths: paths, ..active() };
    assert_eq!(node.try_once(&order).0, 0);
    let tail = "--source dir:/ --exclude-path /etc/a b --exclude-path *.log";
    assert_eq!(
        node.runs(),
        [format!("--debug upgrade --recovery {tail}"), format!("--debug upgrade {tail}")]
    );
}

#[test]
fn recovery_alone_compares_nothing_and_asks_for_no_reboot() {
    let node = Machine::new();
    node.boots("b1", "active", "v2");
    let order = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    assert_eq!(node.try_once(&order), (0, "recovery upgraded to v2".into()));
    assert_eq!(
        (node.runs(), node.sentinel_boot()),
        (vec!["upgrade --recovery --source dir:/".into()], String::new())
    );
}

/// An agent that keeps a record of what it did, and those that do not, or say nothing new.
#[test]
fn the_nodes_own_record_proves_what_no_boot_does() {
    let record =
        "echo 'last-recovery-upgrade: \"2026-11-28T02:00:07Z\"' >\"$HOST_DIR/usr/local/.kairos-state\"";
    let order = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    let node = Machine::new();
    node.agent(record);
    let proof = RecoveryProof { recovery_at: "2026-11-28T02:00:07Z".into(), target: Some("v2".into()) };
    for tries in ["the first", "after its pod was lost"] {
        let (code, words) = node.try_once(&order);
        assert_eq!((code, serde_json::from_str(&words).ok()), (0, Some(proof.clone())), "{tries}: {words}");
    }
    assert_eq!(node.runs().len(), 1);
    for agent in [record, "true", "mkfifo \"$HOST_DIR/usr/local/new\""] {
        let node = Machine::new();
        node.write("host/usr/local/.kairos-state", "last-recovery-upgrade: \"2026-11-28T02:00:07Z\"\n");
        node.agent(agent);
        assert_eq!(node.try_once(&order), (0, "recovery upgraded to v2".into()), "{agent}");
    }
    // With the active image it is the boot that proves.
    let node = Machine::new();
    node.agent(record);
    let both = UpgradeOrder { active: true, ..order };
    assert_eq!(node.try_once(&both), (0, "upgraded to v2".into()));
    // Where that is at the release already, the recovery image is written alone, and proved like one.
    let node = Machine::new();
    node.agent(record);
    node.boots("b1", "active", "v2");
    assert!(node.check(&both, false).1.contains("\"proceed\":true"));
    let (code, words) = node.try_once(&both);
    assert_eq!((code, serde_json::from_str(&words).ok()), (0, Some(proof)), "{words}");
    assert_eq!(
        (node.runs(), node.sentinel_boot()),
        (vec!["upgrade --recovery --source dir:/".into()], "".into())
    );
}

/// GRUB goes by the boot that failed before, and would boot the fallback again. Rows: what the node has
/// booted, what is upgraded, what stood in GRUB's environment block, and what stands there afterwards.
#[test]
fn on_a_node_that_fell_back_grub_is_told_to_try_the_new_image() {
    let block = |lines: &str| format!("{:#<1024}", format!("# GRUB Environment Block\n{lines}"));
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    let (kept, told) = ("extra_cmdline=quiet\nnext_entry=\n", "extra_cmdline=quiet\nnext_entry=cos\n");
    for (state, order, before, after) in [
        ("passive", active(), Some(kept), Some(told)),
        ("passive", active(), None, Some("next_entry=cos\n")),
        ("recovery", active(), Some(kept), Some(told)),
        ("active", active(), Some(kept), Some(kept)),
        ("active", active(), None, None),
        ("passive", recovery, Some(kept), Some(kept)),
    ] {
        let node = Machine::new();
        node.boots("b1", state, "v1");
        fs::create_dir(node.path("host/oem")).unwrap();
        if let Some(lines) = before {
            node.write("host/oem/grubenv", &block(lines));
        }
        assert_eq!(node.try_once(&order).0, 0);
        let found = fs::read_to_string(node.path("host/oem/grubenv")).ok();
        assert_eq!(found, after.map(block), "{state} {order:?}");
        assert_eq!(node.sentinel().not_tried, None);
    }
    // Where it cannot be told, the upgrade has succeeded all the same, and the sentinel says why.
    let node = Machine::new();
    node.boots("b1", "passive", "v1");
    assert_eq!(node.try_once(&active()), (0, "upgraded to v2".into()));
    assert_eq!(node.sentinel().not_tried.as_deref(), Some("the node has no /oem"));
    // While the agent fails, nothing is told.
    let node = Machine::new();
    node.boots("b1", "passive", "v1");
    fs::create_dir(node.path("host/oem")).unwrap();
    node.agent("exit 1");
    assert_eq!((node.try_once(&active()).0, node.path("host/oem/grubenv").exists()), (1, false));
}

#[test]
fn a_recovery_that_fails_leaves_the_active_partition_alone() {
    let node = Machine::new();
    node.agent("exit 3");
    let order = UpgradeOrder { recovery: true, ..active() };
    assert_eq!(node.try_once(&order).0, 1);
    assert_eq!(node.runs(), ["upgrade --recovery --source dir:/"]);
}

#[test]
fn the_first_sigterm_waits_for_the_agent_and_the_second_does_not() {
    use nix::sys::signal::Signal::SIGTERM;
    let node = Machine::new();
    node.agent("while [ ! -e \"$KAIROS_ROOT/go\" ]; do sleep 0.05; done");
    let mut child = node.start();
    eventually("the agent", || node.runs().len() == 1);
    signal(&child, SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    node.write("go", "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(node.state(), Some((UpgradeState::Upgraded, "b1".into())));

    let node = Machine::new();
    node.agent("exec sleep 3600");
    let mut child = node.start();
    eventually("the agent", || node.runs().len() == 1);
    // Two that come while the process cannot look are one.
    eventually("its end", || {
        signal(&child, SIGTERM);
        std::thread::sleep(Duration::from_millis(300));
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(permanent()));
    assert_eq!(node.state(), Some((UpgradeState::Started, "b1".into())), "it may have been anywhere");
}

/// What is begun then would be killed midway.
#[test]
fn told_to_stop_while_the_recovery_image_is_written_no_other_agent_is_started() {
    let node = Machine::new();
    node.agent("while [ ! -e \"$KAIROS_ROOT/go\" ]; do sleep 0.05; done");
    let both = UpgradeOrder { recovery: true, ..active() };
    let child = node.upgrade(&both).spawn().unwrap();
    eventually("the agent", || node.runs().len() == 1);
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    node.write("go", "");
    let (code, words) = node.ended(&child.wait_with_output().unwrap());
    assert!(code == 1 && words.starts_with("told to stop after the recovery image was written"), "{words}");
    assert_eq!(node.runs(), ["upgrade --recovery --source dir:/"]);
    assert_eq!(node.state(), Some((UpgradeState::Failed, "b1".into())));
    // Another try writes both.
    assert_eq!((node.try_once(&both).0, node.runs().len()), (0, 3));
}

#[test]
fn two_pods_of_one_job_never_run_two_agents() {
    let node = Machine::new();
    node.agent("sleep 0.5");
    let children: Vec<_> = (0..3).map(|_| node.start()).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(node.runs().len(), 1);
}

#[test]
fn a_result_that_cannot_be_read_is_not_no_result() {
    let node = Machine::new();
    node.write("sentinel/job-1.upgrade.json", "{\"state\":");
    assert_eq!(node.try_once(&active()).0, permanent());
    assert!(node.runs().is_empty());
}

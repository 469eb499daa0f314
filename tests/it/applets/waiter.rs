//! The sentinel and the reboot waiter together, as processes.

use std::{fs, process::Command, time::Duration};

use kairos_operator::contract;

use super::{
    api::JOB,
    node::{BINARY, Node, Waiter, eventually},
};

/// Long enough for a waiter to do what it must not do.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn one_job_one_reboot() {
    let mut node = Node::new("b1");
    let mut waiter = node.waiting();
    node.sentinel();
    a_moment();
    assert!(!node.is_asked(), "the Job is not Complete");
    node.api.job(Some("Complete"));
    node.gets_asked();
    assert_eq!(node.api.reboot_state().as_deref(), Some("rebooting"));
    assert_eq!(node.api.waits_in().as_deref(), Some("b1"));

    waiter.terminate();
    a_moment();
    assert!(waiter.runs(), "once init is asked it stays");
    waiter.kill();
    node.reboot("b2");
    assert_eq!(node.waiter().ends(), 0);
    assert_eq!(node.api.reboot_state().as_deref(), Some("completed"));
    assert!(!node.sentinel_file().exists());
    assert!(node.termination_message().starts_with("completed"), "{}", node.termination_message());
    assert_eq!(node.waiter().ends(), 0, "and once more, as the kubelet may have it");
    assert!(!node.is_asked());
}

/// Somebody, or a `ttlSecondsAfterFinished`, deletes the Job before its waiter has seen it complete.
#[test]
fn a_job_that_is_deleted_after_its_success_was_recorded_is_followed_by_one_reboot_all_the_same() {
    let mut node = Node::new("b1");
    let mut first = node.waiting();
    node.sentinel();
    node.api.delete_job();
    assert_eq!(first.ends(), 0);
    assert!(!node.is_asked() && !node.sentinel_file().exists(), "it cannot know better");
    let late = node.late_waiter("b1");
    node.gets_asked();
    late.kill();
    node.reboot("b2");
    for _ in 0..2 {
        assert_eq!(node.late_waiter("b1").ends(), 0, "and once more, as the kubelet may have it");
        assert_eq!(node.api.reboot_state().as_deref(), Some("completed"));
        assert!(!node.is_asked());
    }
}

#[test]
fn where_it_may_not_say_in_which_boot_it_is_it_says_the_rest() {
    let mut node = Node::new("b1");
    node.api.knows_no_boot();
    let _waiter = node.waiting();
    assert_eq!(node.api.waits_in(), None);
    node.sentinel();
    node.api.job(Some("Complete"));
    node.gets_asked();
    assert_eq!(node.api.reboot_state().as_deref(), Some("rebooting"));
}

#[test]
fn a_webhook_that_never_answers_keeps_no_waiter_from_saying_that_it_waits() {
    let node = Node::new("b1");
    node.api.has_dead_webhook();
    let _waiter = node.waiting();
    let tries = node.api.log().iter().filter(|request| request.starts_with("PATCH")).count();
    assert_eq!(tries, 1, "{:?}", node.api.log());
}

/// kind and k3d.
#[test]
fn a_node_that_keeps_its_boot_id_is_asked_once() {
    let mut node = Node::new("b1");
    node.init_started(17);
    let waiter = node.waiting();
    node.sentinel();
    node.api.job(Some("Complete"));
    node.gets_asked();
    waiter.kill();
    // Init did not listen.
    node.reboot("b1");
    let waiter = node.waiter();
    node.gets_asked();
    waiter.kill();
    node.reboot("b1");
    node.init_started(4711);
    for _ in 0..2 {
        assert_eq!(node.waiter().ends(), i32::from(contract::EXIT_SAME_BOOT));
        assert!(
            node.termination_message().contains("boot id is what it was"),
            "{}",
            node.termination_message()
        );
        assert!(!node.is_asked());
    }
    node.reboot("b2");
    assert_eq!(node.waiter().ends(), 0);
    assert_eq!(fs::read_dir(node.state_dir()).unwrap().count(), 0);
}

/// Whatever stands in the way of the note, a full disk or a directory as here.
#[test]
fn where_no_note_can_be_taken_a_machine_is_asked_and_a_container_is_not() {
    // A container that its runtime starts anew with the machine is seconds behind the kernel.
    for (ticks, is_asked) in [(17, true), (2_000, false), (360_000, false)] {
        let mut node = Node::new("b1");
        node.init_started(ticks);
        let mut waiter = node.waiting();
        node.sentinel();
        let file = contract::asked_file(JOB);
        let asked = node.state_dir().join(&file);
        fs::create_dir_all(asked.join("in the way")).unwrap();
        node.api.job(Some("Complete"));
        if is_asked {
            node.gets_asked();
        } else {
            assert_eq!(waiter.ends(), 1);
            let told = node.termination_message();
            assert!(told.contains("it is a container") && told.contains(&file) && told.len() < 300, "{told}");
            assert!(!node.is_asked() && node.sentinel_file().exists());
            fs::remove_dir_all(asked).unwrap();
            let _waiter = node.waiter();
            node.gets_asked();
        }
    }
}

#[test]
fn a_sentinel_from_before_the_start_is_found() {
    let mut node = Node::new("b1");
    node.api.job(Some("Complete"));
    node.sentinel();
    let _waiter = node.waiter();
    node.gets_asked();
}

#[test]
fn at_rest_it_asks_for_nothing() {
    let node = Node::new("b1");
    let _waiter = node.waiting();
    a_moment();
    let before = node.api.log();
    a_moment();
    assert_eq!(node.api.log(), before);
    assert_eq!(before.len(), 3, "the Job, the pod, the annotation: {before:?}");
}

#[test]
fn an_api_that_is_away_is_waited_for() {
    let mut node = Node::new("b1");
    let _waiter = node.waiting();
    node.api.down(true);
    node.sentinel();
    a_moment();
    assert!(!node.is_asked());
    node.api.job(Some("Complete"));
    node.api.down(false);
    node.gets_asked();
}

#[test]
fn an_api_that_is_away_from_the_start_delays_only_the_announcement() {
    let node = Node::new("b1");
    node.api.down(true);
    let _waiter = node.waiter();
    a_moment();
    node.api.down(false);
    node.is_announced("waiting");
}

#[test]
fn a_watch_that_breaks_is_taken_up_again() {
    let mut node = Node::new("b1");
    let _waiter = node.waiting();
    node.sentinel();
    eventually("a watch", || node.api.log().iter().any(|line| line.contains("watch=true")));
    assert!(
        node.api.log().iter().any(|line| line.contains("fieldSelector=metadata.name%3Djob-1")),
        "by name, as the Role has it"
    );
    node.api.down(true);
    a_moment();
    node.api.job(Some("Complete"));
    node.api.down(false);
    node.gets_asked();
}

#[test]
fn a_job_that_fails_or_goes_is_not_followed_by_a_reboot() {
    for fail in [true, false] {
        let mut node = Node::new("b1");
        let mut waiter = node.waiting();
        node.sentinel();
        if fail {
            node.api.job(Some("Failed"))
        } else {
            node.api.delete_job()
        }
        assert_eq!(waiter.ends(), 0);
        assert!(node.termination_message().starts_with("no reboot: "), "{}", node.termination_message());
        assert!(!node.sentinel_file().exists() && !node.is_asked());
    }
}

#[test]
fn a_replaced_pod_gives_up_and_leaves_the_sentinel() {
    let mut node = Node::new("b1");
    let mut waiter = node.waiting();
    node.sentinel();
    node.api.replace_pod();
    node.api.job(Some("Complete"));
    assert_eq!(waiter.ends(), 1);
    assert!(node.termination_message().contains("was replaced"), "{}", node.termination_message());
    assert!(node.sentinel_file().exists() && !node.is_asked());
}

#[test]
fn a_pod_that_is_replaced_after_the_last_look_does_not_reboot_either() {
    let mut node = Node::new("b1");
    let mut waiter = node.waiting();
    node.api.replace_pod_late();
    node.sentinel();
    node.api.job(Some("Complete"));
    assert_eq!(waiter.ends(), 1);
    assert!(node.termination_message().contains("was replaced"), "{}", node.termination_message());
    assert!(node.sentinel_file().exists() && !node.is_asked());
}

/// A token is bound to its pod, and an API server takes it for some seconds after that pod is gone.
#[test]
fn a_token_that_is_not_taken_after_the_last_look_asks_for_no_reboot_until_it_is_taken_again() {
    for replaced in [false, true] {
        let mut node = Node::new("b1");
        let mut waiter = node.waiting();
        node.api.end_token_late();
        node.sentinel();
        node.api.job(Some("Complete"));
        eventually("the announcement", || node.api.is_token_ended());
        a_moment();
        assert!(waiter.runs() && !node.is_asked() && node.sentinel_file().exists());
        if replaced {
            node.api.replace_pod();
        }
        node.api.take_token_again();
        if replaced {
            assert_eq!(waiter.ends(), 1);
            assert!(node.termination_message().contains("was replaced"), "{}", node.termination_message());
            assert!(!node.is_asked());
        } else {
            node.gets_asked();
        }
    }
}

#[test]
fn the_directory_may_go_and_come_again() {
    for rename in [false, true] {
        let mut node = Node::new("b1");
        let _waiter = node.waiting();
        if rename {
            fs::rename(node.state_dir(), node.root.path().join("state/away")).unwrap();
        } else {
            fs::remove_dir_all(node.state_dir()).unwrap();
        }
        a_moment();
        node.sentinel();
        node.api.job(Some("Complete"));
        node.gets_asked();
    }
}

#[test]
fn a_flood_of_events_hides_nothing() {
    let mut node = Node::new("b1");
    let waiter = node.waiting();
    // Stopped, it cannot empty the kernel's queue of 16384 events, which thus overflows.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(waiter.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for number in 0..6_000 {
        let path = node.state_dir().join(format!("x{number}"));
        fs::write(&path, "x").unwrap();
        fs::remove_file(path).unwrap();
    }
    node.sentinel();
    node.api.job(Some("Complete"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    node.gets_asked();
}

/// A user namespace of its own has its own count of inotify instances, which can be none.
#[test]
fn without_inotify_the_jobs_events_will_do() {
    let mut node = Node::new("b1");
    let refuse = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let permitted = Command::new("unshare").args(["-U", "-r", "sh", "-c", refuse, "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: user namespaces are not permitted here");
        return;
    }
    let plain = node.waiter_command(60, 60);
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "sh", "-c", refuse, BINARY]).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let _waiter = Waiter(command.spawn().unwrap());
    node.is_announced("waiting");
    eventually("a watch of the Job instead", || {
        node.api.log().iter().any(|line| line.contains("watch=true"))
    });
    node.api.job(None);
    node.sentinel();
    a_moment();
    assert!(!node.is_asked());
    node.api.job(Some("Complete"));
    node.gets_asked();
}

#[test]
fn sigterm_before_asking_ends_it() {
    let mut node = Node::new("b1");
    let mut waiter = node.waiting();
    waiter.terminate();
    assert_eq!(waiter.ends(), 1);
    assert!(node.termination_message().contains("told to stop"), "{}", node.termination_message());
    assert!(!node.is_asked());
}

#[test]
fn a_deadline_ends_it_and_counts_from_the_sentinel() {
    let node = Node::new("b1");
    let mut waiter = Waiter(node.waiter_command(1, 60).spawn().unwrap());
    node.is_announced("waiting");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(waiter.runs(), "an operation may take longer than its reboot");
    node.api.job(None);
    node.sentinel();
    assert_eq!(waiter.ends(), 1);
    assert!(
        node.termination_message().contains("the Job did not become Complete"),
        "{}",
        node.termination_message()
    );
}

#[test]
fn where_no_reboot_can_be_asked_it_does_not_announce_itself() {
    let node = Node::new("b1");
    let mut waiter = Waiter(node.waiter_command(60, 60).env_remove("KAIROS_INIT_PID").spawn().unwrap());
    assert_eq!(waiter.ends(), 1);
    assert!(
        node.termination_message().contains("cannot be rebooted from here"),
        "{}",
        node.termination_message()
    );
    assert!(node.api.log().is_empty());
}

/// The kernel is the machine's, so under another root the attempt ends in words; the Event is sent all the
/// same.
#[test]
fn init_that_is_unknown_or_idle_is_followed_by_the_kernel() {
    for comm in ["runit", "systemd"] {
        let node = Node::new("b1");
        fs::write(node.root.path().join("proc/1/comm"), comm).unwrap();
        node.api.job(Some("Complete"));
        node.sentinel();
        let mut waiter = Waiter(node.waiter_command(60, 1).spawn().unwrap());
        assert_eq!(waiter.ends(), 1);
        assert!(node.termination_message().contains("stands for a node"), "{}", node.termination_message());
        let events = node.api.events();
        assert_eq!((events.len(), events[0]["reason"].as_str()), (1, Some("RebootForced")));
        assert!(node.sentinel_file().exists());
    }
}

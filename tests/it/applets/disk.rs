//! Disks that are full or read-only: found before the operation begins, and never a reason to run it again.
//!
//! The state directory is a small filesystem of its own here, in a mount namespace that one thread and what
//! it starts are in.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use kairos_operator::contract::{EXIT_SAME_BOOT, UpgradeState, result_file};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    machine::{Machine, active, permanent},
    node::Node,
};

const NOTHING: Option<&str> = None;

/// Runs `test` on a thread that may mount what nobody else sees, if that is permitted here.
fn with_mounts(test: impl FnOnce() + Send + 'static) {
    let result = std::thread::spawn(|| {
        let entered = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
            .and_then(|()| mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING));
        match entered {
            Ok(()) => test(),
            Err(errno) => eprintln!("skipped: mounts are not permitted here ({errno})"),
        }
    });
    if let Err(panic) = result.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A filesystem of 256 KiB.
struct Disk(PathBuf);

impl Disk {
    fn on(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
        Self(path)
    }

    /// Leaves less than `bytes` free.
    fn fill(&self, bytes: u64) {
        let free = || {
            let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
            stat.blocks_available() * stat.fragment_size()
        };
        for number in 0.. {
            if free() == 0 || free() < bytes {
                break;
            }
            fs::write(self.0.join(format!("x{number}")), [1; 4096]).unwrap();
        }
    }

    fn clean(&self) {
        for entry in fs::read_dir(&self.0)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('x'))
        {
            fs::remove_file(entry.path()).unwrap();
        }
    }

    fn read_only(&self, yes: bool) {
        let flags = if yes { MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY } else { MsFlags::MS_REMOUNT };
        mount(NOTHING, &self.0, NOTHING, flags, NOTHING).unwrap();
    }
}

/// What a waiter ends with that cannot do its work: the cause, for a status.
fn refused(node: &Node, cause: &str) {
    assert_eq!(node.waiter().ends(), 1);
    let words = node.termination_message();
    assert!(words.contains(cause) && words.contains("/usr/local/.kairos by default"), "{words}");
    assert!(words.len() < 300 && !words.contains('\n'), "{words}");
    assert!(node.api.log().is_empty(), "nothing is announced: {:?}", node.api.log());
}

#[test]
fn a_disk_that_is_full_or_read_only_is_found_before_the_operation() {
    with_mounts(|| {
        let node = Node::new("b1");
        let disk = Disk::on(node.state_dir());
        for free in [1, 4096, 8192, 16 * 1024] {
            disk.fill(free);
            refused(&node, "No space left on device");
            disk.clean();
        }
        disk.read_only(true);
        refused(&node, "Read-only file system");
        disk.read_only(false);
        drop(node.waiting());
    });
}

#[test]
fn a_disk_that_fills_up_meanwhile_has_room_for_the_sentinel_and_for_what_is_asked() {
    with_mounts(|| {
        let mut node = Node::new("b1");
        node.init_started(17);
        let disk = Disk::on(node.state_dir());
        let waiter = node.waiting();
        disk.fill(1);
        node.sentinel();
        disk.fill(1);
        waiter.kill();
        node.api.job(Some("Complete"));
        let waiter = node.waiter();
        node.gets_asked();
        waiter.kill();
        // kind and k3d: what was asked is known there though the boot id tells nothing.
        node.reboot("b1");
        node.init_started(4711);
        assert_eq!(node.waiter().ends(), i32::from(EXIT_SAME_BOOT), "{}", node.termination_message());
        node.reboot("b2");
        assert_eq!(node.waiter().ends(), 0, "{}", node.termination_message());
        assert!(!node.sentinel_file().exists());
    });
}

#[test]
fn a_sentinel_that_cannot_be_written_is_tried_again_for_a_while() {
    with_mounts(|| {
        let node = Node::new("b1");
        let disk = Disk::on(node.state_dir());
        disk.fill(1);
        let mut sentinel = node.sentinel_command().arg("--patience-seconds=3600").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(sentinel.try_wait().unwrap().is_none(), "it goes on trying");
        disk.clean();
        assert!(sentinel.wait().unwrap().success());
        assert!(node.sentinel_file().exists());
    });
}

#[test]
fn a_sentinel_that_cannot_be_written_at_all_fails_for_good_and_says_so() {
    with_mounts(|| {
        let node = Node::new("b1");
        let disk = Disk::on(node.state_dir());
        disk.read_only(true);
        let status = node.sentinel_command().arg("--patience-seconds=1").status().unwrap();
        assert_eq!(status.code(), Some(permanent()));
        let words = node.termination_message();
        assert!(
            words.starts_with("the operation succeeded and is not run again")
                && words.contains("Read-only file system"),
            "{words}"
        );
        assert!(words.len() < 300, "a status cuts it there: {words}");
    });
}

fn fill_from(node: &Machine) -> Disk {
    Disk::on(node.path("host/var/lib/kairos"))
}

#[test]
fn an_upgrade_needs_a_disk_that_takes_its_records_before_the_agent_runs() {
    with_mounts(|| {
        let node = Machine::new();
        let disk = fill_from(&node);
        for free in [1, 8192, 16 * 1024] {
            disk.fill(free);
            let (code, words) = node.try_once(&active());
            assert!(
                code == 1
                    && words.contains("kairos-agent was not started")
                    && words.contains("No space left"),
                "{code} {words}"
            );
            disk.clean();
        }
        disk.read_only(true);
        let (code, words) = node.try_once(&active());
        assert!(
            code == 1
                && words.contains("kairos-agent was not started")
                && words.contains("Read-only file system"),
            "{code} {words}"
        );
        disk.read_only(false);
        assert_eq!((node.runs().len(), node.result()), (0, None));
        assert_eq!(node.try_once(&active()).0, 0);
    });
}

/// The agent itself fills the disk, as an upgrade does.
#[test]
fn an_upgrade_that_fills_the_disk_is_recorded_and_not_repeated() {
    with_mounts(|| {
        for (ends, code, state) in [(0, 0, UpgradeState::Upgraded), (1, 1, UpgradeState::Failed)] {
            let node = Machine::new();
            let disk = fill_from(&node);
            node.agent(&format!(
                "cat /dev/zero >\"$KAIROS_ROOT/sentinel/xfull\" 2>/dev/null; echo done; exit {ends}"
            ));
            assert_eq!(node.try_once(&active()).0, code);
            assert_eq!(node.state(), Some((state, "b1".into())));
            if ends == 0 {
                let before = fs::metadata(node.path("sentinel").join(result_file("job-1"))).unwrap().ino();
                assert_eq!(
                    node.try_once(&active()),
                    (0, "upgraded to v2".into()),
                    "a retry has nothing to write"
                );
                assert_eq!(
                    fs::metadata(node.path("sentinel").join(result_file("job-1"))).unwrap().ino(),
                    before
                );
                assert_eq!(node.runs().len(), 1);
            }
            disk.clean();
        }
    });
}

/// On Kairos the kubelet's directory is on the same partition.
#[test]
fn an_upgrade_that_fills_the_kubelets_disk_still_has_its_termination_message() {
    with_mounts(|| {
        let node = Machine::new();
        let _disk = Disk::on(node.path("dev"));
        node.agent("cat /dev/zero >\"$KAIROS_ROOT/dev/xfull\" 2>/dev/null; echo no space left; exit 1");
        assert_eq!(node.try_once(&active()), (1, "kairos-agent ended with 1: no space left".into()));
    });
}

/// The room that was kept is gone too: whatever does this, the record of the end cannot be written.
#[test]
fn an_upgrade_whose_end_cannot_be_recorded_says_how_it_ended_and_why_not() {
    with_mounts(|| {
        for (ends, says) in
            [(0, "kairos-agent succeeded and is not run again"), (1, "kairos-agent ended with 1: no room")]
        {
            let node = Machine::new();
            let disk = fill_from(&node);
            let spoil = "rm \"$KAIROS_ROOT\"/sentinel/.*.reserve; cat /dev/zero >\"$KAIROS_ROOT/sentinel/xfull\" 2>/dev/null";
            node.agent(&format!("{spoil}; echo no room; exit {ends}"));
            let output = node.upgrade(&active()).arg("--patience-seconds=1").output().unwrap();
            let (code, words) = node.ended(&output);
            assert!(
                code == permanent() && words.starts_with(says) && words.contains("No space left on device"),
                "{code} {words}"
            );
            assert!(words.len() < 300, "a status cuts it there: {words}");
            disk.clean();
            let (code, words) = node.try_once(&active());
            assert!(code == permanent() && words.contains("interrupted"), "{code} {words}");
            assert_eq!(node.runs().len(), 1, "never again");
        }
    });
}

//! `reboot(2)` itself, in a PID namespace made for it: there it ends the namespace's init, and nothing else.

use std::{os::unix::process::ExitStatusExt, process::Command};

use kairos_operator::node::host::Host;
use nix::sched::{CloneFlags, unshare};

/// Set for the process that is to be PID 1 of the new namespace.
const CHILD: &str = "KAIROS_TEST_REBOOT";

#[test]
fn the_kernel_reboots_when_asked() {
    if std::env::var_os(CHILD).is_some() {
        return in_the_namespace();
    }
    // `unshare` is for the calling thread and its children; afterwards the thread is good for nothing else.
    let result = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let me = std::env::current_exe().unwrap();
        let name = "applets::kernel::the_kernel_reboots_when_asked";
        Ok::<_, nix::Error>(
            Command::new(me)
                .args(["--exact", name, "--nocapture", "--test-threads=1"])
                .env(CHILD, "1")
                .status()
                .unwrap(),
        )
    });
    match result.join().unwrap() {
        Ok(status) => {
            assert_eq!(status.signal(), Some(1), "a reboot ends the namespace's init by SIGHUP: {status:?}")
        }
        Err(errno) => eprintln!("skipped: a PID namespace is not permitted here ({errno})"),
    }
}

/// Asks only as the init of a namespace that is not the machine's: its process id there is 1, while `/proc`,
/// which still shows the outer namespace, knows it by another.
fn in_the_namespace() {
    let outside = std::fs::read_link("/proc/self").ok();
    assert_eq!(std::process::id(), 1);
    assert_ne!(outside.as_deref(), Some(std::path::Path::new("1")), "this is not a namespace of our own");
    let error = Host::at("/", None).ask_kernel().unwrap_err();
    panic!("still here: {error:#}");
}

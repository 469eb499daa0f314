//! Closes the loop: the arguments that the controller builds mean to the applet what the controller meant.

use std::{ffi::OsString, path::Path};

use kairos_operator::{
    cli::{self, Applet},
    contract::{self, NodeLock, UpgradeOrder, applet},
};

fn parsed(name: &str, args: Vec<String>) -> Applet {
    let argv = [contract::BINARY.to_owned(), name.to_owned()].into_iter().chain(args.clone());
    let by_argument = cli::parse(argv.map(OsString::from)).unwrap();
    let argv = [format!("/links/{name}")].into_iter().chain(args);
    let by_file_name = cli::parse(argv.map(OsString::from)).unwrap();
    assert_eq!(format!("{by_argument:?}"), format!("{by_file_name:?}"));
    by_argument
}

#[test]
fn sentinel() {
    for upgrade in [false, true] {
        let Applet::Sentinel(args) =
            parsed(applet::SENTINEL, contract::sentinel_args("job-1", upgrade, None))
        else {
            panic!()
        };
        assert_eq!(args.state_dir, Path::new(contract::SENTINEL_MOUNT));
        assert_eq!((args.job.as_str(), args.upgrade), ("job-1", upgrade));
    }
}

#[test]
fn reboot_waiter() {
    let args = contract::reboot_waiter_args("job-1", "uid-1", ".kairos", (1800, 600), None);
    let Applet::RebootWaiter(args) = parsed(applet::REBOOT_WAITER, args) else { panic!() };
    assert_eq!(args.state_dir, Path::new("/state/.kairos"));
    assert_eq!((args.job.as_str(), args.owner_uid.as_str()), ("job-1", "uid-1"));
    assert_eq!((args.timeout_seconds, args.grace_seconds), (1800, 600));
    assert_eq!(args.succeeded(), None);
    let succeeded = contract::Succeeded { job_uid: "u".into(), boot: "b1".into() };
    let args = contract::reboot_waiter_args("job-1", "uid-1", ".kairos", (1800, 600), Some(&succeeded));
    let Applet::RebootWaiter(args) = parsed(applet::REBOOT_WAITER, args) else { panic!() };
    assert_eq!(args.succeeded(), Some(succeeded));
}

/// All combinations of flags, and paths of any characters.
fn orders() -> impl Iterator<Item = UpgradeOrder> {
    let paths = ["/etc/a b", "-x", "--force", "*.log", "'\"$(id)`\\", "a=b", "é", ""].map(String::from);
    (0..16_u8).map(move |bits| UpgradeOrder {
        active: bits & 1 != 0,
        recovery: bits & 2 != 0,
        force: bits & 4 != 0,
        debug: bits & 8 != 0,
        exclude_paths: paths[..usize::from(bits / 2)].to_vec(),
    })
}

#[test]
fn upgrade() {
    for order in orders() {
        let args = contract::upgrade_args("job-1", contract::STATE_DIR, &order);
        let Applet::Upgrade(args) = parsed(applet::UPGRADE, args) else { panic!() };
        assert_eq!(args.order(), order);
        assert_eq!((args.check, args.job.as_deref()), (false, Some("job-1")));
        assert_eq!(args.state_dir, Path::new("/host/usr/local/.kairos"));
        assert_eq!(args.host_dir, Path::new(contract::HOST_MOUNT));
    }
}

#[test]
fn check() {
    for order in orders() {
        for skip_foreign in [false, true] {
            let args = contract::check_args("/var/lib/kairos", &order, skip_foreign);
            let Applet::Upgrade(args) = parsed(applet::UPGRADE, args) else { panic!() };
            assert_eq!((args.order(), args.check, args.skip_foreign), (order.clone(), true, skip_foreign));
            assert_eq!(args.state_dir, Path::new("/host/var/lib/kairos"));
            assert_eq!(args.host_dir, Path::new(contract::HOST_MOUNT));
        }
    }
}

#[test]
fn install_image_check_and_facts() {
    let Applet::Install(args) = parsed(applet::INSTALL, contract::install_args()) else { panic!() };
    assert_eq!(args.to, Path::new(contract::INSTALLED));
    assert!(
        contract::INSTALLED.starts_with(contract::INSTALL_MOUNT)
            && contract::INSTALL_MOUNT.starts_with("/mnt/")
    );
    for program in [None, Some("/bin/tool"), Some("-x"), Some("")] {
        let args = contract::image_check_args(program);
        let Applet::ImageCheck(args) = parsed(applet::IMAGE_CHECK, args) else { panic!() };
        assert_eq!((args.program.as_deref(), args.traced), (program, false));
    }
    let Applet::NodeLabeler(args) = parsed(applet::NODE_LABELER, contract::facts_args()) else { panic!() };
    assert_eq!(args.host_dir, Path::new(contract::HOST_MOUNT));
}

#[test]
fn node_lock() {
    let all = [
        (NodeLock::Hold, false, false),
        (NodeLock::HoldBesideInit, false, true),
        (NodeLock::Check, true, false),
    ];
    for (does, check, beside_init) in all {
        let Applet::NodeLock(args) = parsed(applet::NODE_LOCK, contract::node_lock_args(does)) else {
            panic!()
        };
        assert_eq!(
            (args.file.as_path(), args.check, args.beside_init),
            (Path::new("/lock/node.lock"), check, beside_init)
        );
    }
}

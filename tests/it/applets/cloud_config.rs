//! What a node's cloud-config says of upgrades, and what the agent makes of it beside the wrapper.

use std::fs;

use kairos_operator::contract::UpgradeOrder;

use super::machine::{Machine, active, permanent};

/// What `upgrade` says last in all files of a directory, in the order in which the agent reads them.
const LAST_WORD: &str = "for key in reboot poweroff recovery entry; do
    find \"$HOST_DIR/oem\" -name '*.yaml' | LC_ALL=C sort | xargs cat | grep -o \"$key: [^, }]*\" | tail -1
done >\"$KAIROS_ROOT/said\"";

/// Its cloud-config may have the agent reboot the node, or write another image than the one that is asked for.
#[test]
fn the_agent_does_what_it_is_asked_for_whatever_the_nodes_cloud_config_says() {
    let says = "#cloud-config\nupgrade: {reboot: true, poweroff: true, recovery: true, entry: recovery}\n";
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    for order in [active(), recovery] {
        let node = Machine::new();
        fs::create_dir(node.path("host/oem")).unwrap();
        node.write("host/oem/99_zz.yaml", says);
        node.agent(LAST_WORD);
        assert_eq!(node.check(&order, false).0, 0);
        assert_eq!(node.try_once(&order).0, 0);
        let said = fs::read_to_string(node.path("said")).unwrap();
        assert_eq!(said, "reboot: false\npoweroff: false\nrecovery: false\nentry: \"\"\n", "{order:?}");
        let left: Vec<_> =
            fs::read_dir(node.path("host/oem")).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(left, [node.path("host/oem/99_zz.yaml")], "nothing of it stays");
    }
}

/// Rows: a file of the node's cloud-config, what it says, what is asked for, and whether that is refused where
/// it cannot be overruled.
#[test]
fn what_the_cloud_config_says_and_nothing_can_overrule_is_refused_untouched() {
    let recovery = UpgradeOrder { recovery: true, ..UpgradeOrder::default() };
    let config = "usr/local/cloud-config/config.yaml";
    for (file, says, order, refused) in [
        (config, "upgrade: {reboot: true}", active(), Some("upgrade.reboot")),
        (config, "upgrade:\n  reboot: true\n  poweroff: true", recovery.clone(), Some("upgrade.poweroff")),
        ("etc/kairos/sub/a.yml", "upgrade: {entry: recovery}", active(), Some("upgrade.entry")),
        (config, "upgrade: {recovery: true}", active(), Some("upgrade.recovery")),
        (config, "upgrade: {recovery: true}", recovery.clone(), None),
        (config, "upgrade: {reboot: false, entry: '', recovery: null}", active(), None),
        (config, "install: {reboot: true}\nupgrade: {system: {size: 4096}}", active(), None),
        ("usr/local/cloud-config/config.txt", "upgrade: {reboot: true}", active(), None),
        (config, "upgrade: [", active(), None),
    ] {
        let node = Machine::new();
        let file = format!("host/{file}");
        fs::create_dir_all(node.path(&file).parent().unwrap()).unwrap();
        node.write(&file, &format!("#cloud-config\n{says}\n"));
        for (code, words) in [node.check(&order, false), node.try_once(&order)] {
            assert_eq!(code, if refused.is_some() { permanent() } else { 0 }, "{says}: {words}");
            assert!(refused.is_none_or(|key| words.contains(key) && words.contains(&file[4..])), "{words}");
        }
        assert_eq!((node.runs().is_empty(), node.result().is_none()), (refused.is_some(), refused.is_some()));
    }
    // What is read after ours would have the last word; a file that says nothing of it may.
    for (says, code) in [("upgrade: {reboot: true}", permanent()), ("hostname: n1", 0)] {
        let node = Machine::new();
        fs::create_dir(node.path("host/oem")).unwrap();
        node.write("host/oem/\u{fc}.yaml", &format!("#cloud-config\n{says}\n"));
        assert_eq!((node.check(&active(), false).0, node.try_once(&active()).0), (code, code), "{says}");
    }
}

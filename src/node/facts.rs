//! Applet `node-labeler`: prints what labels are made of, and what proves an upgrade, as termination message.
//!
//! The kubelet cuts a message at 4096 bytes, and a cut JSON document says nothing; so only the keys that the
//! controller uses are printed, cut to what a label or an annotation can use, and the longest goes first if
//! it is still too much.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{AppletExit, host::Host, os_release};
use crate::{
    contract::{Facts, boot_state},
    telemetry::MAX_TERMINATION_MESSAGE,
};

/// The keys of `/etc/kairos-release` that become labels and annotations, without `KAIROS_`.
const KEYS: [&str; 17] = [
    "ARCH",
    "BUG_REPORT_URL",
    "FAMILY",
    "FIPS",
    "FLAVOR",
    "FLAVOR_RELEASE",
    "HOME_URL",
    "ID",
    "ID_LIKE",
    "INIT_VERSION",
    "MODEL",
    "NAME",
    "RELEASE",
    "SOFTWARE_VERSION",
    "SOFTWARE_VERSION_PREFIX",
    "TRUSTED_BOOT",
    "VARIANT",
];
/// Besides those, the version is a label too and the most wanted of all.
const VERSION: &str = "VERSION";

/// How many characters of a value are kept. Labels have 63; an address in an annotation may be longer.
const MAX_VALUE: usize = 200;

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct FactsArgs {
    /// Where the host's root, or at least its /etc and /usr, is mounted.
    #[arg(long)]
    pub host_dir: PathBuf,
}

/// Reads the facts of the node, and ends with them.
pub fn run(args: &FactsArgs, host: &Host) -> Result<AppletExit> {
    let found = os_release::of(&host.path(&args.host_dir));
    let wanted = |key: &str| found.keys.get(&format!("KAIROS_{key}")).filter(|value| !value.is_empty());
    let keys = KEYS.into_iter().chain([VERSION]);
    let facts = Facts {
        boot: host.boot_id()?,
        boot_state: boot_state_of(host).into(),
        kairos: found.kairos,
        version: found.version,
        release: keys.filter_map(|key| Some((key.to_owned(), cut(wanted(key)?)))).collect(),
    };
    Ok(AppletExit::success(fit(facts)?))
}

/// The boot state of the node. The kernel's command line is the same in every container.
pub fn boot_state_of(host: &Host) -> &'static str {
    boot_state(&host.cmdline().unwrap_or_default())
}

/// What on the kernel's command line tells which boot state. The first that is found counts: a boot that
/// resets the node is one of the recovery image, too.
const MARKS: [(&str, &str); 9] = [
    ("kairos.reset", boot_state::AUTORESET),
    ("COS_ACTIVE", boot_state::ACTIVE),
    ("COS_PASSIVE", boot_state::PASSIVE),
    ("COS_RECOVERY", boot_state::RECOVERY),
    ("COS_SYSTEM", boot_state::RECOVERY),
    ("recovery-mode", boot_state::RECOVERY),
    ("live:LABEL", boot_state::LIVECD),
    ("live:CDLABEL", boot_state::LIVECD),
    ("netboot", boot_state::LIVECD),
];

/// The parameter by which a boot is told to load the system into memory, alone, with a value, or with
/// something below it. It may come from a medium as any live system does, so it counts before all else.
const IN_RAM: &str = "kairos.ram";

fn boot_state(cmdline: &str) -> &'static str {
    let in_ram = |word: &str| {
        word.strip_prefix(IN_RAM).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '=']))
    };
    if cmdline.split_ascii_whitespace().any(in_ram) {
        return boot_state::IN_RAM;
    }
    MARKS.iter().find(|(mark, _)| cmdline.contains(mark)).map_or(boot_state::UNKNOWN, |(_, state)| state)
}

fn cut(value: impl AsRef<str>) -> String {
    value.as_ref().chars().filter(|c| !c.is_control()).take(MAX_VALUE).collect()
}

/// The facts as JSON that fits. The version is given up last: it is what an upgrade is proved by.
fn fit(mut facts: Facts) -> Result<String> {
    facts.boot = cut(&facts.boot);
    loop {
        let json = serde_json::to_string(&facts)?;
        let longest =
            facts.release.iter().filter(|(key, _)| *key != VERSION).max_by_key(|(_, value)| value.len());
        match longest.map(|(key, _)| key.clone()) {
            Some(key) if json.len() > MAX_TERMINATION_MESSAGE => facts.release.remove(&key),
            _ => return Ok(json),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn facts(release: &str, cmdline: &str) -> (String, Facts) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        for path in ["/host/etc", "/proc/sys/kernel/random"] {
            fs::create_dir_all(host.path(path)).unwrap();
        }
        fs::write(host.path("/host/etc/kairos-release"), release).unwrap();
        fs::write(host.path("/proc/cmdline"), cmdline).unwrap();
        fs::write(host.path("/proc/sys/kernel/random/boot_id"), "b1\n").unwrap();
        let message = run(&FactsArgs { host_dir: "/host".into() }, &host).unwrap().message;
        let facts = serde_json::from_str(&message).unwrap();
        (message, facts)
    }

    #[test]
    fn keys_without_their_prefix_and_no_others() {
        let release =
            "KAIROS_VERSION=v3.5.0\nKAIROS_FLAVOR=ubuntu\nKAIROS_TARGETARCH=amd64\nKAIROS_MODEL=\nOTHER=x\n";
        let (_, facts) = facts(release, "root=LABEL=COS_ACTIVE quiet");
        assert_eq!((facts.boot.as_str(), facts.boot_state.as_str(), facts.kairos), ("b1", "active", true));
        assert_eq!(facts.version.as_deref(), Some("v3.5.0"));
        let keys: Vec<_> = facts.release.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(keys, [("FLAVOR", "ubuntu"), ("VERSION", "v3.5.0")]);
    }

    #[test]
    fn a_node_without_kairos_says_so() {
        let (_, facts) = facts("", "quiet");
        assert_eq!(facts, Facts { boot: "b1".into(), boot_state: "unknown".into(), ..Facts::default() });
    }

    #[test]
    fn boot_states() {
        for (cmdline, state) in [
            ("root=LABEL=COS_ACTIVE", "active"),
            ("root=LABEL=COS_PASSIVE", "passive"),
            ("root=LABEL=COS_RECOVERY", "recovery"),
            ("root=LABEL=COS_SYSTEM", "recovery"),
            ("recovery-mode", "recovery"),
            ("root=live:LABEL=X", "livecd"),
            ("root=live:CDLABEL=COS_LIVE", "livecd"),
            ("netboot", "livecd"),
            ("root=LABEL=COS_RECOVERY kairos.reset", "autoreset"),
            ("kairos.ram rd.live.ram root=live:LABEL=COS_LIVE", "in-ram"),
            ("netboot kairos.ram=1", "in-ram"),
            ("rd.immucore.uki kairos.ram.oem=64 quiet", "in-ram"),
            ("root=LABEL=COS_ACTIVE kairos.ramdisk", "active"),
            ("root=LABEL=COS_ACTIVE no-kairos.ram", "active"),
            ("quiet", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(boot_state(cmdline), state, "{cmdline}");
        }
    }

    #[test]
    fn it_always_fits_and_is_always_json() {
        for filler in ["x", "\"", "\\\\", "\u{1}", "\u{10ffff}"] {
            let release: String =
                KEYS.iter().map(|key| format!("KAIROS_{key}='{}'\n", filler.repeat(3000))).collect();
            let (message, facts) = facts(&format!("{release}KAIROS_VERSION=v9\n"), "");
            assert!(message.len() <= MAX_TERMINATION_MESSAGE, "{} bytes of {filler:?}", message.len());
            assert_eq!(facts.release.get("VERSION").map(String::as_str), Some("v9"));
        }
    }
}

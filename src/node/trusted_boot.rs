//! Trusted Boot: nodes that boot signed unified kernel images (UKI). They have no active and passive image on
//! a partition, and their kernel's command line does not say which of their entries they have booted. Both
//! are asked as Kairos itself does (kairos-sdk, `state.DetectUKIboot` and `getUKIBootState`).

use std::path::Path;

use super::host::{Host, mounts::read_in_root};
use crate::contract::boot_state;

/// What stands on the kernel's command line of such a node.
const MARK: &str = "rd.immucore.uki";

/// The variable of the firmware with the name of the entry that was booted, below the host's root: UTF-16,
/// after four bytes of attributes.
const ENTRY: &str = "/sys/firmware/efi/efivars/LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// How large it may be. Names of entries are short.
const MAX_ENTRY: u64 = 4096;

/// Whether the node has booted a unified kernel image.
pub fn is_booted(host: &Host) -> bool {
    host.cmdline().unwrap_or_default().contains(MARK)
}

/// Which entry it has booted, as one of [`boot_state`].
pub fn state(host_dir: &Path) -> &'static str {
    let read = read_in_root(host_dir, ENTRY, MAX_ENTRY);
    let bytes = read.inspect_err(|error| tracing::warn!("unknown boot entry: {error:#}")).ok().flatten();
    let entry: String =
        bytes.iter().flatten().filter(|b| b.is_ascii_graphic()).copied().map(char::from).collect();
    if !entry.ends_with(".conf") {
        return boot_state::UNKNOWN;
    }
    let known = [
        ("active", boot_state::ACTIVE),
        ("passive", boot_state::PASSIVE),
        ("recovery", boot_state::RECOVERY),
        ("statereset", boot_state::AUTORESET),
    ];
    known.iter().find(|(name, _)| entry.starts_with(name)).map_or(boot_state::UNKNOWN, |(_, state)| state)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_entry_is_what_the_firmware_says() {
        let host = tempfile::tempdir().unwrap();
        assert_eq!(state(host.path()), "unknown", "no firmware tells");
        let path = host.path().join(&ENTRY[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for (entry, expected) in [
            ("active.conf", "active"),
            ("active+2-1.conf", "active"),
            ("passive.conf", "passive"),
            ("recovery.conf", "recovery"),
            ("statereset.conf", "autoreset"),
            ("norole.conf", "unknown"),
            ("active.efi", "unknown"),
            ("", "unknown"),
        ] {
            let utf16 = entry.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
            fs::write(&path, [6, 0, 0, 0].into_iter().chain(utf16).collect::<Vec<u8>>()).unwrap();
            assert_eq!(state(host.path()), expected, "{entry}");
        }
    }

    #[test]
    fn a_unified_kernel_image_says_so() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path(), None);
        assert!(!is_booted(&host), "nothing is known");
        fs::create_dir_all(host.path("/proc")).unwrap();
        for (cmdline, expected) in
            [("console=tty1 rd.immucore.uki selinux=0", true), ("root=LABEL=COS_ACTIVE", false)]
        {
            fs::write(host.path("/proc/cmdline"), cmdline).unwrap();
            assert_eq!(is_booted(&host), expected, "{cmdline}");
        }
    }
}

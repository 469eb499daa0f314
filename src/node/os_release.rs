//! Which release an image or a node is, from `/etc/kairos-release` or `/etc/os-release`.
//!
//! Parsed, never sourced: what a shell would *run* (`$(…)`, backquotes, variables) is text here. A line that
//! is no assignment is passed over; a file that is no text, too large, or no file is an error that says so.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use tracing::warn;

use super::host::mounts::read_in_root;

/// How large a release file may be. Real ones have 2 KiB.
const MAX_RELEASE: u64 = 1024 * 1024;

/// How many characters of a release are kept: it goes into records that have to fit into a termination
/// message. Cut here, it is the same in all of them.
const MAX_VERSION: usize = 200;

const KAIROS_RELEASE: &str = "/etc/kairos-release";
const OS_RELEASE: &str = "/etc/os-release";

/// Keys and values of a release file.
pub type Keys = BTreeMap<String, String>;

/// What the release files below a root say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Whether it is Kairos at all.
    pub kairos: bool,
    /// The release that is compared; `None` if unknown.
    pub version: Option<String>,
    /// The keys of the file that named the release.
    pub keys: Keys,
}

/// Reads the release of the system below `root`. What cannot be read is unknown, and said in the log: an
/// upgrade is what mends a node whose release file is broken.
pub fn of(root: &Path) -> Release {
    let read = |path| match read(root, path) {
        Ok(keys) => keys,
        Err(error) => {
            warn!("unknown release: {error:#}");
            None
        }
    };
    let (kairos, os) = (read(KAIROS_RELEASE), read(OS_RELEASE).unwrap_or_default());
    let by_id = os.get("ID").is_some_and(|id| id.to_ascii_lowercase().contains("kairos"));
    // Upstream's first test is that the file is not empty; an empty one marks nothing.
    let is_kairos =
        by_id || os.contains_key("KAIROS_VERSION") || kairos.as_ref().is_some_and(|keys| !keys.is_empty());
    let kairos = kairos.unwrap_or_default();
    let keys =
        if version(&kairos).is_some() || version(&os).is_none() && !kairos.is_empty() { kairos } else { os };
    Release { kairos: is_kairos, version: version(&keys), keys }
}

fn read(root: &Path, path: &str) -> Result<Option<Keys>> {
    let Some(bytes) = read_in_root(root, path, MAX_RELEASE)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0'));
    text.map(parse).map(Some).with_context(|| format!("{path} below {} is not text", root.display()))
}

/// `KAIROS_VERSION`, and what it carries (`k3sv1.33.5+k3s1`), if it says.
fn version(keys: &Keys) -> Option<String> {
    let get = |key: &str| keys.get(key).map(String::as_str).unwrap_or_default();
    let (version, prefix, software) =
        (get("KAIROS_VERSION"), get("KAIROS_SOFTWARE_VERSION_PREFIX"), get("KAIROS_SOFTWARE_VERSION"));
    let whole = match (version, prefix, software) {
        ("", _, _) => return None,
        (version, "", "") => version.to_owned(),
        (version, prefix, software) => format!("{version}-{prefix}{software}"),
    };
    let kept: String = whole.chars().filter(|c| !c.is_control()).take(MAX_VERSION).collect();
    Some(kept).filter(|kept| !kept.is_empty())
}

/// The assignments of a release file; of two for one key the later counts, as it does for a shell.
pub fn parse(text: &str) -> Keys {
    text.lines().filter_map(assignment).collect()
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, value) = line.split_once('=')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(is_name) {
        return None;
    }
    Some((key.into(), unquote(value)?))
}

/// A shell word as text: quotes of both kinds, backslashes, pieces put together. `None` if a quote does not
/// end, or if something but a comment follows the word (`A=b c` runs `c` in a shell).
fn unquote(word: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => loop {
                match chars.next()? {
                    '\'' => break,
                    c => value.push(c),
                }
            },
            '"' => loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => match chars.next()? {
                        c @ ('"' | '\\' | '$' | '`') => value.push(c),
                        c => value.extend(['\\', c]),
                    },
                    c => value.push(c),
                }
            },
            '\\' => value.push(chars.next()?),
            c if c.is_whitespace() => {
                let rest = chars.as_str().trim_start();
                return (rest.is_empty() || rest.starts_with('#')).then_some(value);
            }
            c => value.push(c),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn lines_as_a_shell_reads_them_without_running_them() {
        for (line, value) in [
            ("K=v1", Some("v1")),
            ("K=\"v 1\"", Some("v 1")),
            ("K='v \"1'", Some("v \"1")),
            ("K=\"a\\\"b\\$c\\\\d\\n\"", Some("a\"b$c\\d\\n")),
            ("K=a\"b\"'c'\\ d", Some("abc d")),
            ("  export   K=v # comment", Some("v")),
            ("K=v\r", Some("v")),
            ("K=", Some("")),
            ("K=\"$(reboot)`id`\"", Some("$(reboot)`id`")),
            ("K=a#b", Some("a#b")),
            ("K=a b", None),
            ("K=\"open", None),
            ("K='open", None),
            ("K=\"open\\", None),
            ("K=back\\", None),
            ("# K=v", None),
            ("K", None),
            ("=v", None),
            ("1K=v", None),
            ("K K=v", None),
            ("K-K=v", None),
        ] {
            assert_eq!(parse(line).get("K").map(String::as_str), value, "{line}");
        }
        assert_eq!(parse("K=1\nbroken\n\nK=2\n").get("K").map(String::as_str), Some("2"));
    }

    fn root(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        for (name, bytes) in files {
            fs::write(root.path().join("etc").join(name), bytes).unwrap();
        }
        root
    }

    fn version_of(files: &[(&str, &[u8])]) -> Option<String> {
        of(root(files).path()).version
    }

    const V350: &[u8] = b"KAIROS_VERSION=\"v3.5.0\"\nKAIROS_SOFTWARE_VERSION_PREFIX=k3s\nKAIROS_SOFTWARE_VERSION=v1.33.5+k3s1\n";

    #[test]
    fn the_release_is_version_and_what_it_carries() {
        assert_eq!(version_of(&[("kairos-release", V350)]).as_deref(), Some("v3.5.0-k3sv1.33.5+k3s1"));
        assert_eq!(version_of(&[("kairos-release", b"KAIROS_VERSION=v3.4.2")]).as_deref(), Some("v3.4.2"));
        assert_eq!(version_of(&[("os-release", V350)]).as_deref(), Some("v3.5.0-k3sv1.33.5+k3s1"));
        assert_eq!(
            version_of(&[("kairos-release", b"KAIROS_VERSION=a"), ("os-release", V350)]).as_deref(),
            Some("a")
        );
        assert_eq!(
            version_of(&[("kairos-release", b"KAIROS_ID=x"), ("os-release", V350)]).as_deref(),
            Some("v3.5.0-k3sv1.33.5+k3s1")
        );
    }

    #[test]
    fn a_release_of_any_length_fits_into_a_record() {
        let long = format!("KAIROS_VERSION=v3.5.0\u{1}{}", "\u{10ffff}".repeat(1000));
        let version = version_of(&[("kairos-release", long.as_bytes())]).unwrap();
        assert!(version.starts_with("v3.5.0\u{10ffff}") && version.chars().count() == MAX_VERSION);
    }

    #[test]
    fn what_does_not_say_is_unknown() {
        let large = vec![b'#'; 10 << 20];
        for files in [
            &[][..],
            &[("os-release", &b"ID=ubuntu\nVERSION_ID=24.04\n"[..])],
            &[("kairos-release", b"")],
            &[("kairos-release", b"KAIROS_VERSION=\n")],
            &[("kairos-release", b"\x7fELF\0\xff\xfe")],
            &[("kairos-release", &large)],
        ] {
            assert_eq!(version_of(files), None);
        }
        let directory = root(&[]);
        fs::create_dir(directory.path().join("etc/kairos-release")).unwrap();
        assert_eq!(of(directory.path()), Release::default());
        for (bytes, reason) in [(&b"\xff"[..], "not text"), (&large, "larger than")] {
            let root = root(&[("kairos-release", bytes)]);
            assert!(format!("{:#}", read(root.path(), KAIROS_RELEASE).unwrap_err()).contains(reason));
        }
    }

    #[test]
    fn a_link_leads_to_a_file_of_the_same_root() {
        let root = root(&[]);
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join("usr/lib/os-release"), V350).unwrap();
        symlink("/usr/lib/os-release", root.path().join("etc/os-release")).unwrap();
        assert!(of(root.path()).version.is_some());
    }

    #[test]
    fn kairos_is_told_from_others() {
        for (files, kairos) in [
            (&[("kairos-release", V350)][..], true),
            (&[("os-release", &b"ID=\"Kairos-Ubuntu\""[..])], true),
            (&[("os-release", V350)], true),
            (&[("kairos-release", b"")], false),
            (&[("os-release", b"ID=ubuntu")], false),
            (&[], false),
        ] {
            assert_eq!(of(root(files).path()).kairos, kairos, "{files:?}");
        }
    }

    /// Not a fuzzer, but every way to cut and to spoil a byte of a real file.
    #[test]
    fn no_input_is_a_panic() {
        let text = "export KAIROS_VERSION=\"v3\\\"\\$\" # c\nA='x'y\\ z\r\n";
        for end in 0..text.len() {
            parse(&text[..end]);
            for byte in [b'\\', b'"', b'\'', b'=', b' ', 0xff] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[end] = byte;
                parse(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}

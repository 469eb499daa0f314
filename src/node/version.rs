//! Which of two releases is the older one, as far as that can be told.
//!
//! Releases have an order if they are of one flavour and of one scheme: numbers with dots, and perhaps `-rc1`
//! or another name of a stage that comes before the release. For whatever else somebody builds there is none,
//! and nobody is told that it is old.

use std::cmp::Ordering;

use super::os_release::Keys;

/// What comes before a release, in order. Any other suffix may as well come after it: `git describe` calls
/// the twelfth commit after `v3.5.0` `v3.5.0-12-g1a2b3c4`.
const STAGES: [&str; 4] = ["alpha", "beta", "pre", "rc"];

/// The order of two releases: by the version of Kairos, then by that of the Kubernetes that it carries.
/// `None` if they have none.
pub fn compare(one: &Keys, other: &Keys) -> Option<Ordering> {
    if !of_one_flavour(one, other) {
        return None;
    }
    let parsed = |keys, name| Version::parse(get(keys, name)?);
    let (left, right) = (parsed(one, "KAIROS_VERSION")?, parsed(other, "KAIROS_VERSION")?);
    refined(left.compare(&right)?, || {
        let carry_the_same =
            get(one, "KAIROS_SOFTWARE_VERSION_PREFIX") == get(other, "KAIROS_SOFTWARE_VERSION_PREFIX");
        let (left, right) =
            (parsed(one, "KAIROS_SOFTWARE_VERSION")?, parsed(other, "KAIROS_SOFTWARE_VERSION")?);
        refined(left.compare(&right)?, || compare_identifiers(left.build, right.build))
            .filter(|_| carry_the_same)
    })
}

/// What tells builds of one release from each other.
const BUILD: [&str; 8] = [
    "KAIROS_ID",
    "KAIROS_FLAVOR",
    "KAIROS_FLAVOR_RELEASE",
    "KAIROS_VARIANT",
    "KAIROS_MODEL",
    "KAIROS_TARGETARCH",
    "KAIROS_FIPS",
    "KAIROS_TRUSTED_BOOT",
];

/// Whether two images of one release are of one build, too: of one distribution, for one model. What one of
/// them does not say, older ones did not know.
pub fn of_one_build(one: &Keys, other: &Keys) -> bool {
    BUILD.iter().all(|name| match (get(one, name), get(other, name)) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    })
}

/// The Kubernetes of `one` and of `other` (`k3sv1.31.5+k3s1`), if they are of one kind, and that of `one` is
/// of an older minor version.
pub fn older_kubernetes(one: &Keys, other: &Keys) -> Option<(String, String)> {
    let kind = get(one, "KAIROS_SOFTWARE_VERSION_PREFIX");
    let kind = kind.filter(|kind| get(other, "KAIROS_SOFTWARE_VERSION_PREFIX") == Some(*kind))?;
    let (one, other) = (get(one, "KAIROS_SOFTWARE_VERSION")?, get(other, "KAIROS_SOFTWARE_VERSION")?);
    let minor = |version| Some(Version::parse(version)?.numbers[..2].to_vec());
    (minor(one)? < minor(other)?).then(|| (format!("{kind}{one}"), format!("{kind}{other}")))
}

/// Whether both say the same flavour, or neither says any. A distribution of its own (`KAIROS_ID`) counts its
/// versions by itself.
fn of_one_flavour(one: &Keys, other: &Keys) -> bool {
    let same_id = match (get(one, "KAIROS_ID"), get(other, "KAIROS_ID")) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    };
    same_id && get(one, "KAIROS_FLAVOR") == get(other, "KAIROS_FLAVOR")
}

fn get<'a>(keys: &'a Keys, name: &str) -> Option<&'a str> {
    keys.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// An order, refined by a second one where it is none.
fn refined(order: Ordering, second: impl FnOnce() -> Option<Ordering>) -> Option<Ordering> {
    if order == Ordering::Equal { second() } else { Some(order) }
}

/// A version in its parts: `v1.30.11-rc1+k3s1`.
#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: [u64; 3],
    /// What follows the first dash; empty if nothing does.
    stage: &'a str,
    /// What follows the plus sign; empty if nothing does.
    build: &'a str,
}

impl<'a> Version<'a> {
    /// Two or three numbers. With one alone it is a date or a count, and more are a scheme of its own.
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, stage) = text.split_once('-').unwrap_or((text, ""));
        let parsed: Option<Vec<u64>> = numbers.split('.').map(number).collect();
        match parsed?[..] {
            [major, minor] => Some(Self { numbers: [major, minor, 0], stage, build }),
            [major, minor, patch] => Some(Self { numbers: [major, minor, patch], stage, build }),
            _ => None,
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        let before = |stage: &str| {
            STAGES
                .contains(&stem(stage.split('.').next().unwrap_or_default()).0.to_ascii_lowercase().as_str())
        };
        refined(self.numbers.cmp(&other.numbers), || match (self.stage, other.stage) {
            ("", "") => Some(Ordering::Equal),
            ("", stage) => before(stage).then_some(Ordering::Greater),
            (stage, "") => before(stage).then_some(Ordering::Less),
            (one, other) => compare_identifiers(one, other),
        })
    }
}

/// Digits alone: `parse` would take a sign too.
fn number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Identifiers between dots, one after the other; of two lists that begin alike the shorter one is the older.
fn compare_identifiers(one: &str, other: &str) -> Option<Ordering> {
    let (mut left, mut right) = (one.split_terminator('.'), other.split_terminator('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Some(Ordering::Equal),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => compare_identifier(left, right)?,
        };
        if order != Ordering::Equal {
            return Some(order);
        }
    }
}

/// `rc9` is older than `rc10`, which by their letters would be the other way round, and `beta2` is older than
/// `rc1`.
fn compare_identifier(one: &str, other: &str) -> Option<Ordering> {
    let ((left, left_number), (right, right_number)) = (stem(one), stem(other));
    let rank = |stem: &str| STAGES.iter().position(|stage| stage.eq_ignore_ascii_case(stem));
    if left.eq_ignore_ascii_case(right) {
        return Some(left_number?.cmp(&right_number?));
    }
    Some(rank(left)?.cmp(&rank(right)?))
}

/// An identifier without the number at its end, and that number (0 if it has none).
fn stem(identifier: &str) -> (&str, Option<u64>) {
    let stem = identifier.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &identifier[stem.len()..];
    (stem, if digits.is_empty() { Some(0) } else { number(digits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        pairs.iter().map(|(key, value)| (format!("KAIROS_{key}"), (*value).to_owned())).collect()
    }

    fn order(one: &[(&str, &str)], other: &[(&str, &str)]) -> Option<Ordering> {
        let (one, other) = (keys(one), keys(other));
        let order = compare(&one, &other);
        assert_eq!(compare(&other, &one), order.map(Ordering::reverse), "{one:?} {other:?}");
        order
    }

    const LESS: Option<Ordering> = Some(Ordering::Less);

    #[test]
    fn versions_of_kairos() {
        for (one, other, expected) in [
            ("v3.4.2", "v3.5.0", LESS),
            ("v3.5.0", "v3.5.1-rc1", LESS),
            ("v3.5.1-rc1", "v3.5.1", LESS),
            ("v3.5.1-rc9", "v3.5.1-rc10", LESS),
            ("v3.5.1-rc.9", "v3.5.1-rc.10", LESS),
            ("v3.5.1-rc", "v3.5.1-rc.1", LESS),
            ("v3.5.1-beta2", "v3.5.1-rc1", LESS),
            ("v3.5.1-alpha9", "v3.5.1-beta1", LESS),
            ("v3.5.1-RC1", "v3.5.1-rc2", LESS),
            ("v3.9", "v3.10", LESS),
            ("v3.9", "v3.9.1", LESS),
            ("3.9.9", "v4.0.0", LESS),
            ("v3.4.0-12-g1a2b3c4", "v3.5.0", LESS),
            ("v2.4.3-k3sv1.26.9+k3s1", "v2.4.3-k3sv1.27.6+k3s1", LESS),
            // No order: which one is the older?
            ("v3.5.0-12-g1a2b3c4", "v3.5.0", None),
            ("v3.5.0-dirty", "v3.5.0", None),
            ("v3.5.0-rc1", "v3.5.0-nightly", None),
            ("v2.4.3-k0sv1.26.9", "v2.4.3-k3sv1.27.6", None),
            ("latest", "v3.5.0", None),
            ("20240501", "v3.5.0", None),
            ("v3.5.0.1", "v3.5.0", None),
            ("v3.+5.0", "v3.5.0", None),
            ("v3..0", "v3.5.0", None),
            ("v3.99999999999999999999.0", "v3.5.0", None),
            ("", "v3.5.0", None),
        ] {
            assert_eq!(order(&[("VERSION", one)], &[("VERSION", other)]), expected, "{one} {other}");
        }
        assert_eq!(order(&[], &[("VERSION", "v3.5.0")]), None);
    }

    #[test]
    fn then_the_kubernetes_that_they_carry() {
        let carries = |prefix: &'static str, version: &'static str| {
            [("VERSION", "v3.5.0"), ("SOFTWARE_VERSION_PREFIX", prefix), ("SOFTWARE_VERSION", version)]
        };
        for (one, other, expected) in [
            (("k3s", "v1.30.9+k3s1"), ("k3s", "v1.30.11+k3s1"), LESS),
            (("k3s", "v1.30.11+k3s1"), ("k3s", "v1.30.11+k3s2"), LESS),
            (("k3s", "v1.30.11-rc1+k3s1"), ("k3s", "v1.30.11+k3s1"), LESS),
            (("rke2", "v1.30.11+rke2r9"), ("rke2", "v1.30.11+rke2r10"), LESS),
            (("k0s", "v1.30.1+k0s.0"), ("k0s", "v1.30.1+k0s.1"), LESS),
            (("k3s", "v1.30.11+k3s1"), ("k3s", "v1.30.11+k3s1"), Some(Ordering::Equal)),
            (("k3s", "v1.30.9+k3s1"), ("k0s", "v1.30.11+k0s.0"), None),
            (("k3s", "v1.30.11+k3s1"), ("k3s", "v1.30.11+custom2"), None),
            (("k3s", "v1.30.9+k3s1"), ("", ""), None),
            (("k3s", "master"), ("k3s", "v1.30.11+k3s1"), None),
        ] {
            assert_eq!(
                order(&carries(one.0, one.1), &carries(other.0, other.1)),
                expected,
                "{one:?} {other:?}"
            );
        }
        let newer =
            [("VERSION", "v3.6.0"), ("SOFTWARE_VERSION_PREFIX", "k3s"), ("SOFTWARE_VERSION", "v1.29.0+k3s1")];
        assert_eq!(order(&carries("k3s", "v1.30.9+k3s1"), &newer), LESS, "the version of Kairos comes first");
    }

    #[test]
    fn a_kubernetes_of_an_older_minor_version_is_told_whatever_kairos_carries_it() {
        let carries = |prefix: &'static str, version: &'static str| {
            keys(&[("SOFTWARE_VERSION_PREFIX", prefix), ("SOFTWARE_VERSION", version)])
        };
        for (one, other, older) in [
            (("k3s", "v1.31.5+k3s1"), ("k3s", "v1.33.1+k3s1"), true),
            (("k3s", "v1.9.9+k3s1"), ("k3s", "v1.33.1+k3s1"), true),
            (("k3s", "v1.33.1+k3s1"), ("k3s", "v1.33.5+k3s1"), false),
            (("k3s", "v1.33.1+k3s1"), ("k3s", "v1.31.5+k3s1"), false),
            (("k3s", "v1.31.5+k3s1"), ("k0s", "v1.33.1+k0s.0"), false),
            (("", "v1.31.5"), ("", "v1.33.1"), false),
            (("k3s", "master"), ("k3s", "v1.33.1+k3s1"), false),
        ] {
            let found = older_kubernetes(&carries(one.0, one.1), &carries(other.0, other.1));
            assert_eq!(found.is_some(), older, "{one:?} {other:?}");
        }
    }

    #[test]
    fn builds_of_one_release_differ_by_what_both_say() {
        let ubuntu = keys(&[("FLAVOR", "ubuntu"), ("FLAVOR_RELEASE", "22.04"), ("MODEL", "generic")]);
        for (other, same) in [
            (&[("FLAVOR", "ubuntu"), ("FLAVOR_RELEASE", "22.04"), ("MODEL", "generic")][..], true),
            (&[("FLAVOR", "ubuntu")], true),
            (&[], true),
            (&[("FLAVOR", "ubuntu"), ("FLAVOR_RELEASE", "24.04")], false),
            (&[("FLAVOR", "opensuse")], false),
            (&[("MODEL", "rpi4")], false),
        ] {
            assert_eq!(of_one_build(&ubuntu, &keys(other)), same, "{other:?}");
            assert_eq!(of_one_build(&keys(other), &ubuntu), same, "{other:?}");
        }
    }

    #[test]
    fn flavours_have_no_order_between_them() {
        let of = |flavour: &'static str, id: &'static str, version: &'static str| {
            [("VERSION", version), ("FLAVOR", flavour), ("ID", id)]
        };
        for (one, other, expected) in [
            (("ubuntu", "kairos"), ("ubuntu", "kairos"), LESS),
            (("ubuntu", ""), ("ubuntu", "kairos"), LESS),
            (("", ""), ("", ""), LESS),
            (("ubuntu", "kairos"), ("opensuse", "kairos"), None),
            (("ubuntu", "kairos"), ("", "kairos"), None),
            (("ubuntu", "kairos"), ("ubuntu", "acme"), None),
        ] {
            assert_eq!(
                order(&of(one.0, one.1, "v3.4.2"), &of(other.0, other.1, "v3.5.0")),
                expected,
                "{one:?} {other:?}"
            );
        }
    }
}

//! Which runs of which NodeOpUpgrades have had their attempt at a node, as it stands on the Node:
//! `<UID of the upgrade>/<generation at which the run was decided on>`, the latest last, with commas between.
//!
//! It stands there, and not in a status, so that it goes with the Node: a machine that joins under the name of
//! an earlier one has not been tried. Of each upgrade the latest run is named. That of another upgrade is kept:
//! with one record alone, two upgrades of a node would erase each other's.

use std::fmt;

/// How many upgrades are remembered. Of more the one that tried first is forgotten.
const MAX: usize = 10;
/// No UID is longer.
const MAX_UID: usize = 64;

/// The attempts that a node has had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(Vec<(String, i64)>);

impl Attempts {
    /// What stands on the node; nothing if we did not write it.
    pub fn read(text: &str) -> Option<Self> {
        let one = |text: &str| {
            let (uid, generation) = text.split_once('/')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_uid = (1..=MAX_UID).contains(&uid.len()) && uid.chars().all(plain);
            is_uid.then_some((uid.to_owned(), generation.parse().ok()?))
        };
        let all: Option<Vec<_>> = text.split(',').take(MAX + 1).map(one).collect();
        all.filter(|all| all.len() <= MAX).map(Self)
    }

    /// The generation of the latest run of an upgrade that has had its attempt.
    pub fn of(&self, uid: &str) -> Option<i64> {
        self.0.iter().filter(|(of, _)| of == uid).map(|(_, generation)| *generation).max()
    }

    /// The same with this one.
    pub fn with(mut self, uid: &str, generation: i64) -> Self {
        self.0.retain(|(of, _)| of != uid);
        self.0.push((uid.to_owned(), generation));
        let forgotten = self.0.len().saturating_sub(MAX);
        self.0.drain(..forgotten);
        self
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (uid, generation)) in self.0.iter().enumerate() {
            write!(f, "{}{uid}/{generation}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_run_of_each_upgrade_is_remembered_and_no_upgrade_erases_another() {
        let all = Attempts::default().with("a", 1).with("b", 1).with("a", 3);
        assert_eq!((all.to_string().as_str(), all.of("a"), all.of("b")), ("b/1,a/3", Some(3), Some(1)));
        assert_eq!(Attempts::read(&all.to_string()), Some(all));
        let many = (0..100).fold(Attempts::default(), |all, number| all.with(&number.to_string(), 1));
        assert_eq!(many.0.len(), MAX);
        assert_eq!(Attempts::read(&many.to_string()), Some(many));
    }

    #[test]
    fn what_we_did_not_write_is_not_read() {
        for text in ["", "a", "a/", "/1", "a/x", "a/1,", "a b/1", "a/1/2", &"a/1,".repeat(100)] {
            assert_eq!(Attempts::read(text), None, "{text}");
        }
    }
}

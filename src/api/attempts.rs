//! Which runs of which NodeOpUpgrades have had their attempt at a node, as it stands on the Node:
//! `<UID of the upgrade>/<generation at which the run was decided on>`, the latest last, with commas between;
//! with `@<time>` behind it when the run was done with the node, and found it well; and with `~<time>` if it came
//! to nothing, and nothing was found out, until when the run leaves the node.
//!
//! It stands there, and not in a status, so that it goes with the Node: a machine that joins under the name of
//! an earlier one has not been tried. Of each upgrade the latest run is named. That of another upgrade is kept:
//! with one record alone, two upgrades of a node would erase each other's.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

/// How many upgrades are remembered. Of more the one that tried first is forgotten.
const MAX: usize = 10;
/// No UID is longer.
const MAX_UID: usize = 64;

/// The attempts that a node has had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(Vec<One>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    upgrade: String,
    generation: i64,
    end: End,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing yet, or what no further attempt would change.
    Open,
    /// The run was done with the node at that time, and found it well.
    Well(Timestamp),
    /// Nothing was done and nothing found out: it is none, and the next one is made then.
    NotBefore(Timestamp),
}

impl Attempts {
    /// What stands on the node; nothing if we did not write it.
    pub fn read(text: &str) -> Option<Self> {
        let one = |text: &str| {
            let (uid, rest) = text.split_once('/')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_uid = (1..=MAX_UID).contains(&uid.len()) && uid.chars().all(plain);
            let (generation, end) = match (rest.split_once('@'), rest.split_once('~')) {
                (Some((generation, time)), _) => (generation, End::Well(time.parse().ok()?)),
                (None, Some((generation, time))) => (generation, End::NotBefore(time.parse().ok()?)),
                (None, None) => (rest, End::Open),
            };
            let generation = generation.parse().ok()?;
            is_uid.then(|| One { upgrade: uid.to_owned(), generation, end })
        };
        let all: Option<Vec<_>> = text.split(',').take(MAX + 1).map(one).collect();
        all.filter(|all| all.len() <= MAX).map(Self)
    }

    /// The generation of the latest run of an upgrade that has had its attempt, and what came of that.
    pub fn of(&self, uid: &str) -> Option<(i64, End)> {
        let of_it = self.0.iter().filter(|one| one.upgrade == uid);
        of_it.max_by_key(|one| one.generation).map(|one| (one.generation, one.end))
    }

    /// When runs were done with the node and found it well, as far as they are remembered.
    pub fn done(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().filter_map(|one| if let End::Well(at) = one.end { Some(at) } else { None })
    }

    /// The same with this one.
    pub fn with(mut self, uid: &str, generation: i64, end: End) -> Self {
        self.0.retain(|one| one.upgrade != uid);
        self.0.push(One { upgrade: uid.to_owned(), generation, end });
        let forgotten = self.0.len().saturating_sub(MAX);
        self.0.drain(..forgotten);
        self
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, One { upgrade, generation, end }) in self.0.iter().enumerate() {
            write!(f, "{}{upgrade}/{generation}", if at > 0 { "," } else { "" })?;
            match end {
                End::Open => {}
                End::Well(at) => write!(f, "@{at:.0}")?,
                End::NotBefore(at) => write!(f, "~{at:.0}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_run_of_each_upgrade_is_remembered_and_no_upgrade_erases_another() {
        let all = Attempts::default().with("a", 1, End::Open).with("b", 1, End::Open).with("a", 3, End::Open);
        assert_eq!(
            (all.to_string().as_str(), all.of("a"), all.of("b")),
            ("b/1,a/3", Some((3, End::Open)), Some((1, End::Open)))
        );
        assert_eq!(Attempts::read(&all.to_string()), Some(all));
        let many =
            (0..100).fold(Attempts::default(), |all, number| all.with(&number.to_string(), 1, End::Open));
        assert_eq!(many.0.len(), MAX);
        assert_eq!(Attempts::read(&many.to_string()), Some(many));
    }

    #[test]
    fn when_a_run_was_done_with_the_node_is_remembered_until_it_is_tried_again() {
        let at: Timestamp = "2026-05-28T20:26:40Z".parse().unwrap();
        let all = Attempts::default().with("b", 1, End::NotBefore(at)).with("a", 3, End::Well(at));
        assert_eq!(all.to_string(), "b/1~2026-05-28T20:26:40Z,a/3@2026-05-28T20:26:40Z");
        assert_eq!(Attempts::read(&all.to_string()).as_ref(), Some(&all));
        assert_eq!((all.of("a"), all.of("b")), (Some((3, End::Well(at))), Some((1, End::NotBefore(at)))));
        assert_eq!(all.done().collect::<Vec<_>>(), [at]);
        assert_eq!(all.with("a", 4, End::Open).done().count(), 0);
    }

    #[test]
    fn what_we_did_not_write_is_not_read() {
        for text in [
            "",
            "a",
            "a/",
            "/1",
            "a/x",
            "a/1,",
            "a b/1",
            "a/1/2",
            "a/1@",
            "a/1@x",
            "a/1~",
            "a/1~x",
            "a/1~2026-05-28T20:26:40Z@2026-05-28T20:26:40Z",
            "a@2026-05-28T20:26:40Z/1",
            &"a/1,".repeat(100),
        ] {
            assert_eq!(Attempts::read(text), None, "{text}");
        }
    }
}

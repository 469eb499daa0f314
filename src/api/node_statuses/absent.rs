//! Entries whose node is not there. There is hardly ever one, and to know that, not all are to be looked at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Chunk, Mark, NodeStatuses};
use crate::api::nodeop::NodeStatus;

/// The names of what is there.
pub trait Names {
    fn has(&self, name: &str) -> bool;
    /// Where it is the same one, the names are the same.
    fn token(&self) -> &Arc<()>;
}

/// Of which names it is known that all of a chunk are among them. No other entry under the same names makes a
/// difference, so a copy of the chunk knows it, too.
#[derive(Debug, Default)]
pub(super) struct Within(Mutex<Option<Arc<()>>>);

impl Clone for Within {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.known().clone()))
    }
}

impl Within {
    fn known(&self) -> MutexGuard<'_, Option<Arc<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk {
    /// Whether all its names are among these.
    fn is_within(&self, names: &impl Names) -> bool {
        let mut known = self.within.known();
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, names.token())) {
            return true;
        }
        let all = self.items.iter().all(|item| names.has(&item.name));
        *known = all.then(|| names.token().clone());
        all
    }
}

impl NodeStatuses {
    /// Those that have the mark and whose names are not among these, by name.
    pub fn marked_without<'a>(
        &'a self,
        mark: Mark,
        names: &'a impl Names,
    ) -> impl Iterator<Item = (&'a String, &'a NodeStatus)> {
        self.chunks
            .iter()
            .filter(move |chunk| chunk.has(&[mark]) && !chunk.is_within(names))
            .flat_map(|chunk| &chunk.items)
            .filter(move |item| mark.is_on(&item.status) && !names.has(&item.name))
            .map(|item| (&item.name, &item.status))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::nodeop::Phase;

    #[derive(Default)]
    struct Set(BTreeSet<String>, Arc<()>);

    impl Names for Set {
        fn has(&self, name: &str) -> bool {
            self.0.contains(name)
        }

        fn token(&self) -> &Arc<()> {
            &self.1
        }
    }

    /// Whatever becomes of the entries and of the names, and whenever it was asked before.
    #[test]
    fn what_is_remembered_is_what_is_found_anew() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut names = Set((0..300).map(|n| format!("n{n}")).collect(), Arc::default());
            let entry = |rng: &mut fastrand::Rng| NodeStatus {
                phase: rng.choice([Phase::Pending, Phase::Running]).unwrap(),
                ..NodeStatus::default()
            };
            let mut nodes: NodeStatuses =
                (0..rng.usize(..300)).map(|n| (format!("n{n}"), entry(&mut rng))).collect();
            for _ in 0..100 {
                let name = format!("n{}", rng.usize(..300));
                match rng.u8(..10) {
                    0 => nodes.remove(&name),
                    1 => {
                        let there = names.0.remove(&name) || names.0.insert(name);
                        assert!(there);
                        names.1 = Arc::default();
                    }
                    2 => nodes.say_of_plain("all", |name| name.ends_with('3')),
                    _ => nodes.insert(name, entry(&mut rng)),
                }
                let anew =
                    nodes.iter().filter(|(name, entry)| entry.phase == Phase::Pending && !names.has(name));
                assert!(nodes.marked_without(Mark::Pending, &names).eq(anew), "seed {seed}");
            }
        }
    }

    /// Else each plan would look at all.
    #[test]
    fn nobody_is_asked_twice() {
        struct Counted(std::cell::Cell<usize>, Arc<()>);
        impl Names for Counted {
            fn has(&self, _: &str) -> bool {
                self.0.set(self.0.get() + 1);
                true
            }

            fn token(&self) -> &Arc<()> {
                &self.1
            }
        }
        let mut nodes: NodeStatuses = (0..200).map(|n| (format!("n{n}"), NodeStatus::default())).collect();
        let names = Counted(Default::default(), Arc::default());
        for _ in 0..3 {
            assert_eq!(nodes.marked_without(Mark::Pending, &names).count(), 0);
            nodes.say("n7", "m");
        }
        assert_eq!(names.0.get(), 200);
    }
}

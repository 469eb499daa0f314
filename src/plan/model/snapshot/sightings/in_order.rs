//! What was there before and what is there now, each in order: the one is told from the other in one walk
//! over both.

use std::cmp::Ordering;

/// In order, and each once.
pub(super) fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What is there, in order, and asked about in the same order: so nothing is looked for among all.
pub(super) struct InOrder<'a, T>(pub(super) &'a [T]);

impl<T> InOrder<'_, T> {
    /// Whether the one is there that the others are compared with.
    pub(super) fn has(&mut self, compare: impl Fn(&T) -> Ordering) -> bool {
        while let [first, behind @ ..] = self.0 {
            match compare(first) {
                Ordering::Less => self.0 = behind,
                Ordering::Equal => return true,
                Ordering::Greater => return false,
            }
        }
        false
    }
}

impl InOrder<'_, &str> {
    pub(super) fn has_text(&mut self, text: &str) -> bool {
        self.has(|there| (**there).cmp(text))
    }
}

//! What two versions of the entries differ in.

use std::{cmp::Ordering, iter::FusedIterator, sync::Arc};

use super::{Chunk, Item};
use crate::api::nodeop::NodeStatus;

/// An entry that differs; `None` where it is missing.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub name: &'a String,
    pub old: Option<&'a NodeStatus>,
    pub new: Option<&'a NodeStatus>,
}

/// Where one of the versions is being looked at.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    chunks: &'a [Arc<Chunk>],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The chunk, if nothing of it was looked at yet.
    fn whole(&self) -> Option<&'a Arc<Chunk>> {
        self.chunks.first().filter(|_| self.at == 0)
    }

    fn item(&self) -> Option<&'a Arc<Item>> {
        self.chunks.first()?.items.get(self.at)
    }

    fn pass_chunk(&mut self) {
        (self.chunks, self.at) = (self.chunks.get(1..).unwrap_or_default(), 0);
    }

    fn pass_item(&mut self) {
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| self.at >= chunk.items.len()) {
            self.pass_chunk();
        }
    }
}

/// The entries that differ, by name.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    old: Cursor<'a>,
    new: Cursor<'a>,
}

impl<'a> Changes<'a> {
    pub(super) fn between(old: &'a [Arc<Chunk>], new: &'a [Arc<Chunk>]) -> Self {
        Self { old: Cursor { chunks: old, at: 0 }, new: Cursor { chunks: new, at: 0 } }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        loop {
            if let (Some(old), Some(new)) = (self.old.whole(), self.new.whole())
                && Arc::ptr_eq(old, new)
            {
                self.old.pass_chunk();
                self.new.pass_chunk();
                continue;
            }
            let (old, new) = (self.old.item(), self.new.item());
            let order = match (old, new) {
                (Some(old), Some(new)) => old.name.cmp(&new.name),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let (old, new) = (old.filter(|_| order.is_le()), new.filter(|_| order.is_ge()));
            if old.is_some() {
                self.old.pass_item();
            }
            if new.is_some() {
                self.new.pass_item();
            }
            let same = |old: &Arc<Item>, new: &Arc<Item>| Arc::ptr_eq(old, new) || old.status == new.status;
            if old.zip(new).is_some_and(|(old, new)| same(old, new)) {
                continue;
            }
            let name = &old.or(new)?.name;
            return Some(Change {
                name,
                old: old.map(|item| &item.status),
                new: new.map(|item| &item.status),
            });
        }
    }
}

impl FusedIterator for Changes<'_> {}

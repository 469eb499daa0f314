//! All entries, one after the other.

use std::{iter::FusedIterator, slice, sync::Arc};

use super::{Chunk, Item};
use crate::api::nodeop::NodeStatus;

/// All entries.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    chunks: slice::Iter<'a, Arc<Chunk>>,
    items: slice::Iter<'a, Arc<Item>>,
}

impl<'a> Iter<'a> {
    pub(super) fn of(chunks: &'a [Arc<Chunk>]) -> Self {
        Self { chunks: chunks.iter(), items: [].iter() }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a String, &'a NodeStatus);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.items.next() {
                return Some((&item.name, &item.status));
            }
            self.items = self.chunks.next()?.items.iter();
        }
    }
}

impl FusedIterator for Iter<'_> {}

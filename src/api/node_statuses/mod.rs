//! The entries of a NodeOp's nodes: thousands, of which a step on one node changes one.
//!
//! They are kept in chunks that versions share. So a copy costs next to nothing, and what two versions differ
//! in is found without a look at what they have in common. Each chunk knows what is in it: whoever looks for
//! the nodes in progress, or for those that wait, passes over the chunks that have none.

mod absent;
mod changes;
mod iter;
mod mark;
mod shown;

use std::{
    collections::BTreeMap,
    fmt, mem,
    ops::Index,
    sync::{Arc, OnceLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::absent::Within;
pub use self::{
    absent::Names,
    changes::{Change, Changes},
    iter::Iter,
    mark::Mark,
};
use super::nodeop::NodeStatus;

/// Entries in a chunk, when all of them come in at once; it is split when it has twice as many.
const CHUNK: usize = 64;

/// Entries by the names of nodes, in the order of the names.
#[derive(Clone, Default)]
pub struct NodeStatuses {
    chunks: Vec<Arc<Chunk>>,
}

/// One entry.
#[derive(Debug)]
struct Item {
    name: String,
    status: NodeStatus,
    /// See [`NodeStatuses::shown`].
    shown: OnceLock<Arc<Self>>,
}

impl Item {
    const fn of(name: String, status: NodeStatus) -> Self {
        Self { name, status, shown: OnceLock::new() }
    }
}

/// Some entries that follow each other, and what there is among them. No chunk is empty.
#[derive(Clone, Debug)]
struct Chunk {
    items: Vec<Arc<Item>>,
    /// How many have each mark.
    marks: [usize; Mark::ALL.len()],
    /// What those say that wait and of which nothing else is known.
    said: Said,
    /// The last change of any.
    last_updated: Option<Time>,
    /// How long all names are together, and all that stands in the entries beside their messages.
    bytes: usize,
    /// See [`NodeStatuses::shown`].
    shown: OnceLock<Arc<Self>>,
    /// See [`NodeStatuses::marked_without`].
    within: Within,
}

/// What is said of several nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// There is none.
    Nothing,
    Alike(Option<String>),
    Various,
}

impl Chunk {
    fn of(items: Vec<Arc<Item>>) -> Arc<Self> {
        let marks = [0; Mark::ALL.len()];
        let bytes = items.iter().map(|item| item.name.len()).sum();
        let (said, shown, within) = (Said::Nothing, OnceLock::new(), Within::default());
        let mut chunk = Self { marks, said, last_updated: None, bytes, shown, within, items };
        for at in 0..chunk.items.len() {
            chunk.count(at, true);
        }
        chunk.look();
        Arc::new(chunk)
    }

    /// Counts an entry in, or out.
    fn count(&mut self, at: usize, there: bool) {
        let Some(item) = self.items.get(at) else { return };
        for (mark, count) in Mark::ALL.into_iter().zip(&mut self.marks) {
            let one = usize::from(mark.is_on(&item.status));
            *count = if there { *count + one } else { count.saturating_sub(one) };
        }
        let bytes = item.status.bytes_beside_message();
        self.bytes = if there { self.bytes + bytes } else { self.bytes.saturating_sub(bytes) };
    }

    /// Looks at what more than one of them say.
    fn look(&mut self) {
        self.last_updated = self.items.iter().filter_map(|item| item.status.last_updated.clone()).max();
        self.listen();
    }

    fn listen(&mut self) {
        let mut said = Said::Nothing;
        for item in self.items.iter().filter(|item| Mark::Plain.is_on(&item.status)) {
            said = match said {
                Said::Nothing => Said::Alike(item.status.message.clone()),
                Said::Alike(message) if message == item.status.message => Said::Alike(message),
                Said::Alike(_) | Said::Various => Said::Various,
            };
        }
        self.said = said;
    }

    fn put(&mut self, at: usize, status: NodeStatus) {
        self.count(at, false);
        let Some(item) = self.items.get_mut(at) else { return };
        *item = Arc::new(Item::of(item.name.clone(), status));
        self.shown.take();
        self.count(at, true);
        self.look();
    }

    fn has(&self, marks: &[Mark]) -> bool {
        marks.iter().any(|mark| self.marks.get(*mark as usize).is_some_and(|count| *count > 0))
    }

    fn last(&self) -> &str {
        self.items.last().map_or("", |item| item.name.as_str())
    }
}

impl NodeStatuses {
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.items.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Where the entry is, or would be: the chunk, and the place in it.
    fn find(&self, name: &str) -> (usize, Result<usize, usize>) {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < name);
        let place = self
            .chunks
            .get(chunk)
            .map_or(Err(0), |chunk| chunk.items.binary_search_by(|item| item.name.as_str().cmp(name)));
        (chunk, place)
    }

    fn item(&self, name: &str) -> Option<&Item> {
        let (chunk, Ok(place)) = self.find(name) else { return None };
        Some(self.chunks.get(chunk)?.items.get(place)?.as_ref())
    }

    pub fn get(&self, name: &str) -> Option<&NodeStatus> {
        self.item(name).map(|item| &item.status)
    }

    /// The entry, and its name as it stands here.
    pub fn get_key_value(&self, name: &str) -> Option<(&String, &NodeStatus)> {
        self.item(name).map(|item| (&item.name, &item.status))
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.item(name).is_some()
    }

    /// Sets an entry. One that stands there already is left as it is.
    pub fn insert(&mut self, name: impl Into<String> + AsRef<str>, status: NodeStatus) {
        let (chunk, place) = self.find(name.as_ref());
        match place {
            Ok(place) => {
                let Some(chunk) = self.chunks.get_mut(chunk) else { return };
                if chunk.items.get(place).is_some_and(|item| item.status != status) {
                    Arc::make_mut(chunk).put(place, status);
                }
            }
            Err(place) => {
                let item = Arc::new(Item::of(name.into(), status));
                let (at, mut items) = match self.chunks.get(chunk).or_else(|| self.chunks.last()) {
                    Some(_) if chunk == self.chunks.len() => (chunk - 1, self.items_of(chunk - 1)),
                    Some(_) => (chunk, self.items_of(chunk)),
                    None => return self.chunks.push(Chunk::of(vec![item])),
                };
                let place = if chunk == self.chunks.len() { items.len() } else { place };
                items.insert(place, item);
                let rest = (items.len() >= 2 * CHUNK).then(|| items.split_off(CHUNK));
                self.chunks.splice(at..=at, [items].into_iter().chain(rest).map(Chunk::of));
            }
        }
    }

    fn items_of(&self, chunk: usize) -> Vec<Arc<Item>> {
        self.chunks.get(chunk).map(|chunk| chunk.items.clone()).unwrap_or_default()
    }

    /// Changes an entry, if it is there.
    pub fn update(&mut self, name: &str, change: impl FnOnce(&mut NodeStatus)) {
        let Some(mut status) = self.get(name).cloned() else { return };
        change(&mut status);
        self.insert(name, status);
    }

    /// Sets what an entry says.
    pub fn say(&mut self, name: &str, message: &str) {
        if self.get(name).is_some_and(|status| status.message.as_deref() != Some(message)) {
            self.update(name, |status| status.message = Some(message.to_owned()));
        }
    }

    /// Sets what all say that wait and of which nothing else is known (see [`Mark::Plain`]), except those of
    /// which something else was said.
    pub fn say_of_plain(&mut self, message: &str, is_said: impl Fn(&str) -> bool) {
        let alike = Said::Alike(Some(message.to_owned()));
        for chunk in self.chunks.iter_mut().filter(|chunk| ![&Said::Nothing, &alike].contains(&&chunk.said)) {
            let is_meant = |item: &Item| {
                Mark::Plain.is_on(&item.status)
                    && item.status.message.as_deref() != Some(message)
                    && !is_said(&item.name)
            };
            if !chunk.items.iter().any(|item| is_meant(item)) {
                continue;
            }
            let mut items = chunk.items.clone();
            for item in items.iter_mut().filter(|item| is_meant(item)) {
                let status = NodeStatus { message: Some(message.to_owned()), ..item.status.clone() };
                *item = Arc::new(Item::of(item.name.clone(), status));
            }
            *chunk = Chunk::of(items);
        }
    }

    pub fn remove(&mut self, name: &str) {
        let (at, Ok(place)) = self.find(name) else { return };
        let mut items = self.items_of(at);
        items.remove(place);
        let rest = (!items.is_empty()).then(|| Chunk::of(items));
        self.chunks.splice(at..=at, rest);
    }

    /// All entries, by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter::of(&self.chunks)
    }

    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.iter().map(|(name, _)| name)
    }

    pub fn values(&self) -> impl Iterator<Item = &NodeStatus> {
        self.iter().map(|(_, status)| status)
    }

    /// Those that have one of the marks, by name.
    pub fn marked<const N: usize>(
        &self,
        marks: [Mark; N],
    ) -> impl Iterator<Item = (&String, &NodeStatus)> + Clone {
        self.marked_items(marks).map(|item| (&item.name, &item.status))
    }

    fn marked_items<const N: usize>(&self, marks: [Mark; N]) -> impl Iterator<Item = &Arc<Item>> + Clone {
        self.chunks
            .iter()
            .filter(move |chunk| chunk.has(&marks))
            .flat_map(|chunk| &chunk.items)
            .filter(move |item| marks.iter().any(|mark| mark.is_on(&item.status)))
    }

    /// Whether any has one of the marks.
    pub fn any<const N: usize>(&self, marks: [Mark; N]) -> bool {
        self.chunks.iter().any(|chunk| chunk.has(&marks))
    }

    /// How many have the mark.
    pub fn count(&self, mark: Mark) -> usize {
        self.chunks.iter().filter_map(|chunk| chunk.marks.get(mark as usize)).sum()
    }

    /// How long all names are together, and all that stands in the entries beside their messages.
    pub fn bytes_beside_messages(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// The last change of any.
    pub fn last_updated(&self) -> Option<&Time> {
        self.chunks.iter().filter_map(|chunk| chunk.last_updated.as_ref()).max()
    }

    /// What differs from another version.
    pub fn changes<'a>(&'a self, old: &'a Self) -> Changes<'a> {
        Changes::between(&old.chunks, &self.chunks)
    }
}

impl<'a> IntoIterator for &'a NodeStatuses {
    type Item = (&'a String, &'a NodeStatus);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl From<BTreeMap<String, NodeStatus>> for NodeStatuses {
    fn from(entries: BTreeMap<String, NodeStatus>) -> Self {
        let (mut chunks, mut items) = (Vec::new(), Vec::new());
        for (name, status) in entries {
            items.push(Arc::new(Item::of(name, status)));
            if items.len() == CHUNK {
                chunks.push(Chunk::of(mem::take(&mut items)));
            }
        }
        chunks.extend((!items.is_empty()).then(|| Chunk::of(items)));
        Self { chunks }
    }
}

impl From<NodeStatuses> for BTreeMap<String, NodeStatus> {
    fn from(entries: NodeStatuses) -> Self {
        entries.iter().map(|(name, status)| (name.clone(), status.clone())).collect()
    }
}

impl FromIterator<(String, NodeStatus)> for NodeStatuses {
    fn from_iter<I: IntoIterator<Item = (String, NodeStatus)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl Index<&str> for NodeStatuses {
    type Output = NodeStatus;

    fn index(&self, name: &str) -> &NodeStatus {
        match self.get(name) {
            Some(status) => status,
            None => panic!("no entry of {name}"),
        }
    }
}

impl PartialEq for NodeStatuses {
    fn eq(&self, other: &Self) -> bool {
        self.changes(other).next().is_none()
    }
}

impl fmt::Debug for NodeStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl Serialize for NodeStatuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for NodeStatuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests;

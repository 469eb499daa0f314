//! Labels as one text. A map of them has two allocations for each, and leaves half empty: some two hundred
//! bytes for a label of forty. Feature discovery sets a hundred on a node, and a cluster has thousands of
//! nodes, of all of which the labels are kept.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

/// The labels of an object. Each takes its own bytes, and eight more.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Keys, each followed by its value, in the order of the keys.
    text: String,
    /// Where each key ends in it, and where its value does.
    ends: Vec<[u32; 2]>,
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (found, value) = self.label(middle)?;
            match found.cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(value),
            }
        }
        None
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.ends.len()).filter_map(|at| self.label(at))
    }

    /// What a map of them would be.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where a label begins in the text.
    fn begin(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |[_, end]| *end as usize)
    }

    fn label(&self, at: usize) -> Option<(&str, &str)> {
        let [key, value] = self.ends.get(at)?.map(|end| end as usize);
        Some((self.text.get(self.begin(at)..key)?, self.text.get(key..value)?))
    }
}

/// Labels as they come in, one after the other, in any order.
#[derive(Debug, Default)]
pub(super) struct Builder(Labels);

impl Builder {
    /// The text, to which a key is to be added, and then its value.
    pub(super) fn text(&mut self) -> &mut String {
        &mut self.0.text
    }

    /// Takes what was added to the text as a label, of which the key ends there, if it is to be kept.
    pub(super) fn take(&mut self, key: usize, is_kept: impl FnOnce(&str, &str) -> bool) {
        let Labels { text, ends } = &mut self.0;
        let begin = ends.last().map_or(0, |[_, end]| *end as usize);
        let (name, value) = (text.get(begin..key), text.get(key..));
        let is_kept = name.zip(value).is_some_and(|(name, value)| is_kept(name, value));
        // No object comes near four gigabytes.
        match (u32::try_from(key), u32::try_from(text.len())) {
            (Ok(key), Ok(end)) if is_kept => ends.push([key, end]),
            _ => text.truncate(begin),
        }
    }

    /// API servers tell labels in their order. From whoever does not, the last one of a key counts.
    pub(super) fn build(self) -> Labels {
        let Self(mut labels) = self;
        if !labels.iter().is_sorted_by(|(one, _), (other, _)| one < other) {
            return labels.iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        labels.text.shrink_to_fit();
        labels.ends.shrink_to_fit();
        labels
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut builder = Builder::default();
        for (key, value) in labels {
            builder.text().push_str(key.as_ref());
            let end = builder.text().len();
            builder.text().push_str(value.as_ref());
            builder.take(end, |_, _| true);
        }
        builder.build()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
impl Labels {
    /// Bytes that they take beside their own struct.
    pub fn takes(&self) -> usize {
        self.text.capacity() + size_of::<[u32; 2]>() * self.ends.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_a_map_would_be() {
        let mut rng = fastrand::Rng::with_seed(1);
        let words = ["", "a", "aa", "ab", "b", "ä", "ab/c", "b.d", "ba", "c=", "a\0"];
        let mut seen = BTreeMap::new();
        for _ in 0..5_000 {
            let mut word = || (*rng.choice(words).unwrap()).to_owned();
            let pairs: Vec<(String, String)> = (0..word().len() * 4).map(|_| (word(), word())).collect();
            let map: BTreeMap<String, String> = pairs.iter().cloned().collect();
            let labels: Labels = pairs.into_iter().collect();
            assert!(labels.iter().eq(map.iter().map(|(key, value)| (&**key, &**value))), "{labels:?}");
            assert_eq!((labels.len(), labels.is_empty()), (map.len(), map.is_empty()));
            for key in words {
                assert_eq!(labels.get(key), map.get(key).map(String::as_str), "{key} {labels:?}");
                assert_eq!(labels.contains_key(key), map.contains_key(key));
            }
            assert_eq!((map.iter().collect::<Labels>(), labels.to_map()), (labels.clone(), map.clone()));
            assert_eq!(format!("{labels:?}"), format!("{map:?}"));
            seen.insert(map, labels);
        }
        for (one, other) in seen.iter().zip(seen.iter().skip(1)) {
            assert_ne!(one.1, other.1, "others are not the same");
        }
    }
}

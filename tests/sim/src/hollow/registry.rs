//! Images: what a tag means now, and what each node has in its cache of it.
//!
//! An image that nobody pushed holds nothing but its own name. A container's content is decided when it
//! starts: with the policy `Always` by the registry, otherwise by the node's cache, if that has the
//! reference.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
struct Shelves {
    tags: BTreeMap<String, String>,
    contents: BTreeMap<String, String>,
    caches: BTreeMap<(String, String), String>,
}

/// The registry, and the nodes' caches; clones share them.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Shelves>>);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a tag mean a content from now on.
    pub fn push(&self, image: &str, content: &str) {
        let mut shelves = self.shelves();
        shelves.contents.insert(digest(content), content.to_owned());
        shelves.tags.insert(image.to_owned(), content.to_owned());
    }

    /// Puts a content into a node's cache, as an earlier pull would have.
    pub fn preload(&self, node: &str, image: &str, content: &str) {
        let mut shelves = self.shelves();
        shelves.contents.insert(digest(content), content.to_owned());
        shelves.caches.insert((node.to_owned(), image.to_owned()), content.to_owned());
    }

    /// What a tag means now.
    pub fn content(&self, image: &str) -> String {
        let shelves = self.shelves();
        let Some((name, wanted)) = image.split_once('@') else {
            return shelves.tags.get(image).cloned().unwrap_or_else(|| image.to_owned());
        };
        // What nobody pushed holds its own name, or that with the tag which a digest leaves out, under which
        // nobody looks for its digest.
        let named =
            || [name.to_owned(), format!("{name}:latest")].into_iter().find(|it| digest(it) == wanted);
        shelves.contents.get(wanted).cloned().or_else(named).unwrap_or_else(|| image.to_owned())
    }

    /// What a container of this image holds that a node starts now.
    pub fn start(&self, node: &str, image: &str, policy: &str) -> String {
        let key = (node.to_owned(), image.to_owned());
        let cached = self.shelves().caches.get(&key).cloned().filter(|_| policy != "Always");
        cached.unwrap_or_else(|| {
            let content = self.content(image);
            self.shelves().caches.insert(key, content.clone());
            content
        })
    }
}

/// The digest of a content.
pub fn digest(content: &str) -> String {
    let part = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, content).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    format!("sha256:{}", (0..4).map(part).collect::<String>())
}

/// How a container's status names the image that it runs.
pub fn image_id(image: &str, content: &str) -> String {
    let bare = image.split('@').next().unwrap_or_default();
    let (head, tail) = bare.rsplit_once('/').map_or(("", bare), |(head, tail)| (head, tail));
    let name = tail.split(':').next().unwrap_or_default();
    let slash = if head.is_empty() { "" } else { "/" };
    format!("{head}{slash}{name}@{}", digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_moves_reaches_a_node_that_asks() {
        let registry = Registry::default();
        registry.push("r/os:latest", "v1");
        assert_eq!(registry.start("n1", "r/os:latest", "IfNotPresent"), "v1");
        registry.push("r/os:latest", "v2");
        assert_eq!(registry.start("n1", "r/os:latest", "IfNotPresent"), "v1", "it has it already");
        assert_eq!(registry.start("n2", "r/os:latest", "IfNotPresent"), "v2", "it has not");
        let unpushed = image_id("tool:latest", "tool:latest");
        assert_eq!(registry.start("n1", &unpushed, "IfNotPresent"), "tool:latest");
        let pinned = image_id("r/os:latest", "v1");
        assert_eq!(registry.start("n2", &pinned, "IfNotPresent"), "v1", "a digest does not move: {pinned}");
        assert_eq!(registry.start("n1", "r/os:latest", "Always"), "v2");
        assert_eq!(registry.start("n1", "busybox:1", "Always"), "busybox:1");
    }
}

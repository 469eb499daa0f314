//! Which content an image's name stands for: a tag moves, and a node may have an old one in its cache.
//!
//! All nodes of one architecture run what the first one ran. What that was stands in status before anything
//! follows from it. A node whose kubelet reports another digest for the same name is failed, at the verdict
//! of its preflight if it has one; and where the node would ask the registry again, its Job names the content
//! that its preflight ran. What nodes tell before any was taken is in [`reports`].

mod alike;
mod first;
mod judged;
mod reference;
mod reports;
mod seen;

use std::mem;

use self::{
    alike::{are_alike, are_same, binds, differ, of_one_name},
    judged::other_content,
    reference::{MAX_REFERENCE_BYTES, named, repository, sha256, without_scheme},
    reports::MAX_CONTENTS,
    seen::content,
};
pub use self::{
    first::FirstReleases,
    judged::Judged,
    reference::{is_of_repository, split_tag},
    reports::{disputed, judge, was_taken},
};
use crate::{
    api::{
        names::container,
        nodeop::{NodeOp, NodeOpStatus},
        pull_policy::PullPolicy,
    },
    plan::model::snapshot::{PodView, Snapshot},
};

/// A pod's content, compared with what is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The kubelet has not said which content it runs, or not in a way that can be compared.
    Unknown,
    /// None is recorded that it could be compared with, and it is about to be.
    First,
    Same,
    /// It is another one; this says which.
    Differs(String),
}

/// Compares the content that a preflight or a Job's pod runs with the one that all nodes of its architecture
/// are held to.
pub fn compare(snapshot: &Snapshot, op: &NodeOp, pod: &PodView) -> Compared {
    // A name with a digest in it stands for one content alone.
    let Some(here) = content(snapshot, op, pod).filter(|here| !here.image.contains('@')) else {
        return Compared::Unknown;
    };
    let recorded = op.status.as_ref().map(|status| status.images.as_slice()).unwrap_or_default();
    let first = recorded.iter().find(|known| binds(known) && are_alike(known, &here));
    if let Some(first) = first.filter(|first| differ(first, &here)) {
        return Compared::Differs(other_content(&here, first));
    }
    if recorded.iter().any(|known| of_one_name(known, &here) && are_same(known, &here)) {
        return Compared::Same;
    }
    if first.is_none() && recorded.len() < MAX_CONTENTS { Compared::First } else { Compared::Unknown }
}

/// Why a pod must not go on: it runs another content than the first node of its architecture.
pub fn mismatch(snapshot: &Snapshot, op: &NodeOp, pod: &PodView) -> Option<String> {
    match compare(snapshot, op, pod) {
        Compared::Differs(why) => Some(why),
        Compared::Unknown | Compared::First | Compared::Same => None,
    }
}

/// Records what nodes run or tell for the first time on an architecture.
pub fn record(snapshot: &Snapshot, op: &NodeOp, status: &mut NodeOpStatus) {
    let is_there = |node: &str| snapshot.nodes.contains_key(node);
    let resolved = |images| reports::resolved(images, &status.node_statuses, is_there);
    // What a node has that was taken in this very pass binds before what others are seen to have.
    let images = resolved(mem::take(&mut status.images));
    let seen = seen::sightings(snapshot, op, &images);
    let images = resolved(reports::noted(images, seen));
    status.image = reports::shown(&images, named(op, container::NODEOP));
    status.images = images;
}

/// The operation's image by the digest of what the node's preflight ran, if the node would ask the registry
/// again what the name means. A digest that the node has under another name is of no use to it.
pub fn pinned(snapshot: &Snapshot, op: &NodeOp, pod: &PodView) -> Option<String> {
    let name = named(op, container::NODEOP);
    let container = pod.container_view(container::PREFLIGHT)?;
    pin(snapshot, op, &container.image_id).filter(|_| named(op, container::PREFLIGHT) == name)
}

/// The operation's image by the digest that all nodes of this architecture are held to, if a node would ask
/// the registry again what the name means. Where no preflight looks at the image first, a node would run
/// another content before anybody sees that the tag has moved.
pub fn bound(snapshot: &Snapshot, op: &NodeOp, architecture: &str) -> Option<String> {
    let named = op.spec.image.as_deref().unwrap_or_default();
    let images = op.status.iter().flat_map(|status| &status.images);
    let mut bound = images.filter(|known| binds(known) && known.image == named);
    bound.find(|known| known.architecture == architecture).and_then(|known| pin(snapshot, op, &known.digest))
}

/// A content of the operation's image, if a node would ask the registry again what the name means.
fn pin(snapshot: &Snapshot, op: &NodeOp, content: &str) -> Option<String> {
    let (name, image) = (named(op, container::NODEOP), without_scheme(content));
    let name = if name.is_empty() { &snapshot.config.default_image } else { name };
    let by_default = || split_tag(name).1.is_none_or(|tag| tag == "latest");
    let asks = !name.contains('@')
        && op.spec.image_pull_policy.map_or_else(by_default, |policy| policy == PullPolicy::Always);
    let same = repository(image) == repository(name);
    (asks && same && image.contains('@') && sha256(image).is_some() && image.len() <= MAX_REFERENCE_BYTES)
        .then(|| image.to_owned())
}

#[cfg(test)]
mod tests;

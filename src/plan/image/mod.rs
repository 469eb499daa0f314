//! Which content an image's name stands for: a tag moves, and a node may have an old one in its cache.
//!
//! All nodes of one architecture run what the first one ran. What that was stands in status before anything
//! follows from it. A node whose kubelet reports another digest for the same name is failed, at the verdict
//! of its preflight if it has one; and where the node would ask the registry again, its Job names the content
//! that its preflight ran. What nodes tell before any was taken is in [`reports`].

mod first;
mod reports;

use self::reports::{Kind, are_alike, are_same, binds, differ, kind, of_one_name, other_content};
pub use self::{
    first::FirstReleases,
    reports::{disputed, judge, was_taken},
};
use crate::{
    api::{
        image_content::ImageContent,
        names::container,
        nodeop::{NodeOp, NodeOpStatus},
        pull_policy::PullPolicy,
    },
    plan::model::{
        id::OpRef,
        snapshot::{Content, PodView, Role, Snapshot},
    },
};

/// How many contents are recorded at most. There are two names in an operation at most, and a handful of
/// architectures.
const MAX_CONTENTS: usize = 16;
/// No name that can be pulled is longer, nor is what a kubelet makes of it.
const MAX_REFERENCE_BYTES: usize = 512;
/// Digits of a SHA-256 digest.
const DIGITS: usize = 64;

/// What helps against a name that stands for two contents.
const ADVICE: &str =
    "Name the image by digest, or with a tag that does not move, and create the operation again";

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

/// What follows for a node that is not taken from what it and others told of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Nobody tells anything else.
    Fits,
    /// It tells something else than what all are held to; this says what.
    Differs(String),
    /// Another node tells something else, and neither binds the other.
    Disputed(String),
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
    let me = OpRef::of(op);
    let of_job =
        |pod: &PodView| pod.role == Role::Job && snapshot.job_of(pod).is_some_and(|job| job.is_of(&me));
    // One that is on its way out may be of an earlier try, which found another content.
    let of_preflight = |pod: &PodView| pod.role == Role::Preflight && pod.is_of(&me) && !pod.deleting;
    // What a node has that was taken in this very pass binds before what others are seen to have.
    reports::settle(snapshot, &status.node_statuses, &mut status.images);
    let settled = settled(snapshot, &status.images);
    let pods = snapshot.pods.running().filter(|(content, _)| !is_settled(&settled, op, content));
    let pods = pods.flat_map(|(_, pods)| pods).map(AsRef::as_ref);
    let news = |pod: &&PodView| !is_recorded(snapshot, op, &status.images, pod);
    let mut pods: Vec<&PodView> = pods.filter(news).filter(|pod| of_preflight(pod) || of_job(pod)).collect();
    pods.sort_by_key(|pod| (pod.created, &pod.name));
    for (pod, here) in pods.into_iter().filter_map(|pod| Some((pod, content(snapshot, op, pod)?))) {
        reports::note(&mut status.images, here, &pod.node, pod.role == Role::Job);
    }
    reports::settle(snapshot, &status.node_statuses, &mut status.images);
    let images = &status.images;
    // Under its name is shown what the registry has by that name, as far as nodes agree.
    let is_shown = |content: &&ImageContent| {
        let others = images.iter().filter(|other| differ(other, content));
        let agreed = binds(content) || others.clone().count() == 0;
        content.image == named(op, container::NODEOP) && kind(content) != Kind::Elsewhere && agreed
    };
    let mut shown: Vec<String> = images.iter().filter(is_shown).map(with_digest).collect();
    shown.sort();
    shown.dedup();
    status.image = (!shown.is_empty()).then(|| shown.join(", "));
}

/// The operation's image by the digest of what the node's preflight ran, if the node would ask the registry
/// again what the name means. A digest that the node has under another name is of no use to it.
pub fn pinned(op: &NodeOp, pod: &PodView) -> Option<String> {
    let name = named(op, container::NODEOP);
    let container = pod.containers.iter().find(|container| container.name == container::PREFLIGHT)?;
    let image = without_scheme(&container.image_id);
    let by_default = || split_tag(name).1.is_none_or(|tag| tag == "latest");
    let asks = !name.contains('@')
        && op.spec.image_pull_policy.map_or_else(by_default, |policy| policy == PullPolicy::Always);
    let same = named(op, container::PREFLIGHT) == name && repository(image) == repository(name);
    (asks && same && image.contains('@') && sha256(image).is_some() && image.len() <= MAX_REFERENCE_BYTES)
        .then(|| image.to_owned())
}

/// What that container runs.
fn content(snapshot: &Snapshot, op: &NodeOp, pod: &PodView) -> Option<ImageContent> {
    let container = pod.operates()?;
    let architecture =
        snapshot.nodes.get(&pod.node).map(|node| node.arch.clone()).filter(|arch| !arch.is_empty())?;
    let digest = without_scheme(&container.image_id).to_owned();
    let image = named(op, &container.name).to_owned();
    (sha256(&digest).is_some() && digest.len().max(image.len()) <= MAX_REFERENCE_BYTES)
        .then_some(ImageContent { architecture, image, digest, told_by: None })
}

/// Contents that bind on each architecture that there is. Most pods run one of them, and need not be looked
/// at.
fn settled<'a>(snapshot: &Snapshot, images: &'a [ImageContent]) -> Vec<&'a ImageContent> {
    let same =
        |one: &ImageContent, other: &ImageContent| (&one.image, &one.digest) == (&other.image, &other.digest);
    let is_known = |content: &ImageContent, arch: &String| {
        images.iter().any(|known| binds(known) && same(known, content) && known.architecture == *arch)
    };
    let everywhere = |content: &&ImageContent| {
        snapshot.nodes.archs().filter(|arch| !arch.is_empty()).all(|arch| is_known(content, arch))
    };
    images.iter().filter(|content| binds(content)).filter(everywhere).collect()
}

fn is_settled(settled: &[&ImageContent], op: &NodeOp, (container, runs): &Content) -> bool {
    let (digest, image) = (without_scheme(runs), named(op, container));
    settled.iter().any(|known| known.digest == digest && known.image == image)
}

/// Whether the status names what the pod's container runs, or the pod has none that counts: as a rule, and so
/// it is found out before anything else is.
fn is_recorded(snapshot: &Snapshot, op: &NodeOp, images: &[ImageContent], pod: &PodView) -> bool {
    let (Some(container), Some(node)) = (pod.operates(), snapshot.nodes.get(&pod.node)) else { return true };
    let (digest, image) = (without_scheme(&container.image_id), named(op, &container.name));
    digest.is_empty()
        || images
            .iter()
            .filter(|known| {
                binds(known) || known.told_by.as_ref() == Some(&pod.node) && pod.role != Role::Job
            })
            .any(|known| known.digest == digest && known.architecture == node.arch && known.image == image)
}

/// The image of a container as the operation names it.
fn named<'a>(op: &'a NodeOp, container: &str) -> &'a str {
    let own = op
        .spec
        .preflight
        .as_ref()
        .filter(|_| container == container::PREFLIGHT)
        .and_then(|preflight| preflight.image.as_deref());
    own.filter(|image| !image.is_empty()).or(op.spec.image.as_deref()).unwrap_or_default()
}

/// An image's name without its tag, and the tag. A colon before a slash is a registry's port.
pub fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// Whether a content is of the repository that a name names, so that its digest can be pulled by that name.
pub fn is_of_repository(content: &str, name: &str) -> bool {
    repository(content) == repository(name)
}

/// The registry that a short name leaves out, …
const DOCKER_HUB: &str = "docker.io";
/// … as old names call it, …
const OLD_HUB: &str = "index.docker.io";
/// … and the folder in it that a name without one leaves out.
const LIBRARY: &str = "library";

/// The repository of an image, with the registry and the folder that a short name leaves out, as runtimes
/// complete it (`reference.ParseNormalizedNamed` of distribution): kubelets report the complete name,
/// whatever a pod says.
fn repository(name: &str) -> String {
    let bare = split_tag(name.split_once('@').map_or(name, |(name, _)| name)).0;
    let is_host = |part: &str| {
        part.contains(['.', ':']) || part == "localhost" || part.contains(|c: char| c.is_ascii_uppercase())
    };
    let (host, path) = bare.split_once('/').filter(|(host, _)| is_host(host)).unwrap_or((DOCKER_HUB, bare));
    let host = if host == OLD_HUB { DOCKER_HUB } else { host };
    if host == DOCKER_HUB && !path.contains('/') {
        return format!("{host}/{LIBRARY}/{path}");
    }
    format!("{host}/{path}")
}

/// Docker's kubelets put a scheme before it.
fn without_scheme(image_id: &str) -> &str {
    image_id.split_once("://").map_or(image_id, |(_, rest)| rest)
}

fn sha256(digest: &str) -> Option<&str> {
    let (repository, digits) = digest.rsplit_once("sha256:")?;
    let progress = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (progress && (repository.is_empty() || repository.ends_with('@'))).then_some(digits)
}

/// The name with the digest of what it stands for.
fn with_digest(content: &ImageContent) -> String {
    match sha256(&content.digest) {
        _ if content.image.contains('@') => content.image.clone(),
        Some(digits) if !content.image.is_empty() => format!("{}@sha256:{digits}", content.image),
        _ => content.digest.clone(),
    }
}

#[cfg(test)]
mod tests;

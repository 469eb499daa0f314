//! References: the names of images as people and kubelets write them, and the digests in them.

use crate::api::{image_content::ImageContent, names::container, nodeop::NodeOp};

/// No name that can be pulled is longer, nor is what a kubelet makes of it.
pub const MAX_REFERENCE_BYTES: usize = 512;
/// Digits of a SHA-256 digest.
pub const DIGITS: usize = 64;
/// The registry that a short name leaves out, …
const DOCKER_HUB: &str = "docker.io";
/// … as old names call it, …
const OLD_HUB: &str = "index.docker.io";
/// … and the folder in it that a name without one leaves out.
const LIBRARY: &str = "library";

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

/// The repository of an image, with the registry and the folder that a short name leaves out, as runtimes
/// complete it (`reference.ParseNormalizedNamed` of distribution): kubelets report the complete name,
/// whatever a pod says.
pub fn repository(name: &str) -> String {
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
pub fn without_scheme(image_id: &str) -> &str {
    image_id.split_once("://").map_or(image_id, |(_, rest)| rest)
}

/// The digits of a SHA-256 digest, if it is one, alone or behind the repository that has it.
pub fn sha256(digest: &str) -> Option<&str> {
    let (repository, digits) = digest.rsplit_once("sha256:")?;
    let progress = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (progress && (repository.is_empty() || repository.ends_with('@'))).then_some(digits)
}

/// The name with the digest of what it stands for.
pub fn with_digest(content: &ImageContent) -> String {
    match sha256(&content.digest) {
        _ if content.image.contains('@') => content.image.clone(),
        Some(digits) if !content.image.is_empty() => format!("{}@sha256:{digits}", content.image),
        _ => content.digest.clone(),
    }
}

/// The image of a container as the operation names it.
pub fn named<'a>(op: &'a NodeOp, container: &str) -> &'a str {
    let own = op
        .spec
        .preflight
        .as_ref()
        .filter(|_| container == container::PREFLIGHT)
        .and_then(|preflight| preflight.image.as_deref());
    own.filter(|image| !image.is_empty()).or(op.spec.image.as_deref()).unwrap_or_default()
}

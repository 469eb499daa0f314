//! Which contents of an image can be compared, and are the same.

use super::reference::{repository, sha256};
use crate::api::image_content::ImageContent;

/// As what a kubelet names a content. Only those of one kind can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the digest of a manifest in the repository that was named.
    Named,
    /// By one in another repository, where the node has the same content from. A mirror may have pushed it
    /// anew, under another digest.
    Elsewhere,
    /// By the digest of its configuration: it was loaded from a file.
    Configuration,
}

/// As what this one is named. Which repository the controller's default image has is not known here.
pub fn kind(content: &ImageContent) -> Kind {
    if !content.digest.contains('@') {
        Kind::Configuration
    } else if content.image.is_empty() || repository(&content.digest) == repository(&content.image) {
        Kind::Named
    } else {
        Kind::Elsewhere
    }
}

/// Whether two contents have one name, on one architecture.
pub fn of_one_name(one: &ImageContent, other: &ImageContent) -> bool {
    (&one.architecture, &one.image) == (&other.architecture, &other.image)
}

/// Whether two contents have one name and are named in a way that can be compared.
pub fn are_alike(one: &ImageContent, other: &ImageContent) -> bool {
    let by_default = || !one.image.is_empty() || repository(&one.digest) == repository(&other.digest);
    of_one_name(one, other) && kind(one) == kind(other) && (kind(one) == Kind::Configuration || by_default())
}

/// Whether both have one digest.
pub fn are_same(one: &ImageContent, other: &ImageContent) -> bool {
    sha256(&one.digest) == sha256(&other.digest)
}

/// Whether they are known to differ: comparable, and of two digests.
pub fn differ(one: &ImageContent, other: &ImageContent) -> bool {
    are_alike(one, other) && kind(one) != Kind::Elsewhere && !are_same(one, other)
}

/// Whether all others are held to it.
pub fn binds(content: &ImageContent) -> bool {
    content.told_by.is_none()
}

//! What follows for a node from what it and others told of the image, and what is said of it.

use crate::api::image_content::ImageContent;

/// What helps against a name that stands for two contents.
pub const ADVICE: &str =
    "Name the image by digest, or with a tag that does not move, and create the operation again";

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

/// The image as the operation names it, for people.
pub fn name(content: &ImageContent) -> &str {
    if content.image.is_empty() { "the default image" } else { &content.image }
}

/// Why a node is failed that has another content than the one that binds.
pub fn other_content(here: &ImageContent, first: &ImageContent) -> String {
    format!(
        "{} is {} on this node, and was {} on the first {} node of this operation: the tag has moved, or a node has an old image. \
         {ADVICE}",
        name(here),
        here.digest,
        first.digest,
        here.architecture
    )
}

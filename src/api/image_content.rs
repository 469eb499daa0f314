//! What an image's name stood for: the content that nodes ran under it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an image's name stood for on nodes of an architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageContent {
    /// The architecture, as the node names it.
    pub architecture: String,
    /// The image as the operation names it; empty for the controller's default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The content as the kubelet names it: `repository@sha256:…`, or `sha256:…` for an image that was loaded
    /// from a file.
    pub digest: String,
    /// The node that tells it, while it is no more than one node's report. Absent once a node was taken that
    /// has this content, or a second one tells the same: from then on no node of the architecture runs
    /// another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
}

//! What an image's name stood for: the content that nodes ran under it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an image's name stood for on the first node of an architecture.
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
}

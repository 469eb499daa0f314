//! The runs of a NodeOpUpgrade, and their rounds, as its status shows them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodeop::MAX_NODE_NAMES;

/// A round of a run: the run itself, or one that followed it for nodes that joined or drifted, or that an older
/// operator had not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// The generation of the spec at which the run was decided on. A node has one attempt in each.
    pub generation: i64,
    /// 0 for the NodeOp with which the run began, and one more for each that followed.
    pub number: i64,
    /// When the first NodeOp of the run was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The nodes of a round that followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_NODE_NAMES, "x-kubernetes-list-type" = "atomic"))]
    pub node_names: Vec<String>,
    /// The image of such a round, by the digest of what the run has run, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Machines, by their own ids, that the run has tried and whose Node was deleted before that had come to
    /// its end; the latest last. They are not tried again when they join again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_LOST, "x-kubernetes-list-type" = "atomic"))]
    pub lost: Vec<String>,
}

/// The most machines that are remembered so. Of more the first is forgotten.
pub const MAX_LOST: usize = 100;

/// What came of a run, or of a round of it, that another one followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlierRun {
    /// Its NodeOp.
    pub node_op: String,
    /// The image that it ran, with the digest of its content if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it ended.
    pub result: RunResult,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Nodes that it finished, of all, failed ones included, as `2/7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub done: String,
    /// Nodes that failed.
    #[serde(default)]
    pub failed: i32,
    /// Nodes that needed nothing.
    #[serde(default)]
    pub skipped: i32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunResult {
    /// All nodes finished well.
    Completed,
    /// Nodes failed.
    Failed,
    /// The spec was changed before it had taken all its nodes.
    Superseded,
    /// `notAfter` had passed before it had taken all its nodes.
    Expired,
    /// Somebody deleted its NodeOp.
    Deleted,
}

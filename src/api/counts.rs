//! How many targets of an operation are where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many targets are where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All targets.
    pub total: i32,
    /// Neither started nor finished.
    pub pending: i32,
    /// In progress.
    pub running: i32,
    /// Finished well, skipped ones included.
    pub completed: i32,
    /// Finished badly.
    pub failed: i32,
    /// Of those that finished well, those that needed nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: i32,
    /// Finished of all, as `2/7`.
    pub done: String,
    /// Names of the nodes in progress, at most three, and `(paused)` if nothing new is started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current: String,
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

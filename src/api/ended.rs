//! How and when an operation was over, whichever kind it is of: its conditions say so.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::api::names::condition::{COMPLETE, FAILED};

/// The condition that says that the operation is over, and why; none while it is not.
pub fn end(conditions: &[Condition]) -> Option<&Condition> {
    let ends = |one: &&Condition| one.status == "True" && [COMPLETE, FAILED].contains(&one.type_.as_str());
    conditions.iter().find(ends)
}

/// When the operation with these conditions was over.
pub fn ended(conditions: &[Condition]) -> Option<Timestamp> {
    end(conditions).map(|end| end.last_transition_time.0)
}

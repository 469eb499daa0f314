//! When an operation was over, whichever kind it is of: its conditions date it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::api::names::condition::{COMPLETE, FAILED};

/// When the operation with these conditions was over; nothing while it is not.
pub fn ended(conditions: &[Condition]) -> Option<Timestamp> {
    let ends = |one: &&Condition| one.status == "True" && [COMPLETE, FAILED].contains(&one.type_.as_str());
    conditions.iter().find(ends).map(|end| end.last_transition_time.0)
}

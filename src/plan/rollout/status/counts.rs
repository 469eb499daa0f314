//! How many nodes are where.

use crate::api::{
    node_statuses::{Mark, NodeStatuses},
    nodeop::Counts,
};

/// How many names of nodes stand in `counts.current` at most.
const MAX_CURRENT: usize = 3;

/// Counts the nodes.
pub fn count(nodes: &NodeStatuses) -> Counts {
    let of = |mark: Mark| to_i32(nodes.count(mark));
    let (total, completed, failed) = (to_i32(nodes.len()), of(Mark::Completed), of(Mark::Failed));
    let (pending, running) = (of(Mark::Pending) + of(Mark::Preflight), of(Mark::Running));
    let current = nodes.marked([Mark::Running]).map(|(name, _)| name.as_str());
    let mut current = current.take(MAX_CURRENT).collect::<Vec<_>>().join(",");
    if nodes.count(Mark::Running) > MAX_CURRENT {
        current.push_str(",…");
    }
    let (done, skipped) = (format!("{}/{total}", completed + failed), of(Mark::Skipped));
    Counts { total, pending, running, completed, failed, skipped, done, current }
}

pub fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

//! How many nodes are where.

use std::collections::BTreeMap;

use crate::{
    api::nodeop::{Counts, NodeStatus, Phase},
    plan::rollout::not_taken::SKIPPED,
};

/// How many names of nodes stand in `counts.current` at most.
const MAX_CURRENT: usize = 3;

/// Counts the nodes.
pub fn count(nodes: &BTreeMap<String, NodeStatus>) -> Counts {
    let mut counts = Counts { total: to_i32(nodes.len()), ..Counts::default() };
    let mut current = Vec::new();
    for (name, node) in nodes {
        match node.phase {
            Phase::Pending | Phase::Preflight => counts.pending += 1,
            Phase::Running => {
                counts.running += 1;
                current.push(name.as_str());
            }
            Phase::Completed => {
                counts.completed += 1;
                counts.skipped += i32::from(was_skipped(node));
            }
            Phase::Failed => counts.failed += 1,
        }
    }
    counts.done = format!("{}/{}", counts.completed + counts.failed, counts.total);
    counts.current = current.iter().take(MAX_CURRENT).copied().collect::<Vec<_>>().join(",");
    if current.len() > MAX_CURRENT {
        counts.current.push_str(",…");
    }
    counts
}

/// Whether nothing had to be done on a node that is done. With very many targets its message alone is kept.
fn was_skipped(node: &NodeStatus) -> bool {
    node.job_name.is_none() && node.message.as_deref().is_some_and(|message| message.starts_with(SKIPPED))
}

pub fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

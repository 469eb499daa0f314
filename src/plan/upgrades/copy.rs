//! What an upgrade shows of its NodeOp.

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::NodeOp,
        upgrade::{NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{attempts, upgrades::content},
};

/// Above this number of nodes only those are copied that are worked on, or failed.
const MAX_COPIED_ENTRIES: usize = 1000;
/// How many of those that failed are copied then, the first by name: with an image that does not boot all
/// fail, and the copy would be a second object that is hardly written any more.
const MAX_COPIED_FAILED: usize = 500;

/// What a NodeOp says of its nodes.
pub fn copy(status: &mut NodeOpUpgradeStatus, child: &NodeOp) {
    let Some(shown) = &child.status else {
        status.phase = Some(UpgradePhase::Initializing);
        return;
    };
    status.phase = shown.phase.map(UpgradePhase::from);
    status.node_statuses = copied(&shown.node_statuses);
    status.counts = shown.counts.clone();
    content::copy(status, &shown.images);
    // What is known of the run no later round takes back, whatever its nodes have found: a node that does not
    // run what the run has brought is none that does.
    let later = attempts::is_later_round(child);
    let (image, release) = (status.image.take().filter(|_| later), status.release.take().filter(|_| later));
    status.image = image.or_else(|| shown.image.clone());
    status.release = release.or_else(|| shown.release.clone());
}

fn copied(nodes: &NodeStatuses) -> NodeStatuses {
    if nodes.len() <= MAX_COPIED_ENTRIES {
        nodes.shown()
    } else {
        nodes.shown_of([Mark::Preflight, Mark::Running, Mark::Failed], MAX_COPIED_FAILED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::nodeop::{NodeStatus, Phase};

    #[test]
    fn above_a_thousand_nodes_only_the_unfinished_and_the_failed_are_copied() {
        let node = |phase| NodeStatus { phase, boot: Some("b".into()), ..NodeStatus::default() };
        let many = |count: usize| {
            (0..count)
                .map(|i| (format!("n{i}"), node(if i == 0 { Phase::Failed } else { Phase::Completed })))
                .collect()
        };
        let few: NodeStatuses = many(1000);
        assert_eq!(copied(&few).len(), 1000);
        assert!(
            copied(&few).values().all(|node| node.boot.is_none()),
            "what the NodeOp keeps for itself is not copied"
        );
        assert_eq!(copied(&many(1001)).keys().collect::<Vec<_>>(), ["n0"]);
        let failed = |number: usize| if number < 2000 { Phase::Failed } else { Phase::Running };
        let most: NodeStatuses =
            (0..2010).map(|number| (format!("n{number:04}"), node(failed(number)))).collect();
        let copied = copied(&most);
        assert_eq!((copied.count(Mark::Failed), copied.count(Mark::Running)), (MAX_COPIED_FAILED, 10));
        assert!(copied.contains_key("n0499") && !copied.contains_key("n0500"));
    }
}

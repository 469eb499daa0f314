//! Nodes that an upgrade has brought to its release, and that run another one by the time it is over: a newer
//! upgrade has taken them meanwhile, or somebody has gone back by hand.
//!
//! An entry says what was proved when the node was done. An upgrade of many nodes may take days, and what it
//! says at its end is read as what is so then.

use crate::{
    api::{
        node_status::NodeReason,
        node_statuses::NodeStatuses,
        nodeop::{NodeStatus, Phase, RebootStatus},
    },
    contract::UpToDate,
    plan::{image::FirstReleases, model::snapshot::Snapshot, node::context::Op, upgrades::newest::Newer},
};

/// A node that an upgrade has been done with, and that runs another release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    pub node: String,
    /// Nothing, if a newer upgrade has it and it has not said what it runs in its present boot.
    pub runs: Option<String>,
    /// The newer upgrade that has it, or has decided what it runs.
    pub newer: Option<String>,
}

/// Those of an upgrade whose nodes are all done.
pub fn find(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> Vec<Drifted> {
    let first = FirstReleases::of(snapshot, &op.object, nodes);
    let newer = Newer::than_maker_of(snapshot, &op.object);
    let drifted = nodes.iter().filter(|(_, entry)| runs_the_image(op, entry)).filter_map(|(name, entry)| {
        let node = snapshot.nodes.get(name)?;
        let target = entry.target.as_ref().or_else(|| first.bound(node))?;
        let newer = || newer.on(node).map(|by| by.to_string());
        match node.release() {
            Some(runs) if runs == target => None,
            Some(runs) => Some(Drifted { node: name.clone(), runs: Some(runs.clone()), newer: newer() }),
            // It has booted, and is about to tell what.
            None if !node.says_its_facts() => {
                newer().map(|by| Drifted { node: name.clone(), runs: None, newer: Some(by) })
            }
            None => None,
        }
    });
    drifted.collect()
}

/// Whether it was proved that the node had booted the image's release, or was found at it. A recovery image
/// is not what a node runs.
fn runs_the_image(op: &Op, entry: &NodeStatus) -> bool {
    // Of one of thousands it is not kept whether it rebooted.
    let rebooted = entry.reboot_status.map_or(op.intent.reboot, |it| it == RebootStatus::Completed);
    let booted = rebooted && entry.verified == Some(true);
    // Versions before 1.0 said it by the message alone.
    let said_before = || entry.message.as_deref().is_some_and(|said| said.contains(UpToDate::SENTENCE));
    let found_at = || entry.reason.map_or_else(said_before, |why| why == NodeReason::UpToDate);
    entry.phase == Phase::Completed && (booted || found_at())
}

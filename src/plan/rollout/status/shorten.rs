//! How much is said of each node: an object has a size beyond which the server takes it no more.

use crate::{
    api::{
        node_statuses::{Change, NodeStatuses},
        nodeop::{NodeOpStatus, NodeStatus},
    },
    plan::model::manual,
};

/// Bytes of what is said about one node, at most.
const MAX_MESSAGE: usize = 1000;
/// Bytes of the names of all nodes and of what is said about them, at most. A preflight may end with 4 KiB on
/// each of thousands of nodes, and the server takes an object of 1.5 MiB; beyond that nothing could be
/// recorded any more.
const MAX_ALL_MESSAGES: usize = 600_000;
/// How many bytes each of them may have, however many there are: enough for what we say ourselves.
const MIN_MESSAGE: usize = 60;
/// Cuts what is newly said. What stands there already is left: an entry that is final does not change.
pub fn shorten(old: Option<&NodeOpStatus>, status: &mut NodeOpStatus) {
    let none = NodeStatuses::default();
    let before = old.map_or(&none, |old| &old.node_statuses);
    let rest = MAX_ALL_MESSAGES.saturating_sub(status.node_statuses.bytes_of_names());
    let most = (rest / status.node_statuses.len().max(1)).clamp(MIN_MESSAGE, MAX_MESSAGE);
    let new = status.node_statuses.clone();
    for Change { name, old, new } in new.changes(before) {
        let said = |entry: Option<&'_ NodeStatus>| entry.and_then(|entry| entry.message.clone());
        if let Some(message) = said(new).filter(|message| message.len() > most)
            && Some(&message) != said(old).as_ref()
        {
            status.node_statuses.say(name, &manual::clipped(&message, most));
        }
    }
}

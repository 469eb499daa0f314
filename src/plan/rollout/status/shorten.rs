//! How much is said of each node: an object has a size beyond which the server takes it no more.

use crate::{
    api::{
        node_statuses::{Change, NodeStatuses},
        nodeop::{NodeOpStatus, NodeStatus},
        text::stored,
    },
    plan::model::manual,
};

/// Bytes of what is said about one node, at most.
const MAX_MESSAGE: usize = 1000;
/// Bytes of why a node is given up, which is recorded until it is, at most and however many nodes there are.
const MIN_REASON: usize = 300;
/// Bytes of the names of all nodes, of what is recorded about them (ids, releases, images) and of what is
/// said, at most. A preflight may end with 4 KiB on each of thousands of nodes, and a node may call its boot,
/// and its image a release, what it likes; the server takes an object of 1.5 MiB, and beyond that nothing
/// could be recorded any more. What is recorded decides and stays whole: what is said makes room for it.
const MAX_ALL_TEXTS: usize = 700_000;
/// How many bytes each of them may have, however many there are: enough for what we say ourselves.
const MIN_MESSAGE: usize = 60;

/// Cuts what is newly said. What stands there already is left: an entry that is final does not change.
pub fn shorten(old: Option<&NodeOpStatus>, status: &mut NodeOpStatus) {
    let none = NodeStatuses::default();
    let before = old.map_or(&none, |old| &old.node_statuses);
    let rest = MAX_ALL_TEXTS.saturating_sub(status.node_statuses.bytes_beside_messages());
    let most = (rest / status.node_statuses.len().max(1)).clamp(MIN_MESSAGE, MAX_MESSAGE);
    let new = status.node_statuses.clone();
    for Change { name, old, new } in new.changes(before) {
        let said = |entry: Option<&'_ NodeStatus>| entry.and_then(|entry| entry.message.clone());
        if let Some(message) = said(new).filter(|message| stored(message) > most)
            && Some(&message) != said(old).as_ref()
        {
            status.node_statuses.say(name, &manual::clipped(&message, most));
        }
        let why = |entry: Option<&'_ NodeStatus>| entry.and_then(|entry| entry.given_up.clone());
        if let Some(reason) = why(new).filter(|reason| stored(reason) > most.max(MIN_REASON))
            && Some(&reason) != why(old).as_ref()
        {
            let reason = manual::clipped(&reason, most.max(MIN_REASON));
            status.node_statuses.update(name, |entry| entry.given_up = Some(reason));
        }
    }
}

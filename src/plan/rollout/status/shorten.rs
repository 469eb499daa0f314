//! How much is said of each node: an object has a size beyond which the server takes it no more.

use crate::{api::nodeop::NodeOpStatus, plan::model::manual};

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
    let names: usize = status.node_statuses.keys().map(String::len).sum();
    let rest = MAX_ALL_MESSAGES.saturating_sub(names);
    let most = (rest / status.node_statuses.len().max(1)).clamp(MIN_MESSAGE, MAX_MESSAGE);
    for (name, node) in &mut status.node_statuses {
        let said = old.and_then(|old| old.node_statuses.get(name)).and_then(|old| old.message.as_ref());
        if let Some(message) =
            node.message.as_mut().filter(|message| message.len() > most && Some(&**message) != said)
        {
            *message = manual::clipped(message, most);
        }
    }
}

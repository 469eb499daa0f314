//! However much strangers and nodes write, what is made of it stays small.

use serde_json::Value;

use super::*;

/// The status of an operation, and for each node of it.
const STATUS: usize = 8_192;
const PER_NODE: usize = 4_096;
/// Labels and annotations of ours on one node.
const ON_NODE: usize = 16_384;

impl Past<'_> {
    /// A NodeOp, a NodeOpUpgrade or a Node is written.
    pub(super) fn is_small(&mut self, change: &Change) {
        let status = &change.object["status"];
        let (size, most) = if change.key.table.as_ref() == "nodes" {
            let written = ["labels", "annotations"].map(|kind| ours(&change.object["metadata"][kind]));
            (written.into_iter().sum(), ON_NODE)
        } else {
            let nodes = status["nodeStatuses"].as_object().map_or(0, serde_json::Map::len);
            (status.to_string().len(), STATUS + PER_NODE * nodes)
        };
        if size > most {
            let message: String = status["message"].as_str().unwrap_or_default().chars().take(300).collect();
            let (table, name) = (&change.key.table, &change.key.name);
            self.broken(format!("{table} {name} holds {size} bytes of ours, and says {message}"));
        }
    }
}

/// What stands under keys of ours.
fn ours(map: &Value) -> usize {
    let entries = map.as_object().into_iter().flatten().filter(|(key, _)| key.contains("kairos.io/"));
    entries.map(|(key, value)| key.len() + value.to_string().len()).sum()
}

//! Every entry that holds a slot has a reason.

use super::{
    super::{CLAIMED_BY, Object},
    *,
};

impl Past<'_> {
    /// A final entry that holds its slot says why, sooner or later.
    pub(super) fn reasons(&mut self, key: &(String, String), entry: &NodeStatus, now: &NodeOpStatus) {
        let claimed =
            self.nodes.get(&key.1).and_then(|node| owner(node, CLAIMED_BY)).as_ref() == Some(&key.0);
        if !entry.phase.is_final() || entry.node_uid.is_none() || !claimed {
            if let Some((since, told)) = self.odd.holds.remove(key)
                && !told
                && self.at > since + SILENT
                && self.scenario.is_calm()
                && !self.rivals()
            {
                self.broken(format!(
                    "{} held the slot of {} for {:?} and did not say why",
                    key.0,
                    key.1,
                    self.at - since
                ));
            }
            return;
        }
        let on_node = |pod: &&Object| text(pod, "/spec/nodeName") == key.1;
        let names: Vec<&str> =
            self.pods.values().filter(on_node).map(|pod| text(pod, "/metadata/name")).collect();
        let says = |message: &Option<String>| {
            let message = message.as_deref().unwrap_or_default();
            message.contains("given back")
                || message.contains(&format!("patching node {} keeps failing", key.1))
                || message.contains("waiting for")
                || names.iter().any(|name| message.contains(name))
        };
        let told = says(&entry.message) || says(&now.message);
        let held = self.odd.holds.entry(key.clone()).or_insert((self.at, false));
        held.1 |= told;
    }
}

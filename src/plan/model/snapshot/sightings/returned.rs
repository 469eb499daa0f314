//! Nodes that are back from the reboot that they owed, as a live read has shown: since when, so that what they
//! run may be read before anything is written of it.

use std::{collections::BTreeMap, mem};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::nodeop::Step,
    plan::model::{
        question::Question,
        snapshot::{NodeView, Snapshot},
    },
};

/// By the node's UID: the boot that a live read has shown, and when it was first known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Returned(BTreeMap<String, (String, Timestamp)>);

impl Returned {
    /// A node that was in another boot once the operation had succeeded has left the one in which it did,
    /// whatever is read later.
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let mut before = mem::take(&mut self.0);
        let awaited = snapshot.running().filter(|(_, _, entry)| entry.step == Some(Step::Reboot));
        for (_, name, entry) in awaited {
            let Some(node) = snapshot.nodes.get(name).filter(|node| node.ready) else { continue };
            let is_it = entry.node_uid.as_ref() == Some(&node.uid) && node.tells_its_boot();
            if !is_it || entry.boot.as_ref().is_none_or(|left| *left == node.boot_id) {
                continue;
            }
            let known = before.remove(&node.uid).filter(|(boot, _)| *boot == node.boot_id);
            let live = snapshot.answer(&Question::Node(name.clone())).is_some();
            if let Some(known) = known.or_else(|| live.then(|| (node.boot_id.clone(), snapshot.now))) {
                self.0.insert(node.uid.clone(), known);
            }
        }
    }
}

impl Snapshot {
    /// Since when we know that the node, whose reboot is awaited, is back and Ready in the boot in which it is,
    /// if we do.
    pub fn returned_since(&self, node: &NodeView) -> Option<Timestamp> {
        let (boot, since) = self.sightings.returned.0.get(&node.uid)?;
        (*boot == node.boot_id).then_some(*since)
    }
}

//! Nodes that went away, when we saw them go, and since when they are Ready again.
//!
//! One report of a kubelet is no recovery: the link of a node may flap, and each time the next node would be
//! taken. Another leader has seen none of it, and counts from when it began to lead.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::model::{
    snapshot::{NodeClass, NodeView, Snapshot},
    time::later,
};

/// The last time that a node was not Ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Absence {
    uid: String,
    /// When we saw it go; nothing of one that was away already when we began to lead.
    pub seen: Option<Timestamp>,
    /// When it went by the clock of the control plane.
    pub told: Option<Timestamp>,
    /// Since when we see it Ready again.
    pub back: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Away {
    /// Since when we lead, as of the last look.
    leading_since: Option<Timestamp>,
    /// By the node's name.
    absences: BTreeMap<String, Absence>,
}

impl Away {
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let now = snapshot.now;
        let is_first = self.leading_since.replace(snapshot.leading_since) != Some(snapshot.leading_since);
        if is_first {
            self.absences.clear();
        }
        // One that has gone again is noted anew.
        self.absences.retain(|name, absence| {
            let node = snapshot.nodes.get(name).filter(|node| node.uid == absence.uid);
            node.is_some_and(|node| node.ready || absence.back.is_none())
        });
        for (name, absence) in &mut self.absences {
            if snapshot.nodes.get(name).is_some_and(|node| node.ready) {
                absence.back.get_or_insert(now);
            }
        }
        for node in snapshot.nodes.that_are(NodeClass::NotReady) {
            if !self.absences.contains_key(&node.name) {
                let seen = (!is_first).then_some(now);
                let absence = Absence { uid: node.uid.clone(), seen, told: node.ready_changed, back: None };
                self.absences.insert(node.name.clone(), absence);
            }
        }
    }
}

impl Snapshot {
    /// The absence of a node that is away, or was the last time, as far as we saw it.
    pub fn absence(&self, node: &NodeView) -> Option<&Absence> {
        self.sightings.away.absences.get(&node.name).filter(|absence| absence.uid == node.uid)
    }

    /// When we saw that the node was not Ready any more, or had joined and was not; nothing if it is Ready,
    /// or was away already when we began to lead.
    pub fn went_away_at(&self, node: &NodeView) -> Option<Timestamp> {
        self.absence(node).filter(|absence| absence.back.is_none())?.seen
    }

    /// Since when a node has been Ready, as far as we saw it: a member of the control plane in its present
    /// boot, any other since it was away. At the latest since we lead, if it was Ready by then. Nothing for a
    /// node that is not Ready.
    pub fn ready_since(&self, node: &NodeView) -> Option<Timestamp> {
        let back = || self.absence(node)?.back;
        let seen = self.sightings.control_planes.ready_since(&node.name).or_else(back);
        node.ready.then(|| seen.map_or(self.leading_since, |since| since.max(self.leading_since)))
    }

    /// Whether the node is Ready, and may have been away until a moment before we began to lead. Nothing but
    /// that it stays so tells then.
    pub fn may_be_just_back(&self, node: &NodeView) -> bool {
        node.ready && !node.stays_ready && self.absence(node).is_none()
    }

    /// Nodes that were away, or may have been, and have not been Ready for this time since, and since when
    /// they are, as far as we saw it.
    pub fn back_lately(&self, wait: SignedDuration) -> impl Iterator<Item = (&NodeView, Timestamp)> {
        let seen = self.sightings.away.absences.iter().filter_map(move |(name, absence)| {
            let since = absence.back.filter(|since| self.now < later(*since, wait))?;
            Some((&**self.nodes.get(name)?, since))
        });
        let leads_lately = self.now < later(self.leading_since, wait);
        let unseen = self.nodes.values().map(AsRef::as_ref).filter(move |_| leads_lately);
        let unseen = unseen.filter(|node: &&NodeView| self.may_be_just_back(node));
        seen.chain(unseen.map(|node| (node, self.leading_since)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::fixtures::at;

    /// What is seen at that time of n1, `before` having been seen before.
    fn see(second: i64, before: &Snapshot, ready: bool, uid: &str) -> Snapshot {
        let n1 = NodeView { name: "n1".into(), uid: uid.into(), ready, ..NodeView::default() };
        let mut snapshot = Snapshot {
            now: at(second),
            leading_since: at(-100),
            nodes: [("n1".to_owned(), Arc::new(n1))].into(),
            ..Snapshot::default()
        };
        let mut sightings = (*before.sightings).clone();
        sightings.note(&snapshot);
        snapshot.sightings = Arc::new(sightings);
        snapshot
    }

    #[test]
    fn a_node_is_ready_since_it_came_back_and_under_another_leader_since_that_one_leads() {
        let since = |snapshot: &Snapshot| snapshot.ready_since(&snapshot.nodes["n1"]);
        let back_lately = |snapshot: &Snapshot| snapshot.back_lately(SignedDuration::from_secs(60)).count();
        let ready = see(0, &Snapshot::default(), true, "u1");
        assert_eq!(since(&ready), Some(at(-100)), "it was so before we looked: since we lead");
        let away = see(10, &ready, false, "u1");
        assert_eq!((since(&away), back_lately(&away)), (None, 0));
        let back = see(20, &away, true, "u1");
        let still = see(50, &back, true, "u1");
        assert_eq!([&back, &still].map(since), [Some(at(20)); 2]);
        assert_eq!([&back, &still, &see(80, &still, true, "u1")].map(back_lately), [1, 1, 0]);
        let flaps = see(60, &still, false, "u1");
        assert_eq!(flaps.went_away_at(&flaps.nodes["n1"]), Some(at(60)));
        let flaps = see(70, &flaps, true, "u1");
        assert_eq!((since(&flaps), flaps.went_away_at(&flaps.nodes["n1"])), (Some(at(70)), None));
        let late = Snapshot { leading_since: at(80), ..flaps.clone() };
        assert_eq!(since(&late), Some(at(80)), "what was seen in an earlier term may have missed a change");
        let other = see(90, &flaps, true, "u2");
        assert_eq!(since(&other), Some(at(-100)), "nothing is kept of a node that is gone");
        // The leader before had seen it come back a moment before its end.
        let taken_over = Snapshot { leading_since: at(0), ..ready.clone() };
        assert_eq!((back_lately(&taken_over), since(&taken_over)), (1, Some(at(0))));
        assert_eq!(back_lately(&Snapshot { now: at(60), ..taken_over.clone() }), 0);
        let n1 = NodeView { stays_ready: true, ..(*taken_over.nodes["n1"]).clone() };
        let nodes = [("n1".to_owned(), Arc::new(n1))].into();
        assert_eq!(back_lately(&Snapshot { nodes, ..taken_over }), 0, "its kubelet says that it was not");
        assert!(other.sightings.away.absences.is_empty());
    }
}

//! Nodes that went away, when we saw them go, and since when they are Ready again.
//!
//! One report of a kubelet is no recovery: the link of a node may flap, and each time the next node would be
//! taken. Another leader has seen none of it, and counts from when it began to lead.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::node_statuses::Names,
    plan::model::{
        snapshot::{NodeClass, NodeTable, NodeView, Snapshot},
        time::later,
    },
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
    /// By the node's name: a node that was ever rebooted stays here. Of one that was made again under its
    /// name it may be that of the one before: whoever looks compares the UIDs.
    absences: BTreeMap<String, Absence>,
    /// The names of those that are not back. They are few, and looked at in each plan.
    not_back: BTreeSet<String>,
    /// The names of nodes, as of the last look.
    names: Arc<()>,
}

impl Away {
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let (now, nodes) = (snapshot.now, &snapshot.nodes);
        let is_first = self.leading_since.replace(snapshot.leading_since) != Some(snapshot.leading_since);
        if is_first {
            self.absences.clear();
            self.not_back.clear();
        }
        let Self { absences, not_back, names, .. } = self;
        if !Arc::ptr_eq(names, nodes.token()) {
            names.clone_from(nodes.token());
            absences.retain(|name, absence| absence.node(name, nodes).is_some());
        }
        not_back.retain(|name| {
            let Some(absence) = absences.get_mut(name) else { return false };
            let Some(node) = absence.node(name, nodes) else {
                absences.remove(name);
                return false;
            };
            absence.back = node.ready.then_some(now);
            !node.ready
        });
        for node in nodes.that_are(NodeClass::NotReady) {
            // One that has gone again is noted anew.
            if !not_back.contains(&node.name) {
                let seen = (!is_first).then_some(now);
                let absence = Absence { uid: node.uid.clone(), seen, told: node.ready_changed, back: None };
                absences.insert(node.name.clone(), absence);
                not_back.insert(node.name.clone());
            }
        }
    }
}

impl Absence {
    /// The node that was away, if it is there.
    fn node<'a>(&self, name: &str, nodes: &'a NodeTable) -> Option<&'a NodeView> {
        nodes.get(name).map(AsRef::as_ref).filter(|node| node.uid == self.uid)
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
            Some((absence.node(name, &self.nodes)?, since))
        });
        let leads_lately = self.now < later(self.leading_since, wait);
        let unseen = self.nodes.values().map(AsRef::as_ref).filter(move |_| leads_lately);
        let unseen = unseen.filter(|node: &&NodeView| self.may_be_just_back(node));
        seen.chain(unseen.map(|node| (node, self.leading_since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{fixtures::at, model::snapshot::Shows};

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

    /// What is noted where all that was ever away is looked at, in each plan.
    #[derive(Default)]
    struct LooksAtAll {
        leading_since: Option<Timestamp>,
        absences: BTreeMap<String, Absence>,
    }

    impl LooksAtAll {
        fn note(&mut self, snapshot: &Snapshot) {
            let is_first = self.leading_since.replace(snapshot.leading_since) != Some(snapshot.leading_since);
            if is_first {
                self.absences.clear();
            }
            self.absences.retain(|name, absence| {
                let node = absence.node(name, &snapshot.nodes);
                node.is_some_and(|node| node.ready || absence.back.is_none())
            });
            for (name, absence) in &mut self.absences {
                if snapshot.nodes[name].ready {
                    absence.back.get_or_insert(snapshot.now);
                }
            }
            for node in snapshot.nodes.values().filter(|node| !node.ready) {
                let (uid, told) = (node.uid.clone(), node.ready_changed);
                let seen = (!is_first).then_some(snapshot.now);
                let absence = Absence { uid, seen, told, back: None };
                self.absences.entry(node.name.clone()).or_insert(absence);
            }
        }
    }

    #[test]
    fn to_look_at_what_is_away_is_as_good_as_to_look_at_all_that_was() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut looks_at_all, mut away) = (LooksAtAll::default(), Away::default());
        let (mut nodes, mut leading_since, mut nodes_made) = (NodeTable::default(), at(0), 0);
        let (mut seen_away, mut seen_back) = (0, 0);
        for second in 0..5_000 {
            for _ in 0..rng.usize(..4) {
                let name = format!("n{}", rng.u8(..6));
                let before = nodes.get(&name).filter(|_| rng.u8(..8) > 0);
                nodes_made += usize::from(before.is_none());
                let uid = before.map_or_else(|| nodes_made.to_string(), |node| node.uid.clone());
                let ready_changed = rng.bool().then(|| at(second));
                let node = NodeView {
                    name: name.clone(),
                    uid,
                    ready: rng.bool(),
                    ready_changed,
                    ..NodeView::default()
                };
                nodes.show(name, (rng.u8(..8) > 0).then(|| Arc::new(node)));
            }
            if rng.u8(..100) == 0 {
                leading_since = at(second);
            }
            let mut snapshot =
                Snapshot { now: at(second), leading_since, nodes: nodes.clone(), ..Snapshot::default() };
            looks_at_all.note(&snapshot);
            away.note(&snapshot);
            let open = away.absences.iter().filter(|(_, absence)| absence.back.is_none());
            assert!(open.map(|(name, _)| name).eq(&away.not_back), "{away:?}");
            Arc::make_mut(&mut snapshot.sightings).away = away.clone();
            for (name, node) in &nodes {
                assert_eq!(snapshot.absence(node), looks_at_all.absences.get(name), "{second}: {name}");
                seen_away += usize::from(snapshot.went_away_at(node).is_some());
            }
            let wait = SignedDuration::from_secs(5);
            let back: BTreeSet<_> =
                snapshot.back_lately(wait).map(|(node, since)| (&*node.name, since)).collect();
            let expected = looks_at_all.absences.iter().filter_map(|(name, absence)| {
                Some((&**name, absence.back.filter(|since| snapshot.now < later(*since, wait))?))
            });
            let leads_lately = snapshot.now < later(leading_since, wait);
            let unseen = nodes.values().filter(|node| leads_lately && snapshot.may_be_just_back(node));
            let expected: BTreeSet<_> =
                expected.chain(unseen.map(|node| (&*node.name, leading_since))).collect();
            assert_eq!(back, expected, "{second}");
            seen_back += back.len();
        }
        assert!(seen_away > 1_000 && seen_back > 1_000, "{seen_away} {seen_back}");
    }
}

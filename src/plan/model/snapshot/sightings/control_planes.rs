//! Which nodes are members of the control plane, and since when each has been Ready.
//!
//! A label says so, but a Node object is not the machine: cloud controllers delete the object of a machine
//! that is away, and its kubelet makes another one, to which the labels come a moment later or never. Etcd
//! counts the machine as a member all the while. So a member is remembered by its name until somebody takes
//! the label off the same object, until another machine has the name, or until the object, or a kubelet's
//! report to the next one, has been gone for [`RETURNS_WITHIN`].

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::model::{
    snapshot::{NodeClass, NodeTable, NodeView, Snapshot},
    time::later,
};

/// How long a member whose Node object is gone is waited for. One that was removed permanently has left etcd
/// by then, and one that reboots is back.
pub const RETURNS_WITHIN: SignedDuration = SignedDuration::from_secs(300);

/// The members that were seen; nothing before the first look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ControlPlanes(Option<BTreeMap<String, ControlPlane>>);

/// A member as it was seen last.
#[derive(Clone, Debug, PartialEq)]
struct ControlPlane {
    /// The UID of the last Node object of this name that had the label.
    labelled: String,
    /// Of what its kubelet has reported last.
    machine_id: Option<String>,
    uid: String,
    boot_id: String,
    ready: bool,
    /// When it was seen to turn Ready in this boot; nothing if it was Ready at the first look of all.
    since: Option<Timestamp>,
    /// When its Node object was seen to be gone; kept while nobody knows of the next one whose it is.
    gone: Option<Timestamp>,
}

impl ControlPlanes {
    pub(super) fn note(&mut self, nodes: &NodeTable, now: Timestamp) {
        let first = self.0.is_none();
        let known = self.0.get_or_insert_default();
        known.retain(|name, member| match nodes.get(name).map(|node| (node, member.is_in(node))) {
            Some((_, Some(is_control_plane))) => is_control_plane,
            Some((_, None)) | None => now < later(*member.gone.get_or_insert(now), RETURNS_WITHIN),
        });
        for (name, member) in known.iter_mut() {
            if let Some(node) = nodes.get(name) {
                member.note(node, now);
            }
        }
        for node in nodes.that_are(NodeClass::ControlPlane) {
            // One that appears later may have booted a moment ago.
            let since = Some(now).filter(|_| node.ready && !first);
            known.entry(node.name.clone()).or_insert_with(|| ControlPlane::new(node, since));
        }
    }

    fn get(&self, name: &str) -> Option<&ControlPlane> {
        self.0.as_ref()?.get(name)
    }

    /// When a member was seen to turn Ready in its present boot.
    pub(super) fn ready_since(&self, name: &str) -> Option<Timestamp> {
        self.get(name)?.since
    }

    fn iter(&self) -> impl Iterator<Item = (&String, &ControlPlane)> {
        self.0.iter().flatten()
    }
}

impl ControlPlane {
    fn new(node: &NodeView, since: Option<Timestamp>) -> Self {
        Self {
            labelled: node.uid.clone(),
            machine_id: node.machine_id.clone(),
            uid: node.uid.clone(),
            boot_id: node.boot_id.clone(),
            ready: node.ready,
            since,
            gone: None,
        }
    }

    /// Whether this Node object is the member's: it has the label, or is another one of the same machine,
    /// whose label comes later. Nobody knows that before its kubelet has reported to it.
    fn is_in(&self, node: &NodeView) -> Option<bool> {
        if node.has_control_plane_label() || node.uid == self.labelled {
            return Some(node.has_control_plane_label());
        }
        node.machine_id.as_ref().map(|id| Some(id) == self.machine_id.as_ref())
    }

    fn note(&mut self, node: &NodeView, now: Timestamp) {
        self.gone = self.gone.filter(|_| self.is_in(node).is_none());
        if node.has_control_plane_label() && self.labelled != node.uid {
            self.labelled.clone_from(&node.uid);
        }
        if self.ready == node.ready && self.boot_id == node.boot_id && self.uid == node.uid {
            return;
        }
        // A node that reboots fast is never seen to be away: another boot is another time of being Ready.
        let labelled = std::mem::take(&mut self.labelled);
        let machine_id = node.machine_id.clone().or_else(|| self.machine_id.take());
        let since = Some(now).filter(|_| node.ready);
        *self = Self { labelled, machine_id, gone: self.gone, ..Self::new(node, since) };
    }
}

impl Snapshot {
    /// Whether the node is a member of the control plane: its labels say so, or those of the Node object did
    /// that had its name before.
    pub fn is_control_plane(&self, node: &NodeView) -> bool {
        node.has_control_plane_label() || self.sightings.control_planes.get(&node.name).is_some()
    }

    /// Whether there is a node of this name, and it is a member of the control plane.
    pub fn is_control_plane_named(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| self.is_control_plane(node))
    }

    /// The members of the control plane that have a Node object.
    pub fn control_planes(&self) -> impl Iterator<Item = &NodeView> {
        let known = self.sightings.control_planes.iter().filter_map(|(name, _)| self.nodes.get(name));
        let made_again = known.filter(|node| !node.has_control_plane_label());
        self.nodes.that_are(NodeClass::ControlPlane).chain(made_again).map(AsRef::as_ref)
    }

    /// The members of the control plane whose Node object is gone, and since when we have seen that.
    pub fn control_planes_gone(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let known = self.sightings.control_planes.iter();
        let gone = known.filter(|(name, _)| !self.nodes.contains_key(*name));
        gone.map(|(name, member)| (name.as_str(), member.gone.unwrap_or(self.now)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::world, *};
    use crate::{api::names, plan::fixtures::at};

    /// The member n1.
    fn n1() -> NodeView {
        NodeView {
            name: "n1".into(),
            uid: "u1".into(),
            labels: [(names::CONTROL_PLANE_LABELS[0].to_owned(), String::new())].into(),
            boot_id: "b1".into(),
            machine_id: Some("m1".into()),
            ready: true,
            ..NodeView::default()
        }
    }

    /// What is seen at that time, `before` having been seen before.
    fn see(second: i64, before: &Snapshot, node: Option<&NodeView>) -> Snapshot {
        world(second, before, vec![], node.into_iter().cloned().collect())
    }

    fn since(snapshot: &Snapshot) -> Option<Timestamp> {
        snapshot.ready_since(&snapshot.nodes["n1"])
    }

    #[test]
    fn a_member_is_ready_since_we_saw_it_turn_so_in_its_present_boot() {
        let n1_in = |ready: bool, boot: &str| NodeView { ready, boot_id: boot.into(), ..n1() };
        let first = see(0, &Snapshot::default(), Some(&n1_in(true, "b1")));
        assert_eq!(since(&first), Some(at(-100)), "it was so before we looked: since we lead");
        let away = see(10, &first, Some(&n1_in(false, "b1")));
        assert_eq!((since(&away), away.went_away_at(&away.nodes["n1"])), (None, Some(at(10))));
        let back = see(20, &away, Some(&n1_in(true, "b1")));
        assert_eq!(since(&see(25, &back, Some(&n1_in(true, "b1")))), Some(at(20)));
        let fast = see(30, &back, Some(&n1_in(true, "b2")));
        assert_eq!(since(&fast), Some(at(30)), "a reboot that nobody saw it away for");
        let late = Snapshot { leading_since: at(40), ..fast };
        assert_eq!(since(&late), Some(at(40)), "what was seen in an earlier term may have missed a change");
    }

    #[test]
    fn a_member_that_appears_later_is_ready_since_then() {
        let nobody = see(0, &Snapshot::default(), None);
        assert_eq!(since(&see(10, &nobody, Some(&n1()))), Some(at(10)));
    }

    #[test]
    fn a_member_stays_one_when_its_node_object_is_made_again() {
        let first = see(0, &Snapshot::default(), Some(&n1()));
        let gone = see(10, &first, None);
        assert_eq!(gone.control_planes_gone().collect::<Vec<_>>(), [("n1", at(10))]);
        let gone = see(20, &gone, None);
        assert_eq!(
            gone.control_planes_gone().collect::<Vec<_>>(),
            [("n1", at(10))],
            "it counts from the first time"
        );
        let again = NodeView { uid: "u2".into(), boot_id: "b2".into(), ..n1() };
        let bare = NodeView { labels: <_>::default(), ..again.clone() };
        let made = see(30, &gone, Some(&bare));
        assert!(made.is_control_plane(&bare), "its labels come later");
        assert_eq!(made.control_planes().map(|node| &*node.name).collect::<Vec<_>>(), ["n1"]);
        assert_eq!((since(&made), made.control_planes_gone().count()), (Some(at(30)), 0));
        let labelled = see(40, &made, Some(&again));
        assert_eq!((since(&labelled), labelled.control_planes().count()), (Some(at(30)), 1));
        let other = NodeView { machine_id: Some("another".into()), ..bare.clone() };
        assert!(!see(35, &made, Some(&other)).is_control_plane(&other), "another machine has its name");
        // Somebody takes the label off: it is a worker from then on.
        assert_eq!(see(50, &labelled, Some(&bare)).control_planes().count(), 0);
        assert!(!see(50, &labelled, Some(&bare)).is_control_plane(&bare));
    }

    /// Nodes that are kept in Git are made again by whoever applies them.
    #[test]
    fn a_member_stays_one_until_the_kubelet_reports_to_the_object_that_somebody_else_made_again() {
        let first = see(0, &Snapshot::default(), Some(&n1()));
        let (nothing, none) = (String::new(), <_>::default());
        let bare = NodeView {
            uid: "u2".into(),
            boot_id: nothing,
            machine_id: None,
            ready: false,
            labels: none,
            ..n1()
        };
        let made = see(10, &first, Some(&bare));
        assert!(
            made.is_control_plane(&bare) && made.control_planes().count() == 1,
            "nobody knows whose it is"
        );
        let waits = see(309, &see(20, &made, Some(&bare)), Some(&bare));
        assert!(waits.is_control_plane(&bare));
        assert!(!see(310, &waits, Some(&bare)).is_control_plane(&bare), "not for ever");
        let reported = |machine: &str| NodeView {
            machine_id: Some(machine.into()),
            boot_id: "b2".into(),
            ..bare.clone()
        };
        let back = see(300, &waits, Some(&reported("m1")));
        assert!(back.is_control_plane(&reported("m1")));
        assert!(see(5_000, &back, Some(&reported("m1"))).is_control_plane(&reported("m1")));
        assert!(
            !see(300, &waits, Some(&reported("m2"))).is_control_plane(&reported("m2")),
            "another machine"
        );
    }

    #[test]
    fn a_member_whose_node_object_stays_away_is_forgotten() {
        let first = see(0, &Snapshot::default(), Some(&n1()));
        let gone = see(10, &first, None);
        assert_eq!(see(309, &gone, None).control_planes_gone().count(), 1);
        assert_eq!(see(310, &gone, None).control_planes_gone().count(), 0);
    }
}

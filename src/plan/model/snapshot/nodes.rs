//! All nodes by name. Decisions are about few of them: most are workers, Ready, nobody's, and their facts are
//! known. So those of which that is not true are known by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock},
};

use super::{NodeView, Shows};
use crate::api::node_statuses::Names;

/// Something that is true of few nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeClass {
    ControlPlane,
    /// Not Ready.
    NotReady,
    /// Claimed or cordoned by an operation, left cordoned by one, or with what one told autoscalers or
    /// had it say in its conditions.
    Marked,
    /// Not Ready, being deleted, claimed, or on hold: not to be taken just so.
    Unavailable,
    /// Somebody holds it out of all operations.
    OnHold,
    /// What it runs in this boot is not known and can be read, and nobody wants it left alone.
    ToBeRead,
    /// It is not Ready, or its kubelet tells no boot: what it runs cannot be read yet.
    Joining,
}

impl NodeClass {
    const ALL: [Self; 7] = [
        Self::ControlPlane,
        Self::NotReady,
        Self::Marked,
        Self::Unavailable,
        Self::OnHold,
        Self::ToBeRead,
        Self::Joining,
    ];

    fn is_true_of(self, node: &NodeView) -> bool {
        match self {
            Self::ControlPlane => node.has_control_plane_label(),
            Self::NotReady => !node.ready,
            Self::Marked => {
                node.claimed_by.is_some()
                    || node.cordoned_by.is_some()
                    || node.kept_cordon.is_some()
                    || node.hints.is_some()
                    || node.lifecycle.values().any(Option::is_some)
            }
            Self::Unavailable => !node.is_available(),
            Self::OnHold => node.labels.on_hold(),
            Self::ToBeRead => {
                let can_be_read = node.ready && !node.deleting && node.is_linux() && node.tells_its_boot();
                can_be_read && !node.is_left_alone() && !node.says_its_facts()
            }
            Self::Joining => !node.ready || !node.tells_its_boot(),
        }
    }
}

type Releases = BTreeMap<String, BTreeSet<String>>;
type Views = BTreeMap<String, Arc<NodeView>>;
type Known = [Views; NodeClass::ALL.len()];

/// All nodes.
#[derive(Clone, Debug, Default)]
pub struct NodeTable(Arc<Nodes>);

#[derive(Clone, Debug, Default)]
struct Nodes {
    views: Views,
    /// Another one whenever a name has come or gone.
    names: Arc<()>,
    /// Found when they are asked for, and then brought up to date by what is shown.
    classes: OnceLock<Known>,
    /// The nodes of Kairos by the release that they are known to run. Found and brought up to date as
    /// `classes`.
    releases: OnceLock<Releases>,
    /// How many nodes there are of each architecture, as they say it. Found and brought up to date as
    /// `classes`.
    archs: OnceLock<BTreeMap<String, usize>>,
    /// How often nodes name a NodeOp of each namespace that has something of theirs to give back. Found and
    /// brought up to date as `classes`.
    claimants: OnceLock<BTreeMap<String, usize>>,
}

impl Nodes {
    fn releases(&self) -> &Releases {
        self.releases.get_or_init(|| {
            let mut releases = Releases::new();
            for (name, node) in &self.views {
                if let Some(release) = node.release() {
                    releases.entry(release.clone()).or_default().insert(name.clone());
                }
            }
            releases
        })
    }

    fn archs(&self) -> &BTreeMap<String, usize> {
        self.archs.get_or_init(|| {
            let mut archs = BTreeMap::new();
            self.views.values().for_each(|node| *archs.entry(node.arch.clone()).or_default() += 1);
            archs
        })
    }

    fn claimants(&self) -> &BTreeMap<String, usize> {
        self.claimants.get_or_init(|| {
            let mut claimants = BTreeMap::new();
            self.views.values().for_each(|node| count_claimants(&mut claimants, node));
            claimants
        })
    }

    fn classes(&self) -> &Known {
        self.classes.get_or_init(|| {
            NodeClass::ALL.map(|class| {
                let found = self.views.iter().filter(|(_, node)| class.is_true_of(node));
                found.map(|(name, node)| (name.clone(), node.clone())).collect()
            })
        })
    }
}

/// One fewer; what there is none of is not kept.
fn uncount(counts: &mut BTreeMap<String, usize>, of: &str) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

fn count_claimants(claimants: &mut BTreeMap<String, usize>, node: &NodeView) {
    node.marked_by().for_each(|of| *claimants.entry(of.namespace.clone()).or_default() += 1);
}

impl NodeTable {
    /// The nodes of which this is true, by name.
    pub fn by_name(&self, class: NodeClass) -> &BTreeMap<String, Arc<NodeView>> {
        static NONE: Views = Views::new();
        self.0.classes().get(class as usize).unwrap_or(&NONE)
    }

    /// The namespaces of the NodeOps that have something of a node to give back.
    pub fn claimant_namespaces(&self) -> impl Iterator<Item = &String> {
        self.0.claimants().keys()
    }

    /// Whether the machine id tells the machine of this node from all others: those that were installed from
    /// one disk image may share it.
    pub fn has_own_machine_id(&self, node: &NodeView) -> bool {
        let id = &node.machine_id;
        id.is_some() && !self.values().any(|other| other.machine_id == *id && other.name != node.name)
    }

    /// The names of the nodes that are known to run another release than this one.
    pub fn running_another<'a>(&'a self, release: &'a str) -> impl Iterator<Item = &'a String> {
        let others = self.0.releases().iter().filter(move |(runs, _)| *runs != release);
        others.flat_map(|(_, names)| names)
    }

    /// The architectures of all nodes. One that says none is of an architecture without a name.
    pub fn archs(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.archs().keys()
    }

    /// The nodes of which this is true, in the order of their names.
    pub fn that_are(&self, class: NodeClass) -> impl Iterator<Item = &Arc<NodeView>> {
        self.by_name(class).values()
    }
}

impl Deref for NodeTable {
    type Target = BTreeMap<String, Arc<NodeView>>;

    fn deref(&self) -> &Self::Target {
        &self.0.views
    }
}

/// Whatever is changed so, all of it is looked at anew.
impl DerefMut for NodeTable {
    fn deref_mut(&mut self) -> &mut Self::Target {
        let nodes = Arc::make_mut(&mut self.0);
        nodes.names = Arc::default();
        nodes.classes.take();
        nodes.releases.take();
        nodes.archs.take();
        nodes.claimants.take();
        &mut nodes.views
    }
}

impl Shows<String, NodeView> for NodeTable {
    fn show(&mut self, name: String, view: Option<Arc<NodeView>>) {
        let nodes = Arc::make_mut(&mut self.0);
        if let Some(known) = nodes.classes.get_mut() {
            for (known, class) in known.iter_mut().zip(NodeClass::ALL) {
                match view.as_ref().filter(|view| class.is_true_of(view)) {
                    Some(view) => drop(known.insert(name.clone(), view.clone())),
                    None => drop(known.remove(&name)),
                }
            }
        }
        if let Some(claimants) = nodes.claimants.get_mut() {
            if let Some(now) = &view {
                count_claimants(claimants, now);
            }
            let before = nodes.views.get(&name);
            before
                .iter()
                .flat_map(|before| before.marked_by())
                .for_each(|of| uncount(claimants, &of.namespace));
        }
        if let Some(releases) = nodes.releases.get_mut() {
            let before = nodes.views.get(&name).and_then(|view| view.release());
            let now = view.as_ref().and_then(|view| view.release());
            if before != now {
                if let Some(same) = before.and_then(|release| releases.get_mut(release)) {
                    same.remove(&name);
                }
                if let Some(release) = now {
                    releases.entry(release.clone()).or_default().insert(name.clone());
                }
                releases.retain(|_, names| !names.is_empty());
            }
        }
        let now = view.as_ref().map(|view| view.arch.clone());
        let before = match view {
            Some(view) => nodes.views.insert(name, view),
            None => nodes.views.remove(&name),
        };
        if now.is_some() != before.is_some() {
            nodes.names = Arc::default();
        }
        let before = before.map(|view| view.arch.clone());
        if let Some(archs) = nodes.archs.get_mut().filter(|_| before != now) {
            if let Some(now) = now {
                *archs.entry(now).or_default() += 1;
            }
            if let Some(before) = &before {
                uncount(archs, before);
            }
        }
    }
}

impl Names for NodeTable {
    fn has(&self, name: &str) -> bool {
        self.0.views.contains_key(name)
    }

    fn token(&self) -> &Arc<()> {
        &self.0.names
    }
}

impl FromIterator<(String, Arc<NodeView>)> for NodeTable {
    fn from_iter<I: IntoIterator<Item = (String, Arc<NodeView>)>>(views: I) -> Self {
        BTreeMap::from_iter(views).into()
    }
}

impl<const N: usize> From<[(String, Arc<NodeView>); N]> for NodeTable {
    fn from(views: [(String, Arc<NodeView>); N]) -> Self {
        views.into_iter().collect()
    }
}

impl From<BTreeMap<String, Arc<NodeView>>> for NodeTable {
    fn from(views: BTreeMap<String, Arc<NodeView>>) -> Self {
        Self(Arc::new(Nodes { views, ..Nodes::default() }))
    }
}

impl<'a> IntoIterator for &'a NodeTable {
    type Item = (&'a String, &'a Arc<NodeView>);
    type IntoIter = std::collections::btree_map::Iter<'a, String, Arc<NodeView>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.views.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::names, plan::model::id::OpRef};

    fn node(rng: &mut fastrand::Rng) -> NodeView {
        let namespace = rng.choice(["ns", "team-a", "team-b"]).unwrap();
        let of = |here: bool| {
            here.then(|| OpRef { namespace: namespace.into(), name: "op".into(), uid: "u".into() })
        };
        let role = ("node-role.kubernetes.io/control-plane".to_owned(), String::new());
        let read = (names::FACTS_OF.to_owned(), crate::plan::model::snapshot::facts_of("b", |_| None));
        let kairos = (names::BOOT_STATE_OF.to_owned(), "active".to_owned());
        let release = (names::RELEASE.to_owned(), format!("v{}", rng.u8(..3)));
        let managed = (names::MANAGED.to_owned(), "true".to_owned());
        let hold = (names::HOLD.to_owned(), rng.choice(["true", "", "false"]).unwrap().to_owned());
        NodeView {
            labels: [role, hold].into_iter().filter(|_| rng.bool()).chain([managed]).collect(),
            annotations: [read].into_iter().filter(|_| rng.bool()).chain([kairos, release]).collect(),
            boot_id: "b".into(),
            arch: rng.choice(["", "amd64", "arm64"]).unwrap().into(),
            ready: rng.bool(),
            deleting: rng.bool(),
            claimed_by: of(rng.bool()),
            cordoned_by: of(rng.bool()),
            ..NodeView::default()
        }
    }

    #[test]
    fn what_is_kept_up_to_date_is_what_is_found_anew() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut table = NodeTable::default();
        for _ in 0..500 {
            let view = (rng.u8(..4) > 0).then(|| Arc::new(node(&mut rng)));
            let before = table.clone();
            table.show(format!("n{}", rng.u8(..20)), view);
            let same = before.keys().eq(table.keys());
            assert_eq!(Arc::ptr_eq(before.token(), table.token()), same, "a name has come or gone");
            let anew: NodeTable = (*table).clone().into();
            let running = |table: &NodeTable| {
                let others: Vec<String> = table.running_another("v0").cloned().collect();
                (others, table.0.releases.get().cloned())
            };
            assert_eq!(running(&table), running(&anew));
            assert!(table.archs().eq(anew.archs()));
            assert_eq!(table.0.archs.get(), anew.0.archs.get());
            assert!(table.claimant_namespaces().eq(anew.claimant_namespaces()));
            assert_eq!(table.0.claimants.get(), anew.0.claimants.get());
            let another = |view: &&Arc<NodeView>| view.release().is_some_and(|runs| runs != "v0");
            assert_eq!(running(&table).0.len(), table.values().filter(another).count());
            for class in NodeClass::ALL {
                assert_eq!(table.by_name(class), anew.by_name(class), "{class:?}");
                assert!(table.that_are(class).eq(table.values().filter(|view| class.is_true_of(view))));
            }
        }
    }
}

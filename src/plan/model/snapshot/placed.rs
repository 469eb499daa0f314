//! Views that are found by more than their names: those of Jobs and pods.

use std::{borrow::Borrow, collections::BTreeMap, ops::Index, sync::Arc};

use super::Shows;
use crate::plan::model::{
    id::Key,
    snapshot::{JobState, JobView, PodPhase, PodView, Role},
};

/// Something that is on a node, and belongs to somebody.
pub trait Placed {
    /// Its namespace and name.
    fn key(&self) -> (&str, &str);
    fn node(&self) -> &str;
    /// The UID of its controller.
    fn owner(&self) -> &str;
    /// Whether it may still do something, or something has to be done about it. Most have succeeded, and are
    /// looked at for their node alone.
    fn is_open(&self) -> bool;
    /// Which content it runs, if it runs one that is compared.
    fn content(&self) -> Option<Content>;
}

/// The name of a container, and the content that it runs, as the kubelet names it.
pub type Content = (String, String);

impl Placed for PodView {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn node(&self) -> &str {
        &self.node
    }

    fn owner(&self) -> &str {
        &self.owner.uid
    }

    /// A preflight is deleted by us.
    fn is_open(&self) -> bool {
        self.phase != PodPhase::Succeeded || self.role == Role::Preflight
    }

    fn content(&self) -> Option<Content> {
        let container = self.operates().filter(|container| !container.image_id.is_empty())?;
        Some((container.name.clone(), container.image_id.clone()))
    }
}

impl Placed for JobView {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn node(&self) -> &str {
        &self.node
    }

    fn owner(&self) -> &str {
        &self.owner.uid
    }

    fn is_open(&self) -> bool {
        self.state != JobState::Complete
    }

    fn content(&self) -> Option<Content> {
        None
    }
}

/// Views by namespace and name, which are also found by their node and by their owner: most are of nodes that
/// are finished, and a decision is about one node.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedTable<V>(Arc<Indexed<V>>);

#[derive(Debug, PartialEq)]
struct Indexed<V> {
    views: BTreeMap<Key, Arc<V>>,
    on_node: Found<V>,
    of_owner: Found<V>,
    /// Those that are open, by their owner.
    open: Found<V>,
    /// Those that run a content, by that: thousands run one and the same.
    running: Found<V, Content>,
    /// Another one after each change.
    token: Arc<()>,
}

/// Views by something that they say, in the order of their keys. Lists: most are of one or two, and a map of
/// one takes more memory than what is in it.
type Found<V, K = String> = BTreeMap<K, Vec<Arc<V>>>;

impl<V> Clone for Indexed<V> {
    fn clone(&self) -> Self {
        let Self { views, on_node, of_owner, open, running, token } = self;
        Self {
            views: views.clone(),
            on_node: on_node.clone(),
            of_owner: of_owner.clone(),
            open: open.clone(),
            running: running.clone(),
            token: token.clone(),
        }
    }
}

impl<V> Default for Indexed<V> {
    fn default() -> Self {
        let (views, running, token) = (BTreeMap::new(), BTreeMap::new(), Arc::default());
        let (on_node, of_owner, open) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { views, on_node, of_owner, open, running, token }
    }
}

impl<V> Default for PlacedTable<V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<V: Placed> PlacedTable<V> {
    pub fn get(&self, key: &Key) -> Option<&Arc<V>> {
        self.0.views.get(key)
    }

    pub fn contains_key(&self, key: &Key) -> bool {
        self.0.views.contains_key(key)
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.0.views.values()
    }

    /// All of them, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<V>)> {
        self.0.views.iter()
    }

    /// Where it is the same one, nothing has changed.
    pub fn token(&self) -> &Arc<()> {
        &self.0.token
    }

    /// Those on a node.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<V>> {
        self.0.on_node.get(node).into_iter().flatten()
    }

    /// Those whose controller has this UID.
    pub fn of_owner(&self, uid: &str) -> impl Iterator<Item = &Arc<V>> {
        self.0.of_owner.get(uid).into_iter().flatten()
    }

    /// Those that are open.
    pub fn open(&self) -> impl Iterator<Item = &Arc<V>> {
        self.0.open.values().flatten()
    }

    /// The open views whose controller has this UID.
    pub fn open_of_owner(&self, uid: &str) -> impl Iterator<Item = &Arc<V>> {
        self.0.open.get(uid).into_iter().flatten()
    }

    /// Those that run a content, by that.
    pub fn running(&self) -> impl Iterator<Item = (&Content, impl Iterator<Item = &Arc<V>>)> {
        self.0.running.iter().map(|(content, views)| (content, views.iter()))
    }

    pub fn insert(&mut self, key: Key, view: Arc<V>) {
        self.remove(&key);
        let indexed = Arc::make_mut(&mut self.0);
        find(&mut indexed.on_node, view.node().to_owned(), &view);
        find(&mut indexed.of_owner, view.owner().to_owned(), &view);
        if view.is_open() {
            find(&mut indexed.open, view.owner().to_owned(), &view);
        }
        if let Some(content) = view.content() {
            find(&mut indexed.running, content, &view);
        }
        indexed.views.insert(key, view);
        indexed.token = Arc::default();
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<V>> {
        if !self.contains_key(key) {
            return None;
        }
        let indexed = Arc::make_mut(&mut self.0);
        let view = indexed.views.remove(key)?;
        forget(&mut indexed.on_node, view.node(), &view);
        forget(&mut indexed.of_owner, view.owner(), &view);
        forget(&mut indexed.open, view.owner(), &view);
        if let Some(content) = view.content() {
            forget(&mut indexed.running, &content, &view);
        }
        indexed.token = Arc::default();
        Some(view)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps those of which it holds.
    pub fn retain(&mut self, keep: impl Fn(&Key, &V) -> bool) {
        let gone: Vec<Key> =
            self.iter().filter(|(key, view)| !keep(key, view)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.remove(key)));
    }
}

impl<V: Placed> Shows<Key, V> for PlacedTable<V> {
    fn show(&mut self, key: Key, view: Option<Arc<V>>) {
        match view {
            Some(view) => self.insert(key, view),
            None => drop(self.remove(&key)),
        }
    }
}

fn find<V: Placed, K: Ord>(index: &mut Found<V, K>, by: K, view: &Arc<V>) {
    let views = index.entry(by).or_default();
    let at = views.partition_point(|other| other.key() < view.key());
    views.insert(at, view.clone());
}

fn forget<V: Placed, K, Q>(index: &mut Found<V, K>, by: &Q, view: &Arc<V>)
where
    K: Ord + Borrow<Q>,
    Q: Ord + ?Sized,
{
    let Some(views) = index.get_mut(by) else { return };
    let from = views.partition_point(|other| other.key() < view.key());
    if let Some(at) = views.iter().skip(from).position(|other| Arc::ptr_eq(other, view)) {
        views.remove(from + at);
    }
    if views.is_empty() {
        index.remove(by);
    }
}

impl<V: Placed> Index<&Key> for PlacedTable<V> {
    type Output = Arc<V>;

    fn index(&self, key: &Key) -> &Arc<V> {
        &self.0.views[key]
    }
}

impl<V: Placed> Extend<(Key, Arc<V>)> for PlacedTable<V> {
    fn extend<I: IntoIterator<Item = (Key, Arc<V>)>>(&mut self, views: I) {
        views.into_iter().for_each(|(key, view)| self.insert(key, view));
    }
}

impl<V: Placed> FromIterator<(Key, Arc<V>)> for PlacedTable<V> {
    fn from_iter<I: IntoIterator<Item = (Key, Arc<V>)>>(views: I) -> Self {
        let mut table = Self::default();
        table.extend(views);
        table
    }
}

impl<V: Placed> From<BTreeMap<Key, Arc<V>>> for PlacedTable<V> {
    fn from(views: BTreeMap<Key, Arc<V>>) -> Self {
        views.into_iter().collect()
    }
}

impl<V: Placed, const N: usize> From<[(Key, Arc<V>); N]> for PlacedTable<V> {
    fn from(views: [(Key, Arc<V>); N]) -> Self {
        views.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{ContainerState, ContainerView, Owner, Role},
    };

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    fn pod(name: &str, node: &str, owner: &str) -> Arc<PodView> {
        Arc::new(fixtures::pod(Role::Waiter, name, Owner::nodeop("op", owner), node))
    }

    fn names<'a>(pods: impl Iterator<Item = &'a Arc<PodView>>) -> Vec<&'a str> {
        pods.map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn what_is_on_a_node_or_of_an_owner_is_found_also_after_it_moved() {
        let mut pods = PlacedTable::default();
        pods.insert(key("a"), pod("a", "n1", "u"));
        pods.insert(key("b"), pod("b", "n1", "v"));
        let before = pods.clone();
        pods.insert(key("a"), pod("a", "n2", "v"));
        assert_eq!((names(pods.on_node("n1")), names(pods.on_node("n2"))), (vec!["b"], vec!["a"]));
        assert_eq!((names(pods.of_owner("u")), names(pods.of_owner("v"))), (vec![], vec!["a", "b"]));
        assert_eq!(names(before.on_node("n1")), ["a", "b"], "a snapshot does not change");
        assert!(
            !Arc::ptr_eq(before.token(), pods.token()) && Arc::ptr_eq(pods.token(), pods.clone().token())
        );
        let mut ended = (*pod("b", "n1", "v")).clone();
        ended.phase = PodPhase::Succeeded;
        pods.insert(key("b"), Arc::new(ended.clone()));
        assert_eq!((names(pods.open()), names(pods.open_of_owner("v"))), (vec!["a"], vec!["a"]));
        ended.role = Role::Preflight;
        pods.insert(key("b"), Arc::new(ended));
        assert_eq!(names(pods.open_of_owner("v")), ["a", "b"], "somebody has to delete it");
        let running = |pods: &PlacedTable<PodView>, image: &str| {
            let all = pods.running().filter(|((_, content), _)| content == image);
            all.flat_map(|(_, pods)| pods).map(|pod| pod.name.clone()).collect::<Vec<_>>()
        };
        let mut runs = (*pod("c", "n3", "v")).clone();
        for image in ["", "i1", "i2", "i1"] {
            let state = ContainerState::Running { since: Timestamp::UNIX_EPOCH };
            let ran = ContainerView { image_id: image.into(), ..ContainerView::new("nodeop", state) };
            runs.containers = vec![ran];
            pods.insert(key("c"), Arc::new(runs.clone()));
            let found = ["", "i1", "i2"].map(|image| running(&pods, image).len());
            let expected = ["", "i1", "i2"].map(|one| usize::from(one == image && !image.is_empty()));
            assert_eq!(found, expected, "{image}");
        }
        pods.remove(&key("c"));
        let before = pods.clone();
        pods.remove(&key("a"));
        assert!(!Arc::ptr_eq(before.token(), pods.token()));
        assert_eq!((names(pods.on_node("n2")), pods.values().count()), (vec![], 1));
        pods.retain(|_, pod| pod.node != "n1");
        assert_eq!(pods, PlacedTable::default(), "nothing is left of what has gone");
    }

    #[test]
    fn what_is_kept_up_to_date_is_what_is_found_anew() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut table = PlacedTable::default();
        for _ in 0..2_000 {
            let key = (rng.choice(["ns", "team-a"]).unwrap().to_string(), format!("p{}", rng.u8(..12)));
            let mut view = (*pod(&key.1, &format!("n{}", rng.u8(..4)), &format!("u{}", rng.u8(..3)))).clone();
            view.namespace.clone_from(&key.0);
            view.phase = if rng.bool() { PodPhase::Succeeded } else { PodPhase::Running };
            let state = ContainerState::Running { since: Timestamp::UNIX_EPOCH };
            let image_id = format!("i{}", rng.u8(..2));
            view.containers = vec![ContainerView { image_id, ..ContainerView::new("nodeop", state) }];
            table.show(key, (rng.u8(..4) > 0).then(|| Arc::new(view)));
            let anew: PlacedTable<PodView> = table.0.views.clone().into();
            let Indexed { views: _, on_node, of_owner, open, running, token: _ } = &*anew.0;
            let kept = &*table.0;
            assert_eq!((&kept.on_node, &kept.of_owner), (on_node, of_owner));
            assert_eq!((&kept.open, &kept.running), (open, running));
            let those = |is: &dyn Fn(&PodView) -> bool| {
                let all = table.values().filter(|pod| is(pod)).cloned();
                all.collect::<Vec<_>>()
            };
            for node in ["n0", "n1", "n2", "n3"] {
                assert!(
                    table.on_node(node).eq(&those(&|pod| pod.node == node)),
                    "in the order of their keys"
                );
            }
            for owner in ["u0", "u1", "u2"] {
                let is_owned = |pod: &PodView| pod.owner.uid == owner;
                assert!(table.of_owner(owner).eq(&those(&is_owned)));
                let is_open = |pod: &PodView| is_owned(pod) && pod.is_open();
                assert!(table.open_of_owner(owner).eq(&those(&is_open)));
            }
        }
    }
}

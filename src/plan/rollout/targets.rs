//! Which nodes a NodeOp is about, chosen once and recorded, and in which order they are taken.
//!
//! A selector that names labels which we ourselves write is not evaluated before they are there: a NodeOp
//! that is applied together with the operator, or while a node boots, would leave nodes out, or have none at
//! all. And a NodeOp without a node is not over: it begins when the first one matches.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::LabelSelector, jiff::SignedDuration};

use crate::{
    api::{
        names,
        nodeop::{NodeOp, NodeStatus},
        text::clipped,
    },
    plan::{
        facts::{self, labels},
        model::{
            effects::{Effects, Planned},
            selector,
            snapshot::{NodeView, Snapshot},
            time::later,
        },
    },
};

/// How long a node that joins may take to become Ready before a selector is evaluated without it: longer than
/// a network plugin takes to be installed, and shorter than people wait for a node that is broken.
const JOIN_TIMEOUT: SignedDuration = SignedDuration::from_secs(300);
/// How many nodes are named in a sentence at most.
const MAX_NAMES: usize = 10;
/// Bytes of a selector in a sentence, at most.
const DESCRIBED: usize = 300;

/// The nodes of a NodeOp, or why it has none.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// These, of which there is at least one.
    Chosen(BTreeMap<String, NodeStatus>),
    /// Nobody can tell yet.
    Unknown(String),
    /// No node matches now.
    None(String),
}

/// The nodes that match the selector; all Linux nodes without one.
pub fn choose(snapshot: &Snapshot, op: &NodeOp) -> Planned<Targets> {
    let selector = selector_of(op);
    let mut effects = Effects::default();
    if let Some(why) = selector.and_then(|selector| effects.take(unread(snapshot, selector))) {
        return Planned { value: Targets::Unknown(why), effects };
    }
    let chosen = matching(snapshot, op);
    if !chosen.is_empty() {
        return Planned { value: Targets::Chosen(chosen), effects };
    }
    let none = match selector {
        Some(selector) => {
            format!("no node matches nodeSelector {}", clipped(&selector::describe(selector), DESCRIBED))
        }
        None => "there is no Linux node".into(),
    };
    let why = format!("waiting: {none}; the operation starts when a node does");
    Planned { value: Targets::None(why), effects }
}

/// The nodes that match the selector as their labels are now.
pub fn matching(snapshot: &Snapshot, op: &NodeOp) -> BTreeMap<String, NodeStatus> {
    let selector = selector_of(op);
    let chosen = snapshot.nodes.values().filter(|node| match selector {
        Some(selector) => selector::matches(selector, &node.labels),
        None => is_linux(node),
    });
    chosen.map(|node| (node.name.clone(), NodeStatus::default())).collect()
}

/// An empty selector selects everything, like none.
fn selector_of(op: &NodeOp) -> Option<&LabelSelector> {
    op.spec.node_selector.as_ref().filter(|selector| **selector != <_>::default())
}

/// A node that says nothing of its system counts as Linux.
fn is_linux(node: &NodeView) -> bool {
    let label = node.labels.get(names::OS_LABEL).map_or(node.os.as_str(), String::as_str);
    ["", "linux"].contains(&label)
}

/// Whether it is us who write a node's label of this key.
fn is_fact(key: &str) -> bool {
    key.starts_with("kairos.io/")
}

/// Whose labels, of those that the selector looks at, are not known yet.
fn unread(snapshot: &Snapshot, selector: &LabelSelector) -> Planned<Option<String>> {
    if !selector::keys(selector).any(is_fact) {
        return None.into();
    }
    let may_match = |node: &&NodeView| {
        let open = is_linux(node) && !node.deleting && !labels::hands_off(node) && !labels::up_to_date(node);
        open && selector::may_match(selector, &node.labels, is_fact)
    };
    let open: Vec<&NodeView> = snapshot.nodes.values().map(AsRef::as_ref).filter(may_match).collect();
    let reading: Vec<&NodeView> = open.iter().copied().filter(|node| node.ready).collect();
    let mut effects = Effects::default();
    if !reading.is_empty() {
        let mut troubles = reading.iter().map(|node| effects.take(facts::trouble(snapshot, node)));
        let trouble =
            troubles.find_map(|trouble| trouble).map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let why = format!(
            "waiting: the facts of {} are being read: {}{trouble}",
            count(reading.len()),
            named(&reading),
        );
        return Planned { value: Some(why), effects };
    }
    let until = |node: &NodeView| later(snapshot.away_since(node), JOIN_TIMEOUT);
    let joins =
        |node: &NodeView| !node.annotations.contains_key(names::FACTS_OF) && snapshot.now < until(node);
    let joining: Vec<&NodeView> = open.into_iter().filter(|node| joins(node)).collect();
    joining.iter().for_each(|node| effects.add(Effects::wake_at(until(node))));
    let why = (!joining.is_empty()).then(|| {
        format!(
            "waiting: {} not Ready yet, and what they run is not known: {}",
            are(joining.len()),
            named(&joining)
        )
    });
    Planned { value: why, effects }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn are(nodes: usize) -> String {
    if nodes == 1 { "1 node is".into() } else { format!("{nodes} nodes are") }
}

fn named(nodes: &[&NodeView]) -> String {
    let names: Vec<&str> = nodes.iter().take(MAX_NAMES).map(|node| node.name.as_str()).collect();
    let more = if nodes.len() > MAX_NAMES { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// Target names in the order in which they are taken: control-plane nodes first, then by name.
pub fn order<'a>(snapshot: &Snapshot, targets: &'a BTreeMap<String, NodeStatus>) -> Vec<&'a String> {
    let mut names: Vec<&String> = targets.keys().collect();
    // Stable, and the map is sorted by name.
    names.sort_by_key(|name| !snapshot.nodes.get(*name).is_some_and(|node| node.control_plane()));
    names
}

//! Which nodes a NodeOp is about, chosen once and recorded, and in which order they are taken.
//!
//! A selector that names labels which we ourselves write is not evaluated before they are there: a NodeOp
//! that is applied together with the operator, or while a node boots, would leave nodes out, or have none at
//! all. One that is paused chooses none before it is resumed. And a NodeOp without a node is not over: it
//! begins when the first one matches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::LabelSelector, jiff::SignedDuration};

use crate::{
    api::{
        names,
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeOp, NodeStatus},
        text::clipped,
    },
    plan::{
        attempts, facts,
        model::{
            effects::{Effects, Planned},
            selector,
            snapshot::{NodeClass, NodeView, Snapshot, had_no_nodes},
            time::later,
        },
        node::state::{Entry, Over, State},
        rollout::not_taken::Untouched,
    },
};

/// How long a node that joins may take to become Ready, and to tell its boot, before a selector is evaluated
/// without it: longer than a network plugin takes to be installed, and shorter than people wait for a node
/// that is broken.
const JOIN_TIMEOUT: SignedDuration = SignedDuration::from_secs(300);
/// For how long the same nodes have to match an operation that none matched before: a label is put on one
/// node after the other, as by one `kubectl label` for several, and whoever came first would be all that it
/// is about.
const DEBOUNCE: SignedDuration = SignedDuration::from_secs(5);
/// It begins at the latest this long after the first one matched: labels may come and go for ever.
const DEBOUNCE_LIMIT: SignedDuration = SignedDuration::from_secs(60);
/// How many nodes are named in a sentence at most.
const MAX_NAMES: usize = 10;
/// How many names that no node has are named in a sentence at most.
const MAX_ABSENT: usize = 3;
/// Bytes of a selector in a sentence, at most.
const DESCRIBED: usize = 300;

/// What is said of an operation that is paused before it has chosen its nodes.
const CHOSEN_LATER: &str = "paused: its nodes are chosen when spec.paused is false";

/// The nodes of a NodeOp, or why it has none.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// These, of which there is at least one.
    Chosen(BTreeMap<String, NodeStatus>),
    /// None, for this reason.
    Missing(NoTargets),
}

/// Why a NodeOp has no node yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTargets {
    /// Nobody can tell yet which match: labels that we write are being read on these nodes.
    FactsUnread { nodes: Vec<String>, obstacle: Option<String> },
    /// Nobody can tell yet which match: these are about to join, and are not Ready, or tell no boot yet.
    Joining { away: Vec<String>, bootless: Vec<String> },
    /// No node matches this selector, or there is none of Linux; among those of `nodeNames`, if it has any.
    /// Once its time is over (`notAfter`), none will be taken either.
    NoMatch { selector: Option<String>, named: Vec<String>, expired: bool },
    /// Those that match are younger than the NodeOp, which an older operator began.
    NoneOlder,
    /// They are chosen when it is resumed; `matching` nodes match now.
    Paused { matching: usize },
    /// These match since a moment ago, where none did before: others may be about to.
    JustMatched { nodes: Vec<String> },
}

impl NoTargets {
    /// Whether it is known that none matches.
    pub fn is_known(&self) -> bool {
        match self {
            Self::FactsUnread { .. }
            | Self::Joining { .. }
            | Self::Paused { .. }
            | Self::JustMatched { .. } => false,
            Self::NoMatch { .. } | Self::NoneOlder => true,
        }
    }
}

impl fmt::Display for NoTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FactsUnread { nodes, obstacle } => {
                write!(
                    f,
                    "waiting: the facts of {} are being read: {}",
                    count(nodes.len()),
                    listed(nodes, MAX_NAMES)
                )?;
                match obstacle {
                    Some(obstacle) => write!(f, "; {obstacle}"),
                    None => Ok(()),
                }
            }
            Self::Joining { away, bootless } => {
                f.write_str("waiting: ")?;
                if !away.is_empty() {
                    write!(
                        f,
                        "{} {} not Ready yet, and what they run is not known: {}",
                        count(away.len()),
                        if away.len() == 1 { "is" } else { "are" },
                        listed(away, MAX_NAMES)
                    )?;
                }
                if !away.is_empty() && !bootless.is_empty() {
                    f.write_str("; ")?;
                }
                if !bootless.is_empty() {
                    let (one, names) = (bootless.len() == 1, listed(bootless, MAX_NAMES));
                    let runs = if one { "runs" } else { "run" };
                    let reports = if one { "its kubelet reports" } else { "their kubelets report" };
                    let count = count(bootless.len());
                    write!(f, "what {count} {runs} is not known, {reports} no boot id: {names}")?;
                }
                Ok(())
            }
            Self::NoMatch { selector, named, expired } => {
                let named = (!named.is_empty()).then(|| listed(named, MAX_ABSENT));
                f.write_str(if *expired { "nothing was done, and its time is over: " } else { "waiting: " })?;
                match (selector, named) {
                    (Some(selector), None) => write!(f, "no node matches nodeSelector {selector}"),
                    (None, None) => f.write_str("there is no Linux node"),
                    (Some(selector), Some(named)) => {
                        write!(f, "none of nodeNames ({named}) matches nodeSelector {selector}")
                    }
                    (None, Some(named)) => write!(f, "no Linux node has a name of nodeNames ({named})"),
                }?;
                f.write_str(if *expired {
                    "; delete it, or set notAfter to a later time"
                } else {
                    "; the operation starts when a node does"
                })
            }
            Self::NoneOlder => f.write_str("waiting: no node that is older than this NodeOp matches"),
            Self::JustMatched { nodes } => write!(
                f,
                "waiting: {} {} by now: {}; taken when no other has joined for {} s",
                count(nodes.len()),
                if nodes.len() == 1 { "matches" } else { "match" },
                listed(nodes, MAX_NAMES),
                DEBOUNCE.as_secs()
            ),
            Self::Paused { matching: 1 } => write!(f, "{CHOSEN_LATER}; 1 node matches now"),
            Self::Paused { matching } => write!(f, "{CHOSEN_LATER}; {matching} nodes match now"),
        }
    }
}

/// The nodes that match the selector; all Linux nodes without one.
pub fn choose(snapshot: &Snapshot, op: &NodeOp) -> Planned<Targets> {
    if attempts::is_later_round(op) {
        return Targets::Chosen(of_round(snapshot, op)).into();
    }
    if op.spec.paused == Some(true) {
        // An older upgrade leaves alone what this one has chosen. While nothing may start, people label
        // nodes, and some join: whoever labels one for the older upgrade would wait for it for ever.
        return Targets::Missing(NoTargets::Paused { matching: snapshot.matching(op).count() }).into();
    }
    let selector = selector::of(op);
    let mut effects = Effects::default();
    if let Some(why) = selector.and_then(|selector| effects.absorb(unread(snapshot, op, selector))) {
        return Planned { value: Targets::Missing(why), effects };
    }
    if had_no_nodes(op) && snapshot.matching(op).next().is_some() {
        let since = snapshot.matched_since(op);
        let until = later(since.these, DEBOUNCE).min(later(since.any, DEBOUNCE_LIMIT));
        if snapshot.now < until {
            effects.add(Effects::wake_at(until));
            let nodes = snapshot.matching(op).map(|node| node.name.clone()).collect();
            return Planned { value: Targets::Missing(NoTargets::JustMatched { nodes }), effects };
        }
    }
    let chosen = matching(snapshot, op);
    if !chosen.is_empty() {
        return Planned { value: Targets::Chosen(chosen), effects };
    }
    Planned { value: Targets::Missing(no_match(op, false)), effects }
}

/// Why an operation whose time is over has no node, if none matched while there was time: whatever its
/// selector is about, it is no success. `None` if there are nodes that match and were not taken in time, as
/// when objects are restored late.
pub fn missed(snapshot: &Snapshot, op: &NodeOp) -> Planned<Option<NoTargets>> {
    if had_no_nodes(op) {
        return Some(no_match(op, true)).into();
    }
    choose(snapshot, op).map(|targets| match targets {
        Targets::Missing(NoTargets::NoMatch { .. }) => Some(no_match(op, true)),
        Targets::Missing(why @ (NoTargets::FactsUnread { .. } | NoTargets::Joining { .. })) => Some(why),
        Targets::Missing(NoTargets::NoneOlder | NoTargets::Paused { .. } | NoTargets::JustMatched { .. })
        | Targets::Chosen(_) => None,
    })
}

fn no_match(op: &NodeOp, expired: bool) -> NoTargets {
    let selector = selector::of(op).map(|selector| clipped(&selector::describe(selector), DESCRIBED));
    NoTargets::NoMatch { selector, named: op.spec.node_names.clone(), expired }
}

/// The nodes that match the selector as their labels are now.
pub fn matching(snapshot: &Snapshot, op: &NodeOp) -> BTreeMap<String, NodeStatus> {
    snapshot.matching(op).map(|node| (node.name.clone(), NodeStatus::default())).collect()
}

/// Which names of `nodeNames` an operation that has its nodes is not about, as a sentence: there was no node
/// of this name, or none that matched. A misspelt name would be a success otherwise.
pub fn absent(op: &NodeOp, nodes: &NodeStatuses) -> Option<String> {
    let absent: Vec<String> =
        op.spec.node_names.iter().filter(|name| !nodes.contains_key(name)).cloned().collect();
    if nodes.is_empty() || absent.is_empty() {
        return None;
    }
    let names = listed(&absent, MAX_ABSENT);
    Some(format!(
        "not included, since no node of this name matched when the operation began: {names} (nodeNames)"
    ))
}

/// The nodes of a later round of an upgrade, which were chosen when it was announced. What may have become of
/// one since is seen when its turn comes; one that is not selected any more needs nothing.
fn of_round(snapshot: &Snapshot, op: &NodeOp) -> BTreeMap<String, NodeStatus> {
    let selector = selector::of(op);
    let entry = |name: &String| match snapshot.nodes.get(name) {
        Some(node) if !node.is_selected_by(selector) => {
            let why = Untouched::NotSelected;
            let over = Over::untouched(why.reason(), None);
            Entry::default().moved(snapshot.now, State::Over(over), why).record()
        }
        Some(_) | None => NodeStatus::default(),
    };
    op.spec.node_names.iter().map(|name| (name.clone(), entry(name))).collect()
}

/// Whether it is us who write a node's label of this key.
fn is_fact(key: &str) -> bool {
    key.starts_with("kairos.io/")
}

/// Whose labels, of those that the selector looks at, are not known yet.
fn unread(snapshot: &Snapshot, op: &NodeOp, selector: &LabelSelector) -> Planned<Option<NoTargets>> {
    if !selector::keys(selector).any(is_fact) {
        return None.into();
    }
    let may_match = |node: &&NodeView| {
        let asked = selector::is_named(op, &node.name) && node.is_linux() && !node.deleting;
        let open = asked && !node.is_left_alone() && !node.says_its_facts();
        open && selector::may_match(selector, |key| node.labels.get(key), is_fact)
    };
    let open: Vec<&NodeView> = snapshot.nodes.values().map(AsRef::as_ref).filter(may_match).collect();
    let reading: Vec<&NodeView> =
        open.iter().copied().filter(|node| node.ready && node.tells_its_boot()).collect();
    let mut effects = Effects::default();
    if !reading.is_empty() {
        let obstacle = reading.iter().find_map(|node| effects.absorb(facts::obstacle(snapshot, node)));
        let why = NoTargets::FactsUnread { nodes: names(&reading), obstacle };
        return Planned { value: Some(why), effects };
    }
    let until = |node: &NodeView| later(snapshot.joining_since(node), JOIN_TIMEOUT);
    let joins =
        |node: &NodeView| !node.annotations.contains_key(names::FACTS_OF) && snapshot.now < until(node);
    let joining: Vec<&NodeView> = open.into_iter().filter(|node| joins(node)).collect();
    joining.iter().for_each(|node| effects.add(Effects::wake_at(until(node))));
    let why = (!joining.is_empty()).then(|| {
        let (away, bootless): (Vec<_>, Vec<_>) = joining.into_iter().partition(|node| !node.ready);
        NoTargets::Joining { away: names(&away), bootless: names(&bootless) }
    });
    Planned { value: why, effects }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn names(nodes: &[&NodeView]) -> Vec<String> {
    nodes.iter().map(|node| node.name.clone()).collect()
}

/// The first names of a list.
fn listed(names: &[String], most: usize) -> String {
    let more = if names.len() > most { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(most)].join(", "))
}

/// Targets that have one of the marks, in the order in which they are taken: control-plane nodes first, then
/// by name; of each kind first those that are `down` already.
pub fn order<'a, const N: usize>(
    snapshot: &'a Snapshot,
    targets: &'a NodeStatuses,
    marks: [Mark; N],
    down: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, &'a NodeStatus)> {
    let labelled = snapshot.nodes.by_name(NodeClass::ControlPlane);
    let has_label = move |name: &String| labelled.contains_key(name);
    let entry = move |name: &String| {
        targets.get_key_value(name).filter(|(_, entry)| marks.iter().any(|mark| mark.is_on(entry)))
    };
    let down_first = down.iter().filter(move |name| has_label(name));
    let others = labelled.keys().filter(|name| !down.contains(*name));
    let down_then = down.iter().filter(move |name| !has_label(name));
    let rest = targets.marked(marks).filter(move |(name, _)| !has_label(name) && !down.contains(*name));
    down_first.chain(others).chain(down_then).filter_map(entry).chain(rest)
}

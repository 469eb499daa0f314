//! Operations as trees: each with its nodes, and a node with what it does, or waits for.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::super::{
    operation::Operation,
    screen::{Screen, Tone, columns, cut, pad},
    time,
};
use crate::api::{
    nodeop::{NodeStatus, Phase},
    upgrade::UpgradePhase,
};

/// Nodes of an operation that are shown, unless all are asked for.
pub const MOST: usize = 50;
/// From this width on there is room for the time, and from this one for the role.
const WITH_TIME: usize = 50;
const WITH_ROLE: usize = 70;

/// What is looked at, and from when.
#[derive(Clone, Debug)]
pub struct Look {
    pub now: Timestamp,
    /// Nodes of the control plane, which go first.
    pub control_planes: BTreeSet<String>,
    /// Say the namespaces.
    pub namespaces: bool,
    /// Show all nodes of what is over as well, not the failed ones alone.
    pub whole: bool,
    /// Rows of nodes for each operation, if there is a limit.
    pub rows: Option<usize>,
}

/// The nodes in the order in which they are taken: the control plane first, then by name.
pub fn in_order<'a>(
    operation: &'a Operation,
    control_planes: &BTreeSet<String>,
) -> Vec<(&'a String, &'a NodeStatus)> {
    let (mut first, then): (Vec<_>, Vec<_>) =
        operation.nodes.iter().partition(|(name, _)| control_planes.contains(*name));
    first.extend(then);
    first
}

/// All operations, one below the other.
pub fn lines(all: &[Operation], look: &Look, screen: &Screen) -> Vec<String> {
    all.iter().flat_map(|operation| one(operation, look, screen)).collect()
}

/// An operation: a heading, what it says, its nodes.
fn one(operation: &Operation, look: &Look, screen: &Screen) -> Vec<String> {
    let nodes = shown(operation, look);
    let mut lines = vec![heading(operation, look, screen)];
    let message = time::relative(look.now, &operation.message);
    let left_out = operation.nodes.len() - nodes.len();
    let folded = left_out > 0 && (look.whole || !operation.is_over());
    if !message.is_empty() {
        let trunk = if nodes.is_empty() && !folded { " " } else { "│" };
        lines.push(format!("{trunk}  {message}"));
    }
    let layout = Layout::of(&nodes, look, screen);
    for (at, (name, node)) in nodes.iter().enumerate() {
        let last = at + 1 == nodes.len() && !folded;
        let branch = if last { "└─" } else { "├─" };
        lines.push(format!("{branch} {}", layout.row(name, node, look, screen)));
    }
    if folded {
        lines.push(format!("└─ … and {}", rest(operation, &nodes, left_out)));
    }
    lines
}

fn heading(operation: &Operation, look: &Look, screen: &Screen) -> String {
    let (mark, tone) = match operation.phase {
        UpgradePhase::Completed => ("✓", Tone::Good),
        UpgradePhase::Failed => ("✗", Tone::Bad),
        UpgradePhase::Running => ("●", Tone::Moving),
        UpgradePhase::Pending | UpgradePhase::Initializing => ("·", Tone::Faint),
    };
    let place = if look.namespaces { format!(" in {}", operation.namespace) } else { String::new() };
    let counts = &operation.counts;
    let mut parts = vec![format!("{mark} {}{place}", operation.short()), operation.phase_word()];
    if counts.total > 0 {
        let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
        parts.push(format!("{} done{failed}", counts.done));
    }
    parts.extend(match (operation.ended(), operation.created) {
        (Some(end), _) => Some(format!("{} ago", time::age(look.now, end))),
        (None, Some(begin)) => Some(format!("for {}", time::age(look.now, begin))),
        (None, None) => None,
    });
    parts.push(operation.what.clone());
    let text = parts.join("  ");
    // Cut before it is coloured, so that the colour ends with the heading.
    screen.tint(tone, &screen.cut(text.trim_end()))
}

/// The nodes that are shown: those that something happens on, or went wrong on, before all others.
fn shown<'a>(operation: &'a Operation, look: &Look) -> Vec<(&'a String, &'a NodeStatus)> {
    let all = in_order(operation, &look.control_planes);
    if operation.is_over() && !look.whole {
        return all.into_iter().filter(|(_, node)| node.phase == Phase::Failed).collect();
    }
    let Some(most) = look.rows.filter(|most| all.len() > *most) else { return all };
    let rank = |node: &NodeStatus| match node.phase {
        Phase::Running | Phase::Preflight => 0,
        Phase::Failed => 1,
        Phase::Pending => 2,
        Phase::Completed => 3,
    };
    let mut ranked: Vec<usize> = (0..all.len()).collect();
    ranked.sort_by_key(|&at| (rank(all[at].1), at));
    let kept: BTreeSet<usize> = ranked.into_iter().take(most).collect();
    all.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, node)| node).collect()
}

/// What is left out, in numbers.
fn rest(operation: &Operation, nodes: &[(&String, &NodeStatus)], left_out: usize) -> String {
    let count = |phase: Phase| {
        let all = operation.nodes.values().filter(|node| node.phase == phase).count();
        all - nodes.iter().filter(|(_, node)| node.phase == phase).count()
    };
    let parts = [
        (count(Phase::Running) + count(Phase::Preflight), "under way"),
        (count(Phase::Failed), "failed"),
        (count(Phase::Pending), "pending"),
        (count(Phase::Completed), "completed"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let place = format!("{} -n {}", operation.short(), operation.namespace);
    format!(
        "{left_out} more: {} (kubectl kairos status {place} -o wide shows all)",
        parts.collect::<Vec<_>>().join(", ")
    )
}

/// How wide the columns of an operation's nodes are.
struct Layout {
    name: usize,
    role: usize,
    state: usize,
    since: usize,
}

impl Layout {
    fn of(nodes: &[(&String, &NodeStatus)], look: &Look, screen: &Screen) -> Self {
        let width = screen.width.unwrap_or(usize::MAX);
        let widest = |text: &dyn Fn(&String, &NodeStatus) -> String| {
            nodes.iter().map(|(name, node)| columns(&text(name, node))).max().unwrap_or(0)
        };
        let fits = |least: usize, wanted: usize| if width < least { 0 } else { wanted };
        Self {
            name: widest(&|name, _| name.clone()).min(width / 3),
            role: fits(WITH_ROLE, widest(&|name, _| role(name, look).to_owned())),
            state: widest(&|_, node| state(node)),
            since: fits(WITH_TIME, widest(&|_, node| since(node, look))),
        }
    }

    fn row(&self, name: &str, node: &NodeStatus, look: &Look, screen: &Screen) -> String {
        let (mark, tone) = match node.phase {
            Phase::Completed => ("✓", Tone::Good),
            Phase::Failed => ("✗", Tone::Bad),
            Phase::Running | Phase::Preflight => ("●", Tone::Moving),
            Phase::Pending => ("·", Tone::Faint),
        };
        let mut row = screen.tint(tone, &format!("{mark} {}", pad(&cut(name, self.name), self.name)));
        for (text, width) in [
            (role(name, look).to_owned(), self.role),
            (state(node), self.state),
            (since(node, look), self.since),
        ] {
            if width > 0 {
                row = format!("{row}  {}", pad(&text, width));
            }
        }
        let message = time::relative(look.now, node.message.as_deref().unwrap_or_default());
        format!("{row}  {message}").trim_end().to_owned()
    }
}

fn role(name: &str, look: &Look) -> &'static str {
    if look.control_planes.contains(name) { "control plane" } else { "" }
}

/// The step of a node under way; else its phase.
pub fn state(node: &NodeStatus) -> String {
    match (node.phase, node.step) {
        (Phase::Running | Phase::Preflight, Some(step)) => format!("{step:?}"),
        (phase, _) => format!("{phase:?}"),
    }
}

/// Since when that is so.
fn since(node: &NodeStatus, look: &Look) -> String {
    let Some(time) = &node.last_updated else { return String::new() };
    let age = time::age(look.now, time.0);
    match node.phase {
        Phase::Pending => String::new(),
        Phase::Preflight | Phase::Running => format!("for {age}"),
        Phase::Completed | Phase::Failed => format!("{age} ago"),
    }
}

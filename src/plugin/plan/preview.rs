//! What the operator's planner would do, found out by asking it again and again on a copy of the cluster:
//! what it decides is taken for done, and what it asks is answered from what was read.
//!
//! Everything here is a function of its arguments. Nodes are taken for healthy after their turn; what each
//! preflight would say is a guess of the caller's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    api::{
        node_status::NodeReason,
        node_statuses::Mark,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase},
    },
    plan::{
        self,
        model::{
            action::Action,
            id::{Key, OpRef},
            question::{Answer, Question},
            snapshot::Snapshot,
        },
        node::state::{Entry, Over, State},
    },
};

/// Turns that are played through. Whoever has more nodes than that reads no list of them.
const TURNS: usize = 200;
/// Plans for one turn: a question may lead to the next.
const PLANS: usize = 20;

/// What would become of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Nodes that are worked on now.
    pub under_way: Vec<String>,
    /// Nodes that are done.
    pub done: Vec<String>,
    /// Nodes in the order in which they are taken; those of one turn go together.
    pub turns: Vec<Vec<String>>,
    /// Nodes that nothing would be done on, and why.
    pub skipped: BTreeMap<String, String>,
    /// Nodes that would not be taken by themselves, and why.
    pub waits: BTreeMap<String, String>,
    /// Nodes whose turn was not played through.
    pub more: usize,
    /// Why there is no node at all.
    pub none: Option<String>,
}

/// Plays an operation through. `skips`: the nodes that its preflight would skip, and why; `answers`: what was
/// read live.
pub fn preview(
    mut snapshot: Snapshot,
    key: &Key,
    skips: &BTreeMap<String, String>,
    answers: &BTreeMap<Question, Answer>,
) -> Preview {
    let mut preview = Preview::default();
    begin(&mut snapshot, key, &mut preview);
    while preview.turns.len() < TURNS {
        let (turn, waits) = next_turn(&mut snapshot, key, skips, answers, &mut preview);
        preview.waits = waits;
        if turn.is_empty() {
            break;
        }
        for name in &turn {
            finish(&mut snapshot, key, name);
        }
        preview.turns.push(turn);
    }
    let status = status(&snapshot, key);
    if status.node_statuses.is_empty() {
        preview.none = Some(status.message.unwrap_or_else(|| "no node is chosen".into()));
    }
    if preview.turns.len() == TURNS {
        preview.more = status.node_statuses.values().filter(|node| node.phase == Phase::Pending).count();
        preview.waits.clear();
    }
    preview
}

fn status(snapshot: &Snapshot, key: &Key) -> NodeOpStatus {
    snapshot.ops.get(key).and_then(|op| op.status.clone()).unwrap_or_default()
}

/// What is under way comes to its end first.
fn begin(snapshot: &mut Snapshot, key: &Key, preview: &mut Preview) {
    for (name, node) in &status(snapshot, key).node_statuses {
        match node.phase {
            Phase::Running => {
                finish(snapshot, key, name);
                preview.under_way.push(name.clone());
            }
            Phase::Completed | Phase::Failed => preview.done.push(name.clone()),
            Phase::Pending | Phase::Preflight => {}
        }
    }
}

/// The nodes that are taken next, and why each of the others is not.
fn next_turn(
    snapshot: &mut Snapshot,
    key: &Key,
    skips: &BTreeMap<String, String>,
    answers: &BTreeMap<Question, Answer>,
    preview: &mut Preview,
) -> (Vec<String>, BTreeMap<String, String>) {
    let mut waits = BTreeMap::new();
    for _ in 0..PLANS {
        pass_preflights(snapshot, key, skips, preview);
        let before = (snapshot.answers.len(), snapshot.ops.get(key).cloned());
        let plan = plan::plan(snapshot);
        for question in &plan.questions {
            let answer = answers.get(question).cloned().unwrap_or_else(|| answer(snapshot, question));
            snapshot.answers.insert(question.clone(), answer);
        }
        plan.actions.iter().cloned().for_each(|action| apply(snapshot, key, action));
        let nodes = status(snapshot, key).node_statuses;
        let taken: Vec<String> = plan::rollout::order(snapshot, &nodes, [Mark::Running], &BTreeSet::new())
            .map(|(name, _)| name.clone())
            .collect();
        if !taken.is_empty() {
            return (taken, BTreeMap::new());
        }
        let open = nodes.marked([Mark::Pending, Mark::Preflight, Mark::Running]);
        let why = |node: &String| plan.why(key, node).map(ToString::to_string);
        waits = open.filter_map(|(node, _)| Some((node.clone(), why(node)?))).collect();
        if before == (snapshot.answers.len(), snapshot.ops.get(key).cloned()) {
            break;
        }
    }
    (Vec::new(), waits)
}

/// Every preflight has spoken, in this boot.
fn pass_preflights(
    snapshot: &mut Snapshot,
    key: &Key,
    skips: &BTreeMap<String, String>,
    preview: &mut Preview,
) {
    let (now, nodes) = (snapshot.now, snapshot.nodes.clone());
    change(snapshot, key, |status| {
        let before = status.node_statuses.clone();
        for (name, node) in before.marked([Mark::Pending, Mark::Preflight]) {
            let Some(view) = nodes.get(name).filter(|view| view.ready) else { continue };
            if let Some(why) = skips.get(name) {
                let over = Over::untouched(Some(NodeReason::Skipped), node.target.clone());
                let skipped = Entry::read(node).moved(now, State::Over(over), why);
                status.node_statuses.insert(name, skipped.record());
                preview.skipped.insert(name.clone(), why.clone());
            } else if node.node_uid.is_none() {
                let passed = NodeStatus { boot: Some(view.boot_id.clone()), ..NodeStatus::default() };
                status.node_statuses.insert(name, passed);
            }
        }
    });
}

/// A node is done, and given back.
fn finish(snapshot: &mut Snapshot, key: &Key, name: &str) {
    change(snapshot, key, |status| {
        let done = NodeStatus { phase: Phase::Completed, ..NodeStatus::default() };
        status.node_statuses.insert(name.to_owned(), done);
    });
    let ours = snapshot.ops.get(key).map(|op| OpRef::of(op));
    if let Some(view) =
        snapshot.nodes.get(name).filter(|view| view.claimed_by.is_some() && view.claimed_by == ours)
    {
        let mut view = (**view).clone();
        (view.claimed_by, view.cordoned_by, view.hints) = (None, None, None);
        snapshot.nodes.insert(name.to_owned(), Arc::new(view));
    }
}

fn change(snapshot: &mut Snapshot, key: &Key, change: impl FnOnce(&mut NodeOpStatus)) {
    let Some(op) = snapshot.ops.get(key) else { return };
    let mut op = NodeOp::clone(op);
    if let Some(status) = &mut op.status {
        change(status);
    }
    snapshot.ops.insert(key.clone(), Arc::new(op));
}

/// What the plan decides for this operation is done. What it decides for others is left: they are as they
/// are.
fn apply(snapshot: &mut Snapshot, key: &Key, action: Action) {
    let ours = |op: &Arc<NodeOp>| OpRef::of(op).key() == *key;
    let mut next = match &action {
        Action::PatchStatus { op, .. } | Action::SetFinalizers { op, .. } if ours(op) => {
            snapshot.ops.get(key).map(|op| NodeOp::clone(op)).unwrap_or_default()
        }
        _ => return,
    };
    match action {
        Action::PatchStatus { status, .. } => next.status = Some(*status),
        Action::SetFinalizers { finalizers, .. } => next.metadata.finalizers = Some(finalizers),
        _ => return,
    }
    snapshot.ops.insert(key.clone(), Arc::new(next));
}

/// The snapshot was read live, so it is as the API server would say, and what cannot be known from it is as
/// the operation needs it.
fn answer(snapshot: &Snapshot, question: &Question) -> Answer {
    let there = |found: bool| if found { Answer::Found } else { Answer::NotFound };
    match question {
        Question::Node(name) => there(snapshot.nodes.contains_key(name)),
        Question::Op(op) => there(snapshot.op(op).is_some()),
        Question::Volumes(_) => Answer::Attached(Vec::new()),
        Question::Job(_)
        | Question::Pod(_)
        | Question::OwnedWorkload(_)
        | Question::AllNodeOps
        | Question::OtherReplica(_)
        | Question::Admission(..)
        | Question::Events { .. } => Answer::Found,
        // Whoever may not read them is told so.
        Question::ControlPlanePods(_) => Answer::Components(Vec::new()),
    }
}

/// All nodes that are taken, in order.
pub fn taken(preview: &Preview) -> Vec<&String> {
    preview.turns.iter().flatten().collect()
}

/// How many nodes it is about.
pub fn total(preview: &Preview) -> usize {
    let Preview { under_way, done, turns, skipped, waits, more, none: _ } = preview;
    let names: BTreeSet<&String> = under_way
        .iter()
        .chain(done)
        .chain(turns.iter().flatten())
        .chain(skipped.keys())
        .chain(waits.keys())
        .collect();
    names.len() + more
}

//! What a decision wants done, known, said and thought of again: a value that goes with the decision. And the
//! plan, which is what all decisions want.
//!
//! Steps return it and write nowhere. So whoever called a step may add it to its own, ask what of it keeps
//! failing, or drop it together with a decision that does not count.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::plan::model::{
    action::{Action, Notice},
    id::Key,
    question::Question,
    snapshot::Snapshot,
    why::Why,
};

/// What goes with a decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    pub actions: Vec<Action>,
    /// To be answered before the next plan, which is then made at once.
    pub questions: BTreeSet<Question>,
    /// What is to be said with the status write that records the decision.
    pub notices: Vec<Notice>,
    /// Nodes whose pods must be watched.
    pub watched_nodes: BTreeSet<String>,
    /// When to decide again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// Why nodes that are not finished are not moving.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasons {
    /// By node.
    pub nodes: BTreeMap<String, Why>,
    /// What all other nodes wait for that are pending, and how many they are: thousands may wait for their
    /// turn.
    pub others: Option<(Why, usize)>,
}

impl Reasons {
    pub fn insert(&mut self, node: String, why: Why) {
        self.nodes.insert(node, why);
    }

    /// Why a node that is not finished does not move.
    pub fn of(&self, node: &str) -> Option<&Why> {
        self.nodes.get(node).or_else(|| self.others.as_ref().map(|(why, _)| why))
    }
}

impl FromIterator<(String, Why)> for Reasons {
    fn from_iter<I: IntoIterator<Item = (String, Why)>>(reasons: I) -> Self {
        Self { nodes: reasons.into_iter().collect(), others: None }
    }
}

/// The result of planning: what to do, what to ask, and why everything else stands still.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// To be answered before the next plan, which is then made at once.
    pub questions: BTreeSet<Question>,
    /// Why nodes that are not finished are not moving, by NodeOp.
    pub waiting: BTreeMap<Key, Reasons>,
    /// Nodes whose pods must be watched.
    pub watched_nodes: BTreeSet<String>,
    /// When to plan again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Why a node that is not finished is not moving.
    pub fn why(&self, op: &Key, node: &str) -> Option<&Why> {
        self.waiting.get(op)?.of(node)
    }

    /// All that was decided, and why nodes wait. Notices are said with a status write
    /// (`rollout::status::write` takes them); what is left belongs to a status that is not written, and is
    /// not said.
    pub fn new(decided: Effects, waiting: BTreeMap<Key, Reasons>) -> Self {
        let Effects { actions, questions, notices: _, watched_nodes, wake_at } = decided;
        Self { actions, questions, waiting, watched_nodes, wake_at }
    }
}

/// A value that was decided on, and what goes with it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Planned<T> {
    pub value: T,
    pub effects: Effects,
}

impl<T> Planned<T> {
    /// Another value, with the same effects.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Planned<U> {
        Planned { value: change(self.value), effects: self.effects }
    }

    /// Adds these effects to what goes with the value.
    pub fn with(mut self, effects: impl Into<Effects>) -> Self {
        self.effects.add(effects);
        self
    }
}

/// A guard: it decides, or it does not; and what goes with it goes with what is decided in the end.
impl<T> Planned<Option<T>> {
    /// The guard, and if it does not decide, the next one.
    pub fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        let Self { value, mut effects } = self;
        let value = value.or_else(|| effects.absorb(next()));
        Self { value, effects }
    }

    /// The guard, and if it does not decide, what is done then.
    pub fn unwrap_or_else(self, last: impl FnOnce() -> Planned<T>) -> Planned<T> {
        let Self { value, mut effects } = self;
        let value = value.unwrap_or_else(|| effects.absorb(last()));
        Planned { value, effects }
    }
}

/// Nothing goes with it.
impl<T> From<T> for Planned<T> {
    fn from(value: T) -> Self {
        Self { value, effects: Effects::default() }
    }
}

impl Effects {
    /// Decides again at this moment at the latest.
    pub fn wake_at(at: Timestamp) -> Self {
        Self { wake_at: Some(at), ..Self::default() }
    }

    /// Watches the pods of a node.
    pub fn watch_pods_of(node: &str) -> Self {
        Self { watched_nodes: [node.to_owned()].into(), ..Self::default() }
    }

    /// Asks all of these.
    pub fn ask(questions: impl IntoIterator<Item = Question>) -> Self {
        Self { questions: questions.into_iter().collect(), ..Self::default() }
    }

    /// Whether something is to be asked.
    pub fn is_asking(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Does all of these.
    pub fn act(actions: impl IntoIterator<Item = Action>) -> Self {
        Self { actions: actions.into_iter().collect(), ..Self::default() }
    }

    /// What goes with several decisions, in their order.
    pub fn all(effects: impl IntoIterator<Item = Self>) -> Self {
        effects.into_iter().collect()
    }

    /// Adds what goes with another decision.
    pub fn add(&mut self, more: impl Into<Self>) {
        let Self { actions, questions, notices, watched_nodes, wake_at } = more.into();
        self.actions.extend(actions);
        self.questions.extend(questions);
        self.notices.extend(notices);
        self.watched_nodes.extend(watched_nodes);
        self.wake_at = [self.wake_at, wake_at].into_iter().flatten().min();
    }

    /// The value of what was decided; what goes with it is added to these.
    pub fn absorb<T>(&mut self, planned: Planned<T>) -> T {
        self.add(planned.effects);
        planned.value
    }
}

impl Snapshot {
    /// Asks those of these that the previous plan has not asked.
    pub fn unanswered(&self, questions: impl IntoIterator<Item = Question>) -> Effects {
        Effects::ask(questions.into_iter().filter(|question| self.answer(question).is_none()))
    }
}

impl FromIterator<Self> for Effects {
    fn from_iter<I: IntoIterator<Item = Self>>(effects: I) -> Self {
        let mut all = Self::default();
        effects.into_iter().for_each(|effects| all.add(effects));
        all
    }
}

/// What was decided one by one, and what goes with all of it, in the same order.
impl<T, C: Default + Extend<T>> FromIterator<Planned<T>> for Planned<C> {
    fn from_iter<I: IntoIterator<Item = Planned<T>>>(planned: I) -> Self {
        let (value, effects): (C, Vec<Effects>) =
            planned.into_iter().map(|Planned { value, effects }| (value, effects)).unzip();
        Self { value, effects: Effects::all(effects) }
    }
}

impl From<Action> for Effects {
    fn from(action: Action) -> Self {
        Self::act([action])
    }
}

impl From<Question> for Effects {
    fn from(question: Question) -> Self {
        Self::ask([question])
    }
}

impl From<Notice> for Effects {
    fn from(notice: Notice) -> Self {
        Self { notices: vec![notice], ..Self::default() }
    }
}

//! Admission: which pending nodes start a preflight, which are taken, and why each of the others waits.

mod admission;

use std::{collections::BTreeMap, mem};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::nodeop::{NodeStatus, Phase},
    plan::{
        image::FirstReleases,
        model::{
            effects::{Effects, Reasons},
            id::Key,
            question::Question,
            snapshot::{NodeView, Snapshot},
            time::later,
        },
        node::{
            context::{Op, ends_untouched},
            state::{Entry, Found, State, Working},
        },
        quorum,
        rollout::{
            others::{Others, claimed_by_another},
            preflight,
            status::OpProgress,
            targets,
        },
    },
};

/// Preflights run ahead of the slots by at least this many nodes …
const MIN_PREFLIGHTS_AHEAD: usize = 3;
/// … and by at most this many: each pulls an image of gigabytes.
const MAX_PREFLIGHTS_AHEAD: usize = 10;

/// What NodeOps planned earlier in this plan have taken.
#[derive(Debug, Default)]
pub struct Shared {
    nodes: BTreeMap<String, Key>,
    control_planes: Option<Vec<(Key, String)>>,
}

impl Shared {
    fn control_planes(&mut self, snapshot: &Snapshot) -> &mut Vec<(Key, String)> {
        self.control_planes.get_or_insert_with(|| quorum::control_planes_under_way(snapshot))
    }
}

/// Why a pending node does not start now.
enum Hold {
    /// The node alone waits; the next one may go.
    Node(String),
    /// So do all that come after it: the order is a promise (control-plane nodes first).
    AllAfter(String),
    /// So do all that come after it, for the very same reason.
    All(String),
}

/// One pass over the pending nodes of a NodeOp.
struct Pass<'a> {
    snapshot: &'a Snapshot,
    op: &'a Op,
    /// Whom a preflight gives way to; none are asked for if there is no preflight.
    others: Option<Others<'a>>,
    shared: &'a mut Shared,
    /// What is wanted for the node that is being looked at.
    effects: Effects,
    progress: &'a mut OpProgress,
    /// Slots that are left.
    free: usize,
    /// Nodes that are worked on, or still to be released.
    busy: usize,
    /// How many more nodes, in order, may have a preflight or its verdict. Counted from the front: those
    /// behind, which wait for this one, must not keep it from being looked at.
    ahead: usize,
    /// Why no further node is taken; preflights go on.
    queue: Option<String>,
    /// What the image brought to the nodes before.
    releases: FirstReleases,
    /// The API server said in this pass that it admits what we make; one node speaks for all.
    admitted: bool,
    /// It has not said so yet.
    unanswered: Option<String>,
}

/// Gives free slots to pending nodes, in order, and writes the reason of every other.
pub fn fill(
    snapshot: &Snapshot,
    op: &Op,
    nodes: &mut BTreeMap<String, NodeStatus>,
    progress: &mut OpProgress,
    waiting: &mut Reasons,
    shared: &mut Shared,
) -> Effects {
    let closed = closed(op, progress);
    let running = nodes.values().filter(|node| node.phase == Phase::Running).count();
    let limit = op.intent.concurrency.unwrap_or(usize::MAX);
    let free = limit.saturating_sub(running + progress.slots.count());
    let busy = running + progress.slots.unreleased;
    let ahead = limit.clamp(MIN_PREFLIGHTS_AHEAD, MAX_PREFLIGHTS_AHEAD);
    let others = op.intent.preflight.is_some().then(|| Others::of(snapshot, op));
    let mut pass = Pass {
        snapshot,
        op,
        others,
        shared,
        effects: Effects::default(),
        progress,
        free,
        busy,
        ahead,
        queue: None,
        releases: FirstReleases::of(snapshot, nodes),
        admitted: false,
        unanswered: None,
    };
    let mut effects = Effects::default();
    let order: Vec<String> = targets::order(snapshot, nodes).into_iter().cloned().collect();
    for name in order {
        let Some(entry) = nodes.get_mut(&name) else { continue };
        let why = match (entry.phase, &closed) {
            (Phase::Pending, Some(why)) => Some(why.clone()),
            (Phase::Pending, None) => pass.node(&name, entry),
            (Phase::Preflight, _) => {
                pass.ahead = pass.ahead.saturating_sub(1);
                pass.behind(&name)
            }
            (Phase::Running | Phase::Completed | Phase::Failed, _) => None,
        };
        let wanted = mem::take(&mut pass.effects);
        let trouble = wanted.trouble(snapshot);
        effects.add(wanted);
        if let Some(why) = why.map(|why| pass.progress.troubles.complete(why, trouble)) {
            waiting.insert(name.clone(), why.clone());
            entry.message = Some(why);
        }
        if matches!(entry.phase, Phase::Pending | Phase::Preflight) {
            pass.progress
                .first
                .get_or_insert_with(|| (name.clone(), entry.message.clone().unwrap_or_default()));
        }
    }
    effects
}

/// Why nothing at all is started.
fn closed(op: &Op, progress: &OpProgress) -> Option<String> {
    if op.deleting {
        return Some("not started: the NodeOp is being deleted".into());
    }
    let stopped = progress.stopped.as_ref().map(|why| format!("not started: {why}"));
    stopped.or_else(|| op.intent.paused.then(|| "waiting: paused (spec.paused)".into()))
}

impl Pass<'_> {
    /// Starts a pending node, or says why not.
    fn node(&mut self, name: &str, entry: &mut NodeStatus) -> Option<String> {
        let Some(view) = self.snapshot.nodes.get(name).filter(|view| !view.deleting) else {
            return self.missing(name, entry);
        };
        if let Some(why) = self.not_ready(view, entry) {
            return Some(why);
        }
        if entry.phase != Phase::Pending {
            return None;
        }
        if entry.node_uid.is_some() {
            self.behind(name);
            return Some("waiting: the node is being given back".into());
        }
        if let Some(why) = self.kept(view) {
            self.behind(name);
            preflight::forget(entry);
            return Some(why);
        }
        // A verdict holds for the boot in which it was given.
        if self.op.intent.preflight.is_some() && entry.boot.as_ref() != Some(&view.boot_id) {
            return self.preflight(view, entry);
        }
        if let Some(why) = entry.target.as_ref().and_then(|release| self.releases.mismatch(view, release)) {
            *entry = ends_untouched(self.snapshot.now, entry, false, preflight::failed(&why));
            return None;
        }
        if let Some(why) = &self.queue {
            self.ahead = self.ahead.saturating_sub(1);
            return Some(why.clone());
        }
        let held = self.hold(view);
        if !matches!(held, Some(Hold::Node(_))) {
            self.ahead = self.ahead.saturating_sub(1);
        }
        match held {
            Some(Hold::Node(why)) => return Some(why),
            Some(Hold::AllAfter(why)) => {
                self.queue = Some(format!("waiting for its turn, after {name}"));
                return Some(why);
            }
            Some(Hold::All(why)) => {
                self.queue = Some(why.clone());
                return Some(why);
            }
            None => {}
        }
        self.free -= 1;
        self.busy += 1;
        take(self.snapshot, self.op, view, entry, self.shared);
        None
    }

    /// Why the node is no matter of a preflight yet. It counts for none of those that are ahead: nothing is
    /// made for it.
    fn kept(&self, view: &NodeView) -> Option<String> {
        let others = self.others.as_ref()?;
        others
            .keep(view)
            .or_else(|| self.shared.nodes.get(&view.name).map(|other| waiting_for(other, "takes the node")))
    }

    /// Starts the preflight if it is not too far ahead.
    fn preflight(&mut self, view: &NodeView, entry: &mut NodeStatus) -> Option<String> {
        self.behind(&view.name);
        if self.ahead == 0 {
            return Some("waiting for its turn".into());
        }
        if let Some(why) = self.admission(view) {
            return Some(why);
        }
        self.ahead -= 1;
        *entry = preflight::begin(self.snapshot.now, view, entry);
        None
    }

    /// Workers are not taken before a control-plane node whose preflight has not spoken yet.
    fn behind(&mut self, name: &str) -> Option<String> {
        if self.snapshot.nodes.get(name).is_some_and(|view| view.control_plane() && view.ready) {
            self.queue.get_or_insert_with(|| format!("waiting for its turn, after {name}"));
        }
        None
    }

    /// A target that is not there: once that is confirmed, nothing has to be done on it.
    fn missing(&mut self, name: &str, entry: &mut NodeStatus) -> Option<String> {
        let question = Question::Node(name.to_owned());
        if self.snapshot.nodes.contains_key(name) {
            return Some("the node is being deleted".into());
        }
        if !self.snapshot.is_gone(&question) {
            self.effects.add(question);
            return Some("checking whether the node still exists".into());
        }
        let message = "Skipped: the node was deleted before its turn".to_owned();
        *entry = ends_untouched(self.snapshot.now, entry, true, message);
        None
    }

    /// A node that is not Ready holds no slot; with `notReadyTimeoutSeconds` it is failed, untouched, after
    /// that long.
    fn not_ready(&mut self, view: &NodeView, entry: &mut NodeStatus) -> Option<String> {
        if view.ready {
            entry.since = None;
            return None;
        }
        if let Some(limit) = self.op.intent.not_ready_timeout {
            // A stamp that lies in the future is of a clock that was wrong.
            let since =
                entry.since.as_ref().map_or(self.snapshot.now, |since| since.0.min(self.snapshot.now));
            entry.since = Some(Time(since));
            let deadline = later(since, limit);
            if self.snapshot.now >= deadline {
                let message = format!(
                    "the node was not Ready for {} s (notReadyTimeoutSeconds), the operation was not started",
                    limit.as_secs()
                );
                *entry = ends_untouched(self.snapshot.now, entry, false, message);
                return None;
            }
            self.effects.add(Effects::wake_at(deadline));
        }
        Some("waiting: the node is not Ready".into())
    }

    fn hold(&mut self, view: &NodeView) -> Option<Hold> {
        if self.free == 0 {
            // With nobody at work no turn will come by itself.
            let held = self.progress.slots.out_of_service.values().next().filter(|_| self.busy == 0);
            let Some(why) = held else { return Some(Hold::AllAfter("waiting for its turn".into())) };
            self.progress.held = true;
            return Some(Hold::All(format!("waiting: {why}")));
        }
        let ordered = |why| {
            if view.control_plane() { Hold::AllAfter(why) } else { Hold::Node(why) }
        };
        if let Some(other) = view.claimed_by.as_ref() {
            return Some(ordered(claimed_by_another(&self.op.id, other)));
        }
        if let Some(other) = self.shared.nodes.get(&view.name) {
            return Some(ordered(waiting_for(other, "takes the node")));
        }
        self.quorum(view).or_else(|| self.prepared(view)).map(Hold::AllAfter)
    }

    /// Why a control-plane node has to wait for others.
    fn quorum(&mut self, view: &NodeView) -> Option<String> {
        if !self.op.intent.disturbs() || !view.control_plane() {
            return None;
        }
        let limit = self.snapshot.settings.control_plane_concurrency;
        let held = self.shared.control_planes(self.snapshot);
        if let Some((key, node)) = held.first().filter(|_| held.len() >= limit) {
            let ours = *key == self.op.id.key();
            let ctx = || {
                format!(
                    "waiting for its turn: control-plane nodes go one at a time, and {node} is in progress"
                )
            };
            return Some(if ours {
                ctx()
            } else {
                waiting_for(key, &format!("has control-plane node {node}"))
            });
        }
        // A control-plane node that failed and is out of service is one that is away, however many may go at
        // once.
        let control_plane =
            |name: &str| self.snapshot.nodes.get(name).is_some_and(|node| node.control_plane());
        let down = self.progress.slots.out_of_service.iter().filter(|(name, _)| control_plane(name));
        if let Some((_, why)) = down.clone().next().filter(|_| held.len() + down.count() >= limit) {
            self.progress.held = self.busy == 0;
            return Some(format!("waiting: {why}"));
        }
        let asked = quorum::ask(self.snapshot, &view.name);
        if !asked.questions.is_empty() {
            self.effects.add(asked);
            return Some("checking that the other control-plane nodes are well".into());
        }
        let not_ready = quorum::others_not_ready(self.snapshot, &view.name);
        self.effects.take(not_ready).map(|why| format!("waiting: {why}"))
    }
}

/// Behind which NodeOp a node waits.
fn waiting_for((namespace, name): &Key, what: &str) -> String {
    format!("waiting for NodeOp {namespace}/{name}, which {what}")
}

/// Takes a node: recorded first, and everything else follows from that.
fn take(snapshot: &Snapshot, op: &Op, view: &NodeView, entry: &mut NodeStatus, shared: &mut Shared) {
    shared.nodes.insert(view.name.clone(), op.id.key());
    if op.intent.disturbs() && view.control_plane() {
        shared.control_planes(snapshot).push((op.id.key(), view.name.clone()));
    }
    // The preflight's verdict stays, in case the node has to be given back untouched; and what the operation is
    // held to.
    let found = Found { target: entry.target.take(), image: entry.image.take(), before: None };
    let work = Working::claims(entry.boot.take(), found);
    *entry = Entry {
        message: Some("being claimed".into()),
        since: Some(snapshot.now),
        node_uid: Some(view.uid.clone()),
        state: State::Working(work.into()),
    }
    .record();
}

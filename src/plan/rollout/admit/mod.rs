//! Admission: which pending nodes start a preflight, which are taken, and why each of the others waits.

mod admission;
mod all;
mod away;
mod disputes;

use std::collections::BTreeMap;

use self::{admission::Admission, away::untouched, disputes::Disputes};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        attempts,
        image::{FirstReleases, Judged},
        model::{
            effects::{Effects, Planned},
            id::Key,
            snapshot::{NodeView, Snapshot},
        },
        node::{
            context::{Op, ends_untouched},
            state::{Entry, ImageRecord, Machine, State, Working},
        },
        quorum,
        rollout::{
            compact::max_in_progress,
            context::{Rollout, RolloutContext},
            not_taken::{Closed, NotTaken, Precedes, Untouched},
            others::{self, Others},
            preflight::{self, PreflightFailure},
        },
        upgrades,
    },
};

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
enum Blocked {
    /// The node alone waits; the next one may go.
    Node(NotTaken),
    /// The node waits, and so do all that come after it: the order is a promise (control-plane nodes first).
    AllAfter(NotTaken),
    /// The node waits, and so do all that come after it, for the very same reason.
    AllAlike(NotTaken),
}

/// One pass over the pending nodes of a NodeOp.
struct Admitter<'a, 's> {
    snapshot: &'a Snapshot,
    op: &'a Op,
    /// Whom a preflight gives way to; nobody if there is no preflight.
    others: Option<&'a Others<'a>>,
    shared: &'s mut Shared,
    /// What is wanted for the node that is being looked at.
    effects: Effects,
    rollout: Rollout,
    /// Slots that are left.
    free: usize,
    /// How many more nodes may be worked on, those included that hold their slot already.
    room: usize,
    /// Nodes that are worked on, or still to be released.
    busy: usize,
    /// How many more preflights may be in progress or waiting for their node's turn. Counted from the front
    /// of the order: a node further back must not use up the number that one further ahead needs, or the
    /// order would never advance.
    preflights_left: usize,
    /// Why no further node is taken; preflights go on.
    queue: Option<NotTaken>,
    /// What the image brought to the nodes before.
    releases: FirstReleases,
    /// Where nodes tell different things of the image.
    disputes: Disputes,
    /// What the API server said in this pass of what we make.
    admission: Admission,
    /// Why nothing at all is started.
    closed: Option<Closed>,
    /// Later rounds of the upgrade take what this one lets go.
    comes_back: bool,
    /// Not only nodes that are gone are to be waited for.
    others_left: bool,
}

/// Gives free slots to pending nodes, in order, and writes the reason of every other.
pub fn fill<'a>(ctx: &'a RolloutContext<'a>, rollout: Rollout, shared: &mut Shared) -> Planned<Rollout> {
    admitter(ctx, rollout, shared).all(Admitter::of_others)
}

fn admitter<'a, 's>(
    ctx: &'a RolloutContext<'a>,
    rollout: Rollout,
    shared: &'s mut Shared,
) -> Admitter<'a, 's> {
    let RolloutContext { snapshot, op, .. } = *ctx;
    let Rollout { nodes, progress, .. } = &rollout;
    let busy = nodes.count(Mark::Running) + progress.slots.unreleased;
    // A node that failed holds a slot of those that the user gives. It is no more in progress.
    let concurrency = op.intent.concurrency.unwrap_or(usize::MAX);
    let free = concurrency.saturating_sub(nodes.count(Mark::Running) + progress.slots.count());
    let room = concurrency.min(max_in_progress(nodes.len())).saturating_sub(busy);
    let is_there = |name: &String| snapshot.nodes.contains_key(name);
    let others_left =
        busy > 0 || nodes.marked([Mark::Pending, Mark::Preflight]).any(|(name, _)| is_there(name));
    let others = ctx.others();
    let releases = FirstReleases::of(snapshot, &op.object, nodes);
    let disputes = Disputes::of(snapshot, op, nodes, &releases, others);
    Admitter {
        snapshot,
        op,
        others,
        shared,
        effects: Effects::default(),
        free,
        room,
        busy,
        preflights_left: op.intent.preflights_at_once,
        queue: None,
        releases,
        disputes,
        admission: Admission::Unasked,
        closed: ctx.closed(progress.stopped.as_ref()),
        comes_back: ctx.upgrade.is_some_and(|upgrade| upgrades::comes_back(upgrade, &op.object)),
        others_left,
        rollout,
    }
}

impl Admitter<'_, '_> {
    /// Starts a node that is not started, or says why not.
    fn entry(&mut self, name: &str, entry: &mut NodeStatus) -> Option<NotTaken> {
        match (entry.phase, &self.closed) {
            (Phase::Pending, Some(why)) => {
                let why = NotTaken::Closed(why.clone());
                self.forget_if_preceded(name, entry);
                Some(why)
            }
            (Phase::Pending, None) => self.node(name, entry),
            (Phase::Preflight, _) => {
                self.preflights_left = self.preflights_left.saturating_sub(1);
                self.no_worker_before(name);
                None
            }
            (Phase::Running | Phase::Completed | Phase::Failed, _) => None,
        }
    }

    /// Starts a pending node, or says why not. What is looked at, in this order:
    ///
    /// 1. whether the Node is there: of one that is gone nothing else is known;
    /// 2. whether the operation is done with it, because a newer upgrade decides what it runs, or a later
    ///    round takes it: then it waits for nothing;
    /// 3. whether people hold it, and 4. whether it is Ready: neither has a preflight, nor a place in the
    ///    order that others would wait for;
    /// 5. whether it is still being given back by this NodeOp, and 6. whether another one has it or takes it
    ///    first: what a preflight found out meanwhile would not be true for long;
    /// 7. whether what was found out of it agrees with other nodes, 8. and whether its run has had its
    ///    attempt: either ends it untouched, before a slot is asked for;
    /// 9. whether its preflight has passed in this boot: else it is begun, ahead of the node's turn;
    /// 10. whether one before it keeps the order, 11. whether there is a slot, and nobody has claimed it, and
    ///     control-plane nodes are well, and the API server admits what is made (see [`Self::blocked`]);
    /// 12. then it is taken. So a node that cannot be taken never uses up a slot.
    fn node(&mut self, name: &str, entry: &mut NodeStatus) -> Option<NotTaken> {
        let Some(view) = self.snapshot.nodes.get(name).filter(|view| !view.deleting) else {
            return self.missing(name, entry);
        };
        if entry.node_uid.is_none()
            && let Some(why) = self.ends(view)
        {
            *entry = untouched(self.snapshot.now, entry, &why);
            return None;
        }
        if view.labels.on_hold() && entry.node_uid.is_none() {
            return Some(self.on_hold(view, entry));
        }
        if let Some(why) = self.not_ready(view, entry) {
            return Some(why);
        }
        if entry.phase != Phase::Pending {
            return None;
        }
        if entry.node_uid.is_some() {
            self.no_worker_before(name);
            return Some(NotTaken::GivenBack);
        }
        if let Some(why) = self.preceded(view) {
            self.no_worker_before(name);
            if entry.boot.is_some() {
                preflight::forget(entry);
            }
            return Some(why);
        }
        // A verdict holds for the boot in which it was given.
        let asks = self.op.intent.preflight.is_some() && entry.boot.as_ref() != Some(&view.boot_id);
        let judged = if asks { Judged::Fits } else { self.judge(view, entry) };
        match judged {
            Judged::Fits => {}
            Judged::Differs(why) => {
                let failure = PreflightFailure::OtherContent(why);
                let end = (failure.reason(), entry.target.take());
                *entry = ends_untouched(self.snapshot.now, entry, end, failure.to_string());
                return None;
            }
            Judged::Disputed(_) if self.disputes.is_decided_by(view) => {}
            Judged::Disputed(why) => {
                self.no_worker_before(name);
                return Some(NotTaken::Disputed(why));
            }
        }
        if attempts::is_spent(&self.op.object, view) {
            *entry = untouched(self.snapshot.now, entry, &Untouched::Attempted);
            return None;
        }
        if asks { self.preflight(view, entry) } else { self.take_or_wait(view, entry) }
    }

    /// Takes a node whose turn it is, or says what it waits for.
    fn take_or_wait(&mut self, view: &NodeView, entry: &mut NodeStatus) -> Option<NotTaken> {
        if let Some(why) = &self.queue {
            self.preflights_left = self.preflights_left.saturating_sub(1);
            return Some(why.clone());
        }
        // One that is taken here is not ahead of its turn any more, and the next preflight begins in the write
        // that takes it.
        let ahead = self.preflights_left.saturating_sub(1);
        match self.blocked(view) {
            Some(Blocked::Node(why)) => return Some(why),
            Some(Blocked::AllAfter(why)) => {
                self.preflights_left = ahead;
                self.queue = Some(NotTaken::TurnAfter(view.name.clone()));
                return Some(why);
            }
            Some(Blocked::AllAlike(why)) => {
                self.preflights_left = ahead;
                self.queue = Some(why.clone());
                return Some(why);
            }
            None => {}
        }
        self.free -= usize::from(!self.rollout.progress.slots.has_own(&view.name));
        self.room -= 1;
        self.busy += 1;
        record_taken(self.snapshot, self.op, view, entry, self.shared);
        None
    }

    /// Why the node is no matter of a preflight yet. It counts for none of those that are ahead: nothing is
    /// made for it.
    fn preceded(&self, view: &NodeView) -> Option<NotTaken> {
        let others = self.others.as_ref()?;
        others.precede(view).or_else(|| self.taken(view)).or_else(|| self.at_work(view))
    }

    /// What a preflight found out about a node is not so any more once somebody else works on it, also while
    /// nothing is started.
    fn forget_if_preceded(&self, name: &str, entry: &mut NodeStatus) {
        let found_out = self.snapshot.nodes.get(name).filter(|_| entry.boot.is_some());
        if found_out.is_some_and(|view| view.labels.on_hold() || self.preceded(view).is_some()) {
            preflight::forget(entry);
        }
    }

    /// The NodeOp that takes the node in this plan.
    fn taken(&self, view: &NodeView) -> Option<NotTaken> {
        let op = self.shared.nodes.get(&view.name)?.clone();
        Some(NotTaken::Other { op, why: Precedes::Takes })
    }

    /// Another NodeOp whose Job is on the node, though nothing says yet that it has the node. The Go operator
    /// knew no claims: until its Jobs are adopted they alone say so, and a second agent must not write to the
    /// disk.
    fn at_work(&self, view: &NodeView) -> Option<NotTaken> {
        let mut jobs = self.snapshot.jobs.on_node(&view.name).filter(|job| job.owner.is_nodeop());
        let job = jobs.find(|job| !job.state.is_over() && !job.is_of(&self.op.id))?;
        let op = (job.namespace.clone(), job.owner.name.clone());
        Some(NotTaken::Other { op, why: Precedes::HasJob(job.name.clone()) })
    }

    /// Starts the preflight if it is not too far ahead.
    fn preflight(&mut self, view: &NodeView, entry: &mut NodeStatus) -> Option<NotTaken> {
        self.no_worker_before(&view.name);
        if self.preflights_left == 0 && !self.disputes.is_asked(&view.name) {
            return Some(NotTaken::Turn);
        }
        if let Some(why) = self.admission(view) {
            return Some(why);
        }
        self.preflights_left = self.preflights_left.saturating_sub(1);
        self.disputes.begins(view);
        *entry = preflight::begin(self.snapshot.now, view, entry);
        None
    }

    /// Closes the queue behind a control-plane node that is Ready: control-plane nodes come first, so no worker
    /// is taken before it.
    fn no_worker_before(&mut self, name: &str) {
        let is_ready = self.snapshot.nodes.get(name).is_some_and(|view| view.ready);
        if is_ready && self.snapshot.is_control_plane_named(name) {
            self.queue.get_or_insert_with(|| NotTaken::TurnAfter(name.to_owned()));
        }
    }

    /// Why the node cannot be taken now, though nothing before it keeps the order.
    fn blocked(&mut self, view: &NodeView) -> Option<Blocked> {
        let slots = &self.rollout.progress.slots;
        if self.room == 0 || self.free == 0 && !slots.has_own(&view.name) {
            // With nobody at work no turn will come by itself.
            let none_comes = self.busy == 0 && !self.is_one_before(view);
            let down = slots.out_of_service.values().next().filter(|_| none_comes);
            let Some(why) = down else { return Some(Blocked::AllAlike(NotTaken::Turn)) };
            self.rollout.progress.blocked = true;
            return Some(Blocked::AllAlike(NotTaken::OutOfService(why.clone())));
        }
        let ordered = |why| {
            if self.snapshot.is_control_plane(view) { Blocked::AllAfter(why) } else { Blocked::Node(why) }
        };
        let holder = others::holder(self.snapshot, self.op, view);
        if let Some(why) = holder.or_else(|| self.taken(view)).or_else(|| self.at_work(view)) {
            return Some(ordered(why));
        }
        self.quorum(view).or_else(|| self.prepared(view)).map(Blocked::AllAfter)
    }

    /// Whether a node comes before this one that takes a slot which it holds already.
    fn is_one_before(&self, view: &NodeView) -> bool {
        let mut down =
            self.rollout.progress.slots.to_be_taken.iter().filter_map(|name| self.snapshot.nodes.get(name));
        down.any(|node| self.snapshot.is_control_plane(node) || !self.snapshot.is_control_plane(view))
    }

    /// Why a control-plane node has to wait for others.
    fn quorum(&mut self, view: &NodeView) -> Option<NotTaken> {
        if !self.op.intent.disturbs() || !self.snapshot.is_control_plane(view) {
            return None;
        }
        let limit = self.snapshot.config.control_plane_concurrency;
        let under_way = self.shared.control_planes(self.snapshot);
        if let Some((key, node)) = under_way.first().filter(|_| under_way.len() >= limit) {
            let (op, node) = (key.clone(), node.clone());
            let other = || NotTaken::Other { op, why: Precedes::HasControlPlane(node.clone()) };
            return Some(if *key == self.op.id.key() { NotTaken::ControlPlane(node) } else { other() });
        }
        // A control-plane node that failed and is out of service is one that is away, however many may go at
        // once.
        let down = self.rollout.progress.slots.out_of_service.iter();
        let down = down.filter(|(name, _)| **name != view.name && self.snapshot.is_control_plane_named(name));
        if let Some((_, why)) = down.clone().next().filter(|_| under_way.len() + down.count() >= limit) {
            self.rollout.progress.blocked = self.busy == 0;
            return Some(NotTaken::OutOfService(why.clone()));
        }
        let asked = quorum::ask(self.snapshot, &view.name);
        if asked.is_asking() {
            self.effects.add(asked);
            return Some(NotTaken::QuorumUnread);
        }
        let not_ready = quorum::others_not_ready(self.snapshot, &view.name);
        self.effects.absorb(not_ready).map(NotTaken::Quorum)
    }
}

/// Takes a node: recorded first, and everything else follows from that.
fn record_taken(snapshot: &Snapshot, op: &Op, view: &NodeView, entry: &mut NodeStatus, shared: &mut Shared) {
    shared.nodes.insert(view.name.clone(), op.id.key());
    if op.intent.disturbs() && snapshot.is_control_plane(view) {
        shared.control_planes(snapshot).push((op.id.key(), view.name.clone()));
    }
    // The preflight's verdict stays, in case the node has to be given back untouched; and what the
    // operation is held to.
    let (target, before) = (entry.target.take(), entry.before.take());
    let found = ImageRecord { target, image: entry.image.take(), before, not_tried: None };
    let work = Working::claims(Machine::of(snapshot, view), entry.boot.take(), found);
    *entry = Entry {
        message: Some("being claimed".into()),
        since: Some(snapshot.now.into()),
        node_uid: Some(view.uid.clone()),
        state: State::Working(work.into()),
    }
    .record();
}

#[cfg(test)]
mod tests;

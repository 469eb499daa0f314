//! Admission: which pending nodes start a preflight, which are taken, and why each of the others waits.

mod admission;
mod ahead;
mod all;
mod away;
mod disputes;
mod order;
mod scouts;

use std::{cell::OnceCell, collections::BTreeMap, sync::Arc};

use self::{admission::Admission, disputes::Disputes, scouts::Scouts};
use crate::{
    api::node_statuses::Mark,
    plan::{
        attempts,
        image::{FirstReleases, Judged},
        model::{
            effects::{Effects, Planned},
            id::Key,
            snapshot::{NodeView, Snapshot},
        },
        node::{
            context::Op,
            state::{Entry, Machine, Pending, Preflight, Working},
            waiting::Precedes,
        },
        quorum,
        rollout::{
            compact::max_in_progress,
            context::{Rollout, RolloutContext},
            not_taken::{Closed, NotTaken, Untouched},
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

    /// The operation takes the node: recorded first, and everything else follows from that.
    fn takes(&mut self, snapshot: &Snapshot, op: &Op, view: &NodeView) {
        self.nodes.insert(view.name.clone(), op.id.key());
        if op.intent.disturbs() && snapshot.is_control_plane(view) {
            self.control_planes(snapshot).push((op.id.key(), view.name.clone()));
        }
    }
}

/// What becomes of a node that the operation has still to take.
enum PendingPlan {
    /// It waits for this, and this is what is known of it.
    Waits(NotTaken, Pending),
    /// Its preflight begins.
    Asks(Preflight),
    /// It is taken.
    Taken { node_uid: String, work: Box<Working> },
    /// The operation is done with it. It was neither brought to the image's release nor found at it: what its
    /// preflight said of that proves nothing any more.
    Ends(Untouched),
    /// It fails, untouched.
    Fails(PreflightFailure),
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
    /// Whether nodes are asked before they are taken.
    asks: bool,
    /// Whom a preflight gives way to; nobody if it asks nothing that others change.
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
    /// Which nodes go first for the image.
    scouts: Scouts,
    /// Why no further node is taken; preflights go on.
    queue: Option<NotTaken>,
    /// What the image brought to the nodes before.
    releases: FirstReleases,
    /// Where nodes tell different things of the image.
    disputes: Disputes,
    /// What the API server said in this pass of what we make.
    admission: Admission,
    /// Whether a node has failed untouched, as the status says.
    failed_untouched: OnceCell<bool>,
    /// Why nothing at all is started.
    closed: Option<Closed>,
    /// Later rounds of the upgrade take what this one lets go.
    comes_back: bool,
    /// Whether a target is left whose Node exists, or a node is still in progress. While there is one, a
    /// target without a Node is waited for, and not ended.
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
    let scouts = Scouts::of(snapshot, op, nodes);
    let disputes = Disputes::of(snapshot, op, nodes, &releases, others);
    Admitter {
        snapshot,
        op,
        asks: ahead::asks_each(op, nodes),
        others,
        shared,
        effects: Effects::default(),
        free,
        room,
        busy,
        preflights_left: if progress.starves { 0 } else { op.intent.preflights_at_once },
        scouts,
        queue: None,
        releases,
        disputes,
        admission: Admission::Unasked,
        failed_untouched: OnceCell::new(),
        closed: ctx.closed(progress.stopped.as_ref()),
        comes_back: ctx.upgrade.is_some_and(|upgrade| upgrades::comes_back(upgrade, &op.object)),
        others_left,
        rollout,
    }
}

impl Admitter<'_, '_> {
    /// What becomes of a pending node, of a NodeOp that may start none.
    fn pending(&mut self, name: &str, entry: &Entry, pending: &Pending) -> PendingPlan {
        match &self.closed {
            Some(why) => {
                PendingPlan::Waits(NotTaken::Closed(why.clone()), self.forgotten_if_preceded(name, pending))
            }
            None => self.node(name, entry, pending),
        }
    }

    /// What becomes of a pending node. What is looked at, in this order:
    ///
    /// 1. whether the Node is there: of one that is gone nothing else is known;
    /// 2. whether the operation is done with it, because a newer upgrade decides what it runs, or a later
    ///    round takes it: then it waits for nothing;
    /// 3. whether people hold it: it has no preflight then, nor a place in the order that others wait for;
    /// 4. whether it is Ready: else the same is so;
    /// 5. whether it is still being given back by this NodeOp;
    /// 6. whether another NodeOp has it or takes it first: what a preflight found out meanwhile would not be
    ///    true for long;
    /// 7. whether what was found out of it agrees with other nodes: else it ends before a slot is asked for;
    /// 8. whether its run has had its attempt: then it does, too;
    /// 9. whether its preflight has passed in this boot: else it is begun, ahead of the node's turn;
    /// 10. whether one before it keeps the order;
    /// 11. whether there is a slot, nobody has claimed it, control-plane nodes are well, and the API server
    ///     admits what is made (see [`Self::blocked`]);
    /// 12. whether its preflight has passed in the last hour: else it is begun anew;
    /// 13. then it is taken. So a node that cannot be taken never uses up a slot.
    fn node(&mut self, name: &str, entry: &Entry, pending: &Pending) -> PendingPlan {
        let Some(view) = self.snapshot.nodes.get(name).filter(|view| !view.deleting) else {
            return self.missing(name, pending);
        };
        let is_given_back = entry.node_uid.is_none();
        if let Some(why) = self.ends(view).filter(|_| is_given_back) {
            return PendingPlan::Ends(why);
        }
        if view.labels.on_hold() && is_given_back {
            return self.on_hold(view, pending);
        }
        if !view.ready {
            return self.not_ready(pending);
        }
        let pending = Pending { not_ready_since: None, ..pending.clone() };
        if !is_given_back {
            self.no_worker_before(name);
            return PendingPlan::Waits(NotTaken::GivenBack, pending);
        }
        if let Some(why) = self.preceded(view) {
            self.no_worker_before(name);
            return PendingPlan::Waits(why, preflight::forget(&pending));
        }
        // A verdict holds for the boot in which it was given.
        let asks = self.asks && !view.bootless && pending.passed_in.as_ref() != Some(&view.boot_id);
        let judged = if asks { Judged::Fits } else { self.judge(view, &pending.found) };
        match judged {
            Judged::Fits => {}
            Judged::Differs(why) => return PendingPlan::Fails(PreflightFailure::OtherContent(why)),
            Judged::Disputed(_) if self.disputes.is_decided_by(view) => {}
            Judged::Disputed(why) => {
                self.no_worker_before(name);
                return PendingPlan::Waits(NotTaken::Disputed(why), pending);
            }
        }
        if attempts::is_spent(&self.op.object, view) {
            return PendingPlan::Ends(Untouched::Attempted);
        }
        let next = if asks { self.asks(view, &pending) } else { self.takes(view, entry, &pending) };
        next.unwrap_or_else(|why| PendingPlan::Waits(why, pending))
    }

    /// Takes a node whose turn it is; the error is what it waits for.
    fn takes(&mut self, view: &NodeView, entry: &Entry, pending: &Pending) -> Result<PendingPlan, NotTaken> {
        if let Some(why) = &self.queue {
            self.preflights_left = self.preflights_left.saturating_sub(1);
            return Err(why.clone());
        }
        // One that is taken here is not ahead of its turn any more, and the next preflight begins in the
        // write that takes it.
        let ahead = self.preflights_left.saturating_sub(1);
        match self.blocked(view) {
            Some(Blocked::Node(why)) => return Err(why),
            Some(Blocked::AllAfter(why)) => {
                self.preflights_left = ahead;
                let follows_control_plane = self.snapshot.is_control_plane(view);
                self.queue = Some(if follows_control_plane {
                    NotTaken::TurnAfterControlPlane
                } else {
                    NotTaken::Turn
                });
                return Err(why);
            }
            Some(Blocked::AllAlike(why)) => {
                self.preflights_left = ahead;
                self.queue = Some(why.clone());
                return Err(why);
            }
            None if self.is_outdated(view, entry) => return self.asks(view, pending),
            None => {}
        }
        self.free -= usize::from(!self.rollout.progress.slots.has_own(&view.name));
        self.room -= 1;
        self.busy += 1;
        self.shared.takes(self.snapshot, self.op, view);
        // The preflight's verdict stays, in case the node has to be given back untouched; and what the
        // operation is held to.
        let passed_in = pending.passed_in.clone().filter(|boot| *boot == view.boot_id);
        let found = pending.found.clone();
        let work = Working::claims(Machine::of(self.snapshot, view), passed_in, found);
        Ok(PendingPlan::Taken { node_uid: view.uid.clone(), work: work.into() })
    }

    /// Why the node is no matter of a preflight yet. It counts for none of those that are ahead: nothing is
    /// made for it.
    fn preceded(&self, view: &NodeView) -> Option<NotTaken> {
        let others = self.others.as_ref()?;
        others.precede(view).or_else(|| self.taken(view)).or_else(|| self.at_work(view))
    }

    /// What a preflight found out about a node is not so any more once somebody else works on it, also while
    /// nothing is started.
    fn forgotten_if_preceded(&self, name: &str, pending: &Pending) -> Pending {
        let found_out = self.snapshot.nodes.get(name).filter(|_| pending.passed_in.is_some());
        let is_preceded = |view: &Arc<NodeView>| view.labels.on_hold() || self.preceded(view).is_some();
        if found_out.is_some_and(is_preceded) { preflight::forget(pending) } else { pending.clone() }
    }

    /// The NodeOp that takes the node in this plan.
    fn taken(&self, view: &NodeView) -> Option<NotTaken> {
        let op = self.shared.nodes.get(&view.name)?.clone();
        Some(NotTaken::Other { op, why: Precedes::Takes })
    }

    /// Another NodeOp whose Job is on the node, though nothing says yet that it has the node.
    fn at_work(&self, view: &NodeView) -> Option<NotTaken> {
        let mut jobs = self.snapshot.jobs.on_node(&view.name);
        let job = jobs.find(|job| !job.state.is_over() && others::works_by(self.snapshot, self.op, job))?;
        let op = (job.namespace.clone(), job.owner.name.clone());
        Some(NotTaken::Other { op, why: Precedes::HasJob(job.name.clone()) })
    }

    /// Why the node cannot be taken now, though nothing before it keeps the order.
    fn blocked(&mut self, view: &NodeView) -> Option<Blocked> {
        let slots = &self.rollout.progress.slots;
        if self.room == 0 || self.free == 0 && !slots.has_own(&view.name) {
            // With nobody at work no turn will come by itself.
            let none_comes = self.busy == 0 && !self.is_one_before(view);
            let down = slots.out_of_service.values().next().filter(|_| none_comes);
            let Some(why) = down.cloned() else { return Some(Blocked::AllAlike(NotTaken::Turn)) };
            self.rollout.progress.blocked = Some(why);
            return Some(Blocked::AllAlike(NotTaken::SlotsHeld));
        }
        let ordered = |why| {
            if self.is_of_the_order(view) { Blocked::AllAfter(why) } else { Blocked::Node(why) }
        };
        let holder = others::holder(self.snapshot, self.op, view);
        if let Some(why) = holder.or_else(|| self.taken(view)).or_else(|| self.at_work(view)) {
            return Some(ordered(why));
        }
        self.quorum(view).or_else(|| self.prepared(view)).map(Blocked::AllAfter)
    }

    /// Why a control-plane node has to wait for others.
    fn quorum(&mut self, view: &NodeView) -> Option<NotTaken> {
        if !self.is_of_the_order(view) {
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
            self.rollout.progress.blocked = (self.busy == 0).then(|| why.clone());
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

#[cfg(test)]
mod tests;

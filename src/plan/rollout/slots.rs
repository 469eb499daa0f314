//! Slots that are taken though nobody works on their node: one that is not proved to be given back yet, and
//! one that failed and is out of service since.
//!
//! A node that failed is down as people count: cordoned, or not Ready. If its slot were free, one bad image
//! would take one node after the other. So it holds its slot until somebody has put it back into service, or
//! has deleted it; also in the next run of its upgrade ([`left_over`]). A node that was away is back in
//! service once it has been Ready for a while, as we saw it.
//!
//! So does one that was done and is not Ready soon after: that may well be what was done to it, as with an
//! image that comes up and does not stay so, and the next node would follow. And one that failed while nobody
//! could say whether its reboot had been asked for: it may go down after it was given back.

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeStatus, Phase, RebootStatus},
    },
    plan::{
        attempts::{self, PROBATION},
        model::{
            effects::{Effects, Planned},
            failing,
            question::Question,
            snapshot::{NodeClass, NodeView},
            stamp::Stamp,
            time::later,
            why::{WaitReason, Why},
        },
        quorum::READY_FOR,
        release::Unreleased,
        rollout::{
            context::{Rollout, RolloutContext},
            left_over,
            out_of_service::{self, NotReleased, OutOfService},
        },
    },
};

/// One pass over the nodes of a NodeOp that are not worked on.
struct SlotSearch<'a> {
    ctx: &'a RolloutContext<'a>,
    /// What stands in status.
    old: &'a NodeStatuses,
    rollout: Rollout,
    effects: Effects,
}

/// Finds the slots that are taken, and records which are free again.
///
/// That a node is free again stands in status, like that it was taken: a view of the node that is older than
/// our claim shows it free as well, and a leader with such a view would take one node too many. So a live
/// read proves it.
pub fn find<'a>(ctx: &'a RolloutContext<'a>, old: &'a NodeStatuses, rollout: Rollout) -> Planned<Rollout> {
    let mut search = SlotSearch { ctx, old, rollout, effects: Effects::default() };
    let before = search.rollout.nodes.clone();
    let held = before.marked([Mark::NotGivenBack, Mark::HoldsSlot]);
    for (name, entry) in held.filter(|(_, entry)| entry.phase != Phase::Running) {
        let mut entry = entry.clone();
        if entry.node_uid.is_some() {
            search.unreleased(name, &mut entry);
        } else {
            search.down(name, &mut entry);
        }
        search.rollout.nodes.insert(name, entry);
    }
    for node in ctx.snapshot.nodes.that_are(NodeClass::NotReady) {
        search.done(node);
    }
    let left = left_over::find(ctx.snapshot, ctx.op, &search.rollout.nodes);
    let slots = &mut search.rollout.progress.slots;
    for (name, left) in left {
        if let OutOfService::ReadySince { since, waited, .. } = &left.why {
            search.effects.add(Effects::wake_at(later(*since, *waited)));
        }
        slots.to_be_taken.extend(left.is_next.then(|| name.clone()));
        slots.out_of_service.entry(name).or_insert(left.why);
    }
    Planned { value: search.rollout, effects: search.effects }
}

impl SlotSearch<'_> {
    fn unreleased(&mut self, name: &str, entry: &mut NodeStatus) {
        let node =
            self.ctx.snapshot.nodes.get(name).filter(|node| Some(&node.uid) == entry.node_uid.as_ref());
        let question = Question::Node(name.to_owned());
        let why = if node.is_some_and(|node| node.claimed_by.as_ref() == Some(&self.ctx.op.id)) {
            let release = self.ctx.releases.of(name);
            if let Some(error) = release.and_then(|release| release.last_error.clone()) {
                self.rollout.progress.failures.note(error);
            }
            release.and_then(|release| release.unreleased.clone()).unwrap_or(Unreleased::EndUnrecorded)
        } else if self.old.get(name).is_some_and(|old| old.phase == Phase::Running) {
            // Not before it stands in status that the node is given up: a claim may be under way that relies
            // on it.
            Unreleased::EndUnrecorded
        } else if self.ctx.snapshot.answer(&question).is_some() {
            entry.node_uid = None;
            let out_of_service = node.and_then(|node| out_of_service::of(self.ctx.op, entry, node));
            entry.holds_slot = out_of_service.is_some().then_some(true);
            if let Some(why) = out_of_service {
                self.occupy(name, why);
            }
            return;
        } else {
            self.ask(question);
            Unreleased::Unconfirmed
        };
        self.rollout.progress.slots.unreleased += 1;
        if entry.phase.is_final() {
            let why = NotReleased { node: name.to_owned(), why };
            self.rollout.waiting.insert(name.to_owned(), Why::new(WaitReason::Release, &why));
            self.rollout.progress.slots.unreleased_why.get_or_insert(why);
        }
    }

    /// A node that was out of service when it was given back, or went out of it soon after.
    fn down(&mut self, name: &str, entry: &mut NodeStatus) {
        let question = Question::Node(name.to_owned());
        let node = self.ctx.snapshot.nodes.get(name);
        if let Some(why) = node.and_then(|node| out_of_service::of(self.ctx.op, entry, node)) {
            return self.occupy(name, why);
        }
        if let Some(why) = node.and_then(|node| self.was_just_away(node)) {
            return self.occupy(name, why);
        }
        if self.ctx.snapshot.answer(&question).is_some() {
            entry.holds_slot = None;
            return;
        }
        self.ask(question);
        self.occupy(name, OutOfService::Unconfirmed(name.to_owned()));
    }

    /// Why a node that is Ready is not back in service for all that: it was away a moment ago, and a live read
    /// of a node that flaps shows no more than the cache.
    fn was_just_away(&mut self, node: &NodeView) -> Option<OutOfService> {
        let waited = self.ctx.op.intent.min_ready.max(READY_FOR);
        let since = self.ctx.snapshot.ready_since(node)?;
        let until = later(since, waited);
        if self.ctx.snapshot.now >= until {
            return None;
        }
        self.effects.add(Effects::wake_at(until));
        Some(OutOfService::ReadySince { node: node.name.clone(), since, waited })
    }

    /// A node that is not Ready. If it was done lately, or failed with a reboot that may yet have come, it
    /// holds a slot from now on. With very many targets nothing tells when one was done (see `compact`), and
    /// only whether it is Ready when it is given back counts.
    fn done(&mut self, node: &NodeView) {
        let may_reboot = |entry: &NodeStatus| {
            entry.phase == Phase::Failed && entry.reboot_status == Some(RebootStatus::Pending)
        };
        let is_done = |entry: &&NodeStatus| {
            (entry.phase == Phase::Completed || may_reboot(entry)) && entry.node_uid.is_none()
        };
        let entry =
            self.rollout.nodes.get(&node.name).filter(is_done).filter(|entry| entry.holds_slot.is_none());
        // Another operation that has the node by now may be what takes it down.
        let Some(entry) = entry.filter(|_| node.claimed_by.is_none()) else { return };
        let Some(done) = entry.last_updated.as_ref().map(Stamp::from) else { return };
        let now = self.ctx.snapshot.now;
        let soon = attempts::went_down_soon(self.ctx.snapshot, node, done);
        if !soon.unwrap_or_else(|| now < later(done.written(), PROBATION)) {
            return;
        }
        let Some(why) = out_of_service::of(self.ctx.op, entry, node) else { return };
        let question = Question::Node(node.name.clone());
        if self.ctx.snapshot.answer(&question).is_some() {
            self.rollout.nodes.update(&node.name, |entry| entry.holds_slot = Some(true));
        } else {
            self.ask(question);
        }
        self.rollout.progress.slots.out_of_service.insert(node.name.clone(), why);
    }

    /// Asks, and says so in the NodeOp's message if the API server has not answered that for a while.
    fn ask(&mut self, question: Question) {
        if let Some(failure) = failing::of(self.ctx.snapshot, &question) {
            self.rollout.progress.failures.note(failure);
        }
        self.effects.add(question);
    }

    fn occupy(&mut self, name: &str, why: OutOfService) {
        self.rollout.waiting.insert(name.to_owned(), Why::new(WaitReason::OutOfService, &why));
        self.rollout.progress.slots.out_of_service.insert(name.to_owned(), why);
    }
}

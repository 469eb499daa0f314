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

use std::sync::Arc;

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{Phase, RebootStatus},
    },
    plan::{
        attempts::{self, PROBATION},
        model::{
            effects::{Effects, Planned},
            failing,
            question::Question,
            snapshot::{NodeClass, NodeView},
            time::later,
            why::{WaitReason, Why},
        },
        node::state::{Entry, Over, State},
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
        let entry = Entry::read(entry);
        let entry = match &entry.state {
            State::Over(over) if entry.node_uid.is_none() => {
                let over = search.down(name, over.clone());
                Entry { state: State::Over(over), ..entry }
            }
            State::Pending(_) | State::Preflight(_) | State::Working(_) | State::Over(_) => {
                search.unreleased(name, entry)
            }
        };
        search.rollout.nodes.insert(name, entry.record());
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
    /// A node that is not worked on, and is not proved to be given back.
    fn unreleased(&mut self, name: &str, entry: Entry) -> Entry {
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
            return self.given_back(name, entry, node);
        } else {
            self.ask(question);
            Unreleased::Unconfirmed
        };
        self.rollout.progress.slots.unreleased += 1;
        if let State::Over(_) = entry.state {
            let why = NotReleased { node: name.to_owned(), why };
            self.rollout.waiting.insert(name.to_owned(), Why::new(WaitReason::Release, &why));
            self.rollout.progress.slots.unreleased_why.get_or_insert(why);
        }
        entry
    }

    /// A live read has shown that the node is given back: its slot is free, if it is in service.
    fn given_back(&mut self, name: &str, mut entry: Entry, node: Option<&Arc<NodeView>>) -> Entry {
        entry.node_uid = None;
        if let State::Over(over) = &mut entry.state {
            let why = node.and_then(|node| out_of_service::of(self.ctx.op, over, node));
            over.holds_slot = why.is_some();
            if let Some(why) = why {
                self.occupy(name, why);
            }
        }
        entry
    }

    /// A node that was out of service when it was given back, or went out of it soon after.
    fn down(&mut self, name: &str, over: Over) -> Over {
        let question = Question::Node(name.to_owned());
        let node = self.ctx.snapshot.nodes.get(name);
        let why = node.and_then(|node| out_of_service::of(self.ctx.op, &over, node));
        if let Some(why) = why.or_else(|| self.was_just_away(node?)) {
            self.occupy(name, why);
            return over;
        }
        if self.ctx.snapshot.answer(&question).is_some() {
            return Over { holds_slot: false, ..over };
        }
        self.ask(question);
        self.occupy(name, OutOfService::Unconfirmed(name.to_owned()));
        over
    }

    /// Why a node that is Ready is not back in service for all that: it was away a moment ago, and a live
    /// read of a node that flaps shows no more than the cache.
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
        let Some(entry) = self.rollout.nodes.get(&node.name).map(Entry::read) else { return };
        let Entry { node_uid: None, since: Some(done), state: State::Over(over), .. } = entry else { return };
        let may_reboot = |over: &Over| over.reboot == Some(RebootStatus::Pending);
        // Another operation that has the node by now may be what takes it down.
        let is_anothers = node.claimed_by.is_some();
        if over.holds_slot || is_anothers || !(over.succeeded || may_reboot(&over)) {
            return;
        }
        let now = self.ctx.snapshot.now;
        let soon = attempts::went_down_soon(self.ctx.snapshot, node, done);
        if !soon.unwrap_or_else(|| now < later(done.written(), PROBATION)) {
            return;
        }
        let Some(why) = out_of_service::of(self.ctx.op, &over, node) else { return };
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

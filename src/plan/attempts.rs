//! One attempt: a node is tried once by each run of an upgrade, however many rounds follow.
//!
//! What was tried stands on the Node (see [`crate::api::attempts`]), in the patch that claims it, by every
//! run, so that an upgrade that becomes `Continuous` later knows what its run has tried. In a run of a
//! `Continuous` upgrade it is written, too, before it is said that a node failed untouched: else the next
//! round would try it, and fail, and so on for ever.
//!
//! A preflight that could not run has found nothing out, and has done nothing: a registry may be down for a
//! night, or a token have expired. That is no attempt, and the run leaves the node for [`LEAVES_FOR`].
//!
//! When a run was done with a node stands there, too: one that goes down soon after may well do so because of
//! what was done to it, as with an image that comes up and does not stay so, and that is known to whoever
//! looks at the node, also when the run is over.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        attempts::{Attempts, End},
        names,
        nodeop::NodeOp,
        owner,
        run::Run,
    },
    plan::model::{
        action::{Action, NodeChange},
        snapshot::{NodeView, Snapshot},
        stamp::Stamp,
        time::{earlier, later},
    },
};

/// How long after it was done a node that is not Ready any more is taken to be so because of that.
pub const PROBATION: SignedDuration = SignedDuration::from_mins(10);

/// How far two clocks may be apart, neither of which is ours, where what the one says is all that there is to
/// compare with what the other says. Better a slot too many for a node that is down than the next node down.
const APART: SignedDuration = SignedDuration::from_mins(10);

/// How long a run leaves a node whose preflight could not run. Each try may pull gigabytes, and keeps a round
/// from its end.
const LEAVES_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Whether a run has had its attempt at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    None,
    Had,
    /// It came to nothing, and there is another one, then.
    NotBefore(Timestamp),
    /// What stands there is not of our making. It counts as one: a node that is tried again and again is
    /// worse than one that somebody has to look at.
    Unreadable,
}

impl Attempt {
    /// Until when the run leaves the node, if that is still to come. What lies further ahead was written by a
    /// clock that was wrong.
    pub fn waits_until(self, now: Timestamp) -> Option<Timestamp> {
        let Self::NotBefore(at) = self else { return None };
        (now < at && at <= later(now, LEAVES_FOR)).then_some(at)
    }
}

/// What stands on a node of a run.
pub fn of(node: &NodeView, uid: &str, generation: i64) -> Attempt {
    match node.annotations.get(names::ATTEMPTED).map(|text| Attempts::read(text)) {
        None => Attempt::None,
        Some(None) => Attempt::Unreadable,
        Some(Some(all)) => match all.of(uid).filter(|(of, _)| *of >= generation) {
            None => Attempt::None,
            Some((_, End::NotBefore(at))) => Attempt::NotBefore(at),
            Some((_, End::Open | End::Well(_))) => Attempt::Had,
        },
    }
}

/// Whether any run of the upgrade has tried the node; nothing if no upgrade has, as far as the node says.
pub fn has_tried(node: &NodeView, uid: &str) -> Option<bool> {
    let is_said = node.annotations.contains_key(names::ATTEMPTED);
    is_said.then(|| matches!(of(node, uid, i64::MIN), Attempt::Had | Attempt::NotBefore(_)))
}

/// The upgrade and the run of a NodeOp, if an upgrade made it.
fn run(op: &NodeOp) -> Option<(&str, Run)> {
    Some((owner::upgrade_uid(&op.metadata)?, Run::of(&op.metadata)?))
}

/// Whether a NodeOp is a round that followed the first NodeOp of its run.
pub fn is_later_round(op: &NodeOp) -> bool {
    run(op).is_some_and(|(_, run)| run.round > 0)
}

/// Whether an earlier round of the run, or this one, has had its attempt at the node.
pub fn is_spent(op: &NodeOp, node: &NodeView) -> bool {
    let is_one = |attempt: Attempt| matches!(attempt, Attempt::Had | Attempt::Unreadable);
    run(op).is_some_and(|(uid, run)| run.round > 0 && is_one(of(node, uid, run.generation)))
}

/// Whether the node is not Ready, and went down soon after an upgrade was done with it; or did so the last
/// time that it was not, as far as we saw it.
pub fn went_down(snapshot: &Snapshot, node: &NodeView) -> bool {
    let absence = snapshot.absence(node);
    if node.claimed_by.is_some() {
        return false;
    }
    if node.ready && absence.is_none() {
        // Since we lead, we would have seen it go.
        let before_us = |done| !snapshot.is_of_our_time(done);
        let was_done = || read(node).is_some_and(|all| all.done().any(before_us));
        return snapshot.may_be_just_back(node) && was_done();
    }
    let seen = absence.and_then(|absence| absence.seen);
    let told = absence.map_or(node.ready_changed, |absence| absence.told);
    let soon = |done: Timestamp| {
        // One that was back before it was done was away for what was done to it, as for its reboot.
        let before = absence.and_then(|absence| absence.back).filter(|_| node.ready);
        let is_later = before.is_none_or(|back| back > snapshot.begun_at(done));
        is_later
            && match seen {
                Some(down) => is_soon(snapshot, down, done.into()),
                None => told.is_some_and(|down| is_told_soon(down, done)),
            }
    };
    read(node).is_some_and(|all| all.done().any(soon))
}

/// Whether a node went down soon after it was done, as that stands in a status or on the node. What was done
/// before we led counts from when we began to lead: nobody knows by what clock that was written. Nothing, if
/// the node was down already by then, and nobody says since when.
pub fn went_down_soon(snapshot: &Snapshot, node: &NodeView, done: Stamp) -> Option<bool> {
    let absence = snapshot.absence(node).filter(|absence| absence.back.is_none())?;
    match absence.seen {
        Some(down) => Some(is_soon(snapshot, down, done)),
        None => absence.told.map(|down| is_told_soon(down, done.written())),
    }
}

/// Of a node that was down when we came, two clocks that are none of ours say it.
fn is_told_soon(down: Timestamp, done: Timestamp) -> bool {
    (earlier(done, APART)..later(done, PROBATION + APART)).contains(&down)
}

fn is_soon(snapshot: &Snapshot, down: Timestamp, done: Stamp) -> bool {
    down < later(snapshot.begun_at(done), PROBATION)
}

fn read(node: &NodeView) -> Option<Attempts> {
    Attempts::read(node.annotations.get(names::ATTEMPTED)?)
}

/// The annotation by which the node says that the NodeOp tries it, or that it was done with the node at that
/// time and found it well.
pub fn record(op: &NodeOp, node: &NodeView, done: Option<Timestamp>) -> Option<(String, Option<String>)> {
    recorded(op, node, done.map_or(End::Open, End::Well))
}

fn recorded(op: &NodeOp, node: &NodeView, end: End) -> Option<(String, Option<String>)> {
    let (uid, run) = run(op)?;
    let all = read(node).unwrap_or_default().with(uid, run.generation, end).to_string();
    let is_new = node.annotations.get(names::ATTEMPTED) != Some(&all);
    is_new.then(|| (names::ATTEMPTED.to_owned(), Some(all)))
}

/// Says on a node that the NodeOp has tried it, or that this came to nothing, if it does not say so.
pub fn mark(op: &NodeOp, node: &NodeView, to_nothing: bool, now: Timestamp) -> Option<Action> {
    let (uid, run) = run(op)?;
    let said = of(node, uid, run.generation);
    if said == Attempt::Had || to_nothing && said.waits_until(now).is_some() {
        return None;
    }
    let end = if to_nothing { End::NotBefore(later(now, LEAVES_FOR)) } else { End::Open };
    let change =
        NodeChange { annotations: recorded(op, node, end).into_iter().collect(), ..NodeChange::default() };
    Some(Action::patch_node(node, change))
}

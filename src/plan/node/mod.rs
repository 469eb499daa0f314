//! One node that an operation works on: from its status and what the cluster shows to its next status, and
//! what to do for it.
//!
//! ```text
//!   Pending ─▶ Claim ─▶ Drain ─▶ Job ─▶ Reboot ─▶ Verify ─▶ Completed
//!                 └───────┴───────┴───────┴─────────┴──────▶ Failed
//! ```
//!
//! That is the outline; [`stage::TRANSITIONS`] is the whole table.
//!
//! Two rules make a crash harmless. A fact that an action relies on is in status before the action: the Job
//! is made *suspended* and may run only once its UID stands in status, so a Job that is missing then has run
//! or been deleted, and one that is missing before has never run. And every action is one that may be
//! repeated.
//!
//! In reading order:
//!
//! - `stage`: the table; `state`: an entry, parsed; `context`: what a step looks at, and what it comes to;
//! - `claim`, `prepare` (with `drain` and `waiter`), `job`, `reboot`, `verify`: the steps;
//! - `give_up`, `cancel`, `lost`: the ways out; `machine`: whether the Node is still the machine that was
//!   taken;
//! - `cordon`, `traffic`, `hint_patch`, `enforce`: what is set on the node, and set again;
//! - `waiting`, `failure`: why a node does not move, or has failed, each with its sentence;
//! - `legacy`, `stamps`: what the Go operator, or a leader with another clock, left behind.

pub mod cancel;
mod claim;
pub mod context;
pub mod cordon;
pub mod drain;
pub mod end;
mod enforce;
pub mod failure;
#[cfg(test)]
pub mod fixtures;
mod give_up;
pub mod hint_patch;
mod job;
pub mod legacy;
mod lost;
mod machine;
mod prepare;
mod reboot;
pub mod stage;
#[cfg(test)]
mod stamps;
pub mod state;
mod traffic;
pub mod verify;
pub mod waiter;
pub mod waiting;

use self::{
    context::{Decision, EntryPlan, NodeContext, Op},
    failure::Failure,
    machine::Presence,
    state::{At, Entry, Over, State, Working},
    waiting::Waiting,
};
use crate::plan::model::{
    effects::{Effects, Planned},
    snapshot::Snapshot,
    why::{WaitReason, Why},
};

/// Advances a node that is worked on. `missing`: what somebody took out of its entry.
pub fn advance_node(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    (entry, work): (&Entry, &Working),
    missing: Option<&'static str>,
) -> Planned<EntryPlan> {
    let mut work = work.clone();
    if let Some(node) = machine::taken(snapshot, name, entry.node_uid.as_ref()) {
        work.machine.note(snapshot, node);
    }
    let waits = |why: Waiting| Planned::from(EntryPlan::Wait(why.into()));
    let node = match machine::find(snapshot, op, name, entry, &work) {
        Presence::Here(node) => node,
        Presence::Rejoined(node) => {
            let (node_uid, state) = (Some(node.uid.clone()), State::Working(work.into()));
            return EntryPlan::Record(Box::new(Entry { node_uid, state, ..entry.clone() })).into();
        }
        Presence::Awaited { why, until } => return waits(why).with(Effects::wake_at(until)),
        Presence::Unconfirmed(question) => return waits(Waiting::NodeUnconfirmed).with(question),
        Presence::Lost { why, there } => return lost::fail(snapshot, op, name, there, &work, why),
    };
    let ctx = NodeContext { snapshot, op, node, entry, work: &work };
    let mut planned = match (&work.given_up, missing) {
        (Some(given_up), _) => give_up::carry_out(&ctx, given_up),
        (None, Some(missing)) => Failure::Tampered { missing }.into(),
        (None, None) => step(&ctx),
    };
    // Whoever gives up does nothing else: what the step wanted done goes with its decision. But the pods of
    // which it tells are watched until it is recorded.
    if let Decision::GiveUp(given_up) = planned.value {
        let watched_nodes = planned.effects.watched_nodes;
        planned = give_up::begin(&ctx, given_up).with(Effects { watched_nodes, ..Effects::default() });
    }
    planned.map(|decision| match decision {
        Decision::Record(entry) => EntryPlan::Record(Box::new(remark(&ctx, *entry))),
        Decision::Wait(why) => EntryPlan::Wait(why.into()),
        Decision::GiveUp(given_up) => {
            EntryPlan::Wait(Why { reason: WaitReason::Ending, message: given_up.reason })
        }
    })
}

/// Says of a node that is done that it stays cordoned, if it does.
fn remark(ctx: &NodeContext<'_>, mut entry: Entry) -> Entry {
    let completed = matches!(entry.state, State::Over(Over { succeeded: true, .. }));
    if let Some(why) = cordon::stays(ctx.node).filter(|_| completed && ctx.op.intent.cordon) {
        entry.message = entry.message.map(|said| format!("{said}; {why}"));
    }
    entry
}

fn step(ctx: &NodeContext<'_>) -> Planned<Decision> {
    match &ctx.work.at {
        At::Claim { passed_in } => claim::advance(ctx, passed_in.as_deref()),
        At::Drain(drain) => prepare::advance(ctx, drain),
        At::Job(step) => drain::keep_clear(ctx, job::advance(ctx, step)),
        At::Reboot(reboot) => reboot::advance(ctx, reboot),
        At::Verify(verify) => verify::advance(ctx, verify),
    }
}

#[cfg(test)]
mod tests;

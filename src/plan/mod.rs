//! The planner: a total, synchronous function from one moment of the cluster to what to do, what to ask, and why
//! everything else stands still.
//!
//! No client, no clock, no environment, no randomness, no logging: time is `snapshot.now`. One planner decides for all
//! NodeOps on one snapshot. In reading order:
//!
//! - `snapshot`, `question`, `action`: what goes in and what comes out;
//! - `intent`, `targets`, `names`, `selector`: a spec read once, the nodes that it means, what we call things;
//! - `rollout`, `admit`, `guard`, `preflight`, `ahead`: who is next, and who has to wait;
//! - `step`, `claim`, `cordon`, `drain`, `waiter`, `job`, `last_words`, `extend`, `reboot`: one node in hand, step by step;
//! - `call_off`, `release`, `status`, `trouble`: ending what could still act, giving nodes back, telling people, also of what
//!   keeps failing;
//! - `upgrades`, `facts`, `labels`, `verify`: upgrades of Kairos, what nodes say of themselves, and what that proves;
//! - `takeover`: what the Go operator left;
//! - `check`: what must never be, as a function that tests call after every plan.

pub mod action;
mod admit;
mod ahead;
mod call_off;
pub mod check;
mod claim;
pub mod cordon;
pub mod drain;
mod extend;
mod facts;
#[cfg(test)]
mod fixtures;
mod guard;
pub mod intent;
mod job;
pub mod labels;
mod last_words;
pub mod names;
mod preflight;
pub mod question;
mod reboot;
mod release;
mod rollout;
pub mod selector;
pub mod snapshot;
pub mod status;
mod step;
mod takeover;
mod targets;
mod trouble;
mod upgrades;
pub mod verify;
mod waiter;

use action::Plan;
use snapshot::Snapshot;

/// Plans everything.
pub fn plan(s: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    upgrades::plan(s, &mut plan);
    let mut shared = rollout::Shared::default();
    let mut ops: Vec<_> = s.ops.values().collect();
    ops.sort_by_key(|op| (op.metadata.creation_timestamp.as_ref().map(|time| time.0), &op.metadata.namespace, &op.metadata.name));
    for op in ops {
        rollout::plan(s, op, &mut shared, &mut plan);
    }
    release::sweep(s, &mut plan);
    facts::sweep(s, &mut plan);
    carry_over(s, &mut plan);
    plan
}

/// A decision that hangs on two answers may ask for the second only once it has the first, which would be forgotten by
/// then. So whenever something new is asked, what was answered is asked again with it, and both come in one snapshot.
fn carry_over(s: &Snapshot, plan: &mut Plan) {
    if plan.questions.iter().any(|question| s.answer(question).is_none()) {
        plan.questions.extend(s.answers.keys().cloned());
    }
}

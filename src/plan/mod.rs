//! The planner: a total, synchronous function from one moment of the cluster to what to do, what to ask, and
//! why everything else stands still.
//!
//! No client, no clock, no environment, no randomness, no logging: time is `snapshot.now`. One planner
//! decides for all NodeOps on one snapshot. In reading order:
//!
//! - `model`: what goes in and what comes out, a snapshot and a plan; nothing there decides;
//! - `rollout`: one NodeOp, which nodes it is about, who is next, and who has to wait;
//! - `node`: one node that an operation has claimed, step by step, to its end;
//! - `conditions`: the conditions and Events of an operation as a whole, for both kinds;
//! - `attempts`: which runs have tried a node, as it stands on the node;
//! - `image`: the content that the image's name stood for, which is the same on all nodes;
//! - `quorum`: the limits that hold across NodeOps;
//! - `pod_news`: what keeps a pod whose status says nothing, as Events tell it;
//! - `release`: giving nodes back, from what stands on the nodes themselves;
//! - `node_conditions`: what nodes say of operations, in conditions of their own;
//! - `facts`: what nodes run and how they booted, read by a pod on each;
//! - `upgrades`: the NodeOp of each NodeOpUpgrade, and what is said of it;
//! - `check`: what must never be, as a function that tests call after every plan.

mod attempts;
pub mod check;
pub mod conditions;
pub mod facts;
#[cfg(test)]
pub mod fixtures;
pub mod image;
pub mod model;
pub mod node;
mod node_conditions;
mod pod_news;
mod quorum;
pub mod release;
pub mod rollout;
mod upgrades;

use std::{collections::BTreeMap, mem};

use model::{
    action::Action,
    effects::{Effects, Plan, Planned},
    failing,
    snapshot::Snapshot,
};

/// Plans everything.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let upgrades = upgrades::plan_upgrades(snapshot);
    let releases = release::find_releases(snapshot);
    let Planned { value: waiting, effects: rolled } = rollout::plan_all(snapshot, &releases);
    let conditions = Effects::act(node_conditions::sweep(snapshot));
    let facts = facts::sweep(snapshot);
    let released = releases.into_effects();
    // Notices are published with the status write of the NodeOp or upgrade that they are about; `Plan::new`
    // drops the rest. None of these four writes such a status itself, so a notice of theirs would be lost.
    debug_assert!(
        [&upgrades, &released, &conditions, &facts].iter().all(|effects| effects.notices.is_empty())
    );
    let effects = Effects::all([upgrades, rolled, released, conditions, facts]);
    let effects = Effects { actions: join_node_patches(snapshot, effects.actions), ..effects };
    let mut plan = Plan::new(effects, waiting);
    carry_over(snapshot, &mut plan);
    plan
}

/// What is changed of a node by decisions that know nothing of each other is one patch: of two that are made
/// from one version of it the server refuses the second. So it does where both change the same, and then the
/// next plan sees what came of the first. Where changes of a node keep failing each goes by itself again: a
/// policy that refuses labels must not keep a node cordoned.
fn join_node_patches(snapshot: &Snapshot, actions: Vec<Action>) -> Vec<Action> {
    let mut joined: Vec<Action> = Vec::with_capacity(actions.len());
    let mut patches = BTreeMap::new();
    for mut action in actions {
        let apart = failing::of(snapshot, &action).is_some();
        if let Action::PatchNode { name, change, .. } = &mut action
            && !apart
        {
            let at = *patches.entry(name.clone()).or_insert(joined.len());
            if let Some(Action::PatchNode { change: first, .. }) = joined.get_mut(at) {
                let Some(rest) = first.join(mem::take(change)) else { continue };
                *change = rest;
            }
        }
        joined.push(action);
    }
    joined
}

/// A decision that needs two answers may ask for the second only once it has the first, which would be
/// forgotten by then. So whenever something new is asked, what was answered is asked again with it, and both
/// come in one snapshot.
fn carry_over(snapshot: &Snapshot, plan: &mut Plan) {
    if plan.questions.iter().any(|question| snapshot.answer(question).is_none()) {
        plan.questions.extend(snapshot.answers.keys().cloned());
    }
}

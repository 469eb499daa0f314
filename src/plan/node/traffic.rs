//! Taking a node out of load balancers when it is claimed, waiting until they have seen that, and leaving in
//! them the last node that serves.
//!
//! The label goes with the claim's own patch, and comes off with the uncordon's ([`super::hints`]). The wait
//! counts from when this process first saw the label on the node, by its own clock: another leader waits
//! anew, longer so, never too short.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{names, node_statuses::Mark},
    plan::{
        model::{
            action::Notice,
            effects::Planned,
            intent::Intent,
            question::Question,
            snapshot::{NodeView, Snapshot},
            time::later,
        },
        node::context::NodeContext,
    },
};

/// Whether the node is to leave load balancers with its claim. `None`: this has to be read first.
///
/// Not if no other node would be left in them: on a site of few nodes that would take everything down, for
/// the sake of a few connections. Of all NodeOps it is read live which nodes they are about to take, and of
/// one other node that it serves: of two leaders that both have recorded which node they take, at least one
/// sees the other's.
pub fn decide(ctx: &NodeContext<'_>) -> Planned<Option<bool>> {
    if ctx.op.intent.leaves_balancers.is_none() || ctx.node.labels.contains_key(names::NOT_BALANCED) {
        return Some(false).into();
    }
    let taken = taken(ctx.snapshot);
    let others = ctx.snapshot.nodes.values().filter(|other| other.name != ctx.node.name);
    let Some(other) = others.into_iter().find(|other| serves(other) && !taken.contains(other.name.as_str()))
    else {
        return Some(false).into();
    };
    let questions = [Question::AllNodeOps, Question::Node(other.name.clone())];
    let open = ctx.snapshot.unanswered(questions);
    if open.is_asking() { Planned::from(None).with(open) } else { Some(true).into() }
}

/// Whether load balancers can rely on a node. Not on one that is cordoned: they would send to it, but
/// somebody works on it, or is about to, and the pods that are evicted here could not go there. Nor on one
/// that is no machine, which a program plays.
fn serves(node: &NodeView) -> bool {
    let is_free = !node.unschedulable && !node.deleting && node.claimed_by.is_none();
    node.ready && !node.bootless && is_free && !node.labels.contains_key(names::NOT_BALANCED)
}

/// The nodes that an operation has taken out of service, or has recorded that it takes.
fn taken(snapshot: &Snapshot) -> BTreeSet<&str> {
    let ops = snapshot.ops.values().filter(|op| !op.is_over() && Intent::of(op).disturbs());
    let statuses = ops.flat_map(|op| op.status.iter().map(|status| &status.node_statuses));
    let recorded = statuses.flat_map(|nodes| nodes.marked([Mark::Running, Mark::NotGivenBack]));
    recorded.map(|(name, _)| name.as_str()).collect()
}

/// Until when load balancers get to leave a node that we took out of them, if that is still to come.
pub fn awaited_until(ctx: &NodeContext<'_>) -> Option<Timestamp> {
    let wait = ctx.op.intent.leaves_balancers.filter(|_| ctx.node.left_balancers())?;
    let until = later(ctx.snapshot.left_balancers_since(ctx.node), wait);
    Some(until).filter(|until| ctx.snapshot.now < *until)
}

/// Says of a node that is claimed that it stays in load balancers against the spec.
pub fn say_stays(ctx: &NodeContext<'_>) -> Option<Notice> {
    let was_labelled = ctx.node.hints.as_ref().is_some_and(|hints| hints.has(names::NOT_BALANCED));
    let leaves = was_labelled || ctx.node.labels.contains_key(names::NOT_BALANCED);
    if leaves || ctx.op.intent.leaves_balancers.is_none() {
        return None;
    }
    let name = ctx.node.name.clone();
    let message = format!(
        "node {name}: it stays in load balancers, in which no other node would be left that is Ready, schedulable and in no \
         operation; its connections end with its pods"
    );
    Some(Notice { warning: true, reason: "StaysInLoadBalancers", message, node: Some(name) })
}

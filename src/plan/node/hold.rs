//! Holding a node that was taken, until it reboots: its claim and its cordon are set again if somebody else
//! removed them.

use crate::plan::{
    model::{
        action::{Action, NodeChange},
        question::Question,
    },
    node::{
        context::{Decision, NodeContext},
        cordon::{self, Take},
    },
};

/// Holds what we took until the node reboots: an uncordon by somebody else is undone, a removed claim is set
/// again.
pub fn hold(ctx: &mut NodeContext<'_>) -> Option<Decision> {
    match cordon::take(ctx.snapshot, ctx.node, &ctx.op.id, ctx.op.intent.cordon) {
        Take::Held => None,
        Take::Patch(change) => {
            if let Some(wait) = still_ours(ctx, &change) {
                return Some(wait);
            }
            let (name, resource_version) = (ctx.node.name.clone(), ctx.node.resource_version.clone());
            let again = change.unschedulable.is_some();
            ctx.act(Action::PatchNode { name, resource_version, change });
            let what = if again {
                "cordoning the node again, which somebody uncordoned"
            } else {
                "claiming the node"
            };
            Some(Decision::Wait(what.into()))
        }
        Take::Ask(question) => {
            ctx.ask(question);
            None
        }
        Take::Taken(other) => {
            let message = format!(
                "the node was taken over by NodeOp {}/{}: its claim annotation was changed",
                other.namespace, other.name
            );
            ctx.status.job_uid.is_none().then(|| ctx.fail(message))
        }
    }
}

/// A claim is set only on the word of the NodeOp itself: in an old view a node that was given back looks like
/// one that is about to be taken, or whose claim somebody removed.
pub fn still_ours(ctx: &mut NodeContext<'_>, change: &NodeChange) -> Option<Decision> {
    let question = Question::Op(ctx.op.id.clone());
    let known = ctx.snapshot.answer(&question).or_else(|| ctx.snapshot.answer(&Question::AllNodeOps));
    if change.claimed_by.is_none() || known.is_some() {
        return None;
    }
    ctx.ask(question);
    Some(Decision::Wait("checking that the node is still to be claimed".into()))
}

//! Holding a node that was taken, until it reboots: its claim and its cordon are set again if somebody else removed them.

use crate::plan::{
    model::{
        action::{Action, NodeChange},
        question::Question,
    },
    node::{
        cordon::{self, Take},
        turn::{Decision, Turn},
    },
};

/// Holds what we took until the node reboots: an uncordon by somebody else is undone, a removed claim is set again.
pub fn hold(turn: &mut Turn<'_>) -> Option<Decision> {
    match cordon::take(turn.s, turn.node, &turn.op.me, turn.op.intent.cordon) {
        Take::Held => None,
        Take::Patch(change) => {
            if let Some(wait) = still_ours(turn, &change) {
                return Some(wait);
            }
            let (name, resource_version) = (turn.node.name.clone(), turn.node.resource_version.clone());
            let again = change.unschedulable.is_some();
            turn.act(Action::Node { name, resource_version, change });
            let what = if again { "cordoning the node again, which somebody uncordoned" } else { "claiming the node" };
            Some(Decision::Wait(what.into()))
        }
        Take::Ask(question) => {
            turn.ask(question);
            None
        }
        Take::Taken(other) => {
            let message = format!("the node was taken over by NodeOp {}/{}: its claim annotation was changed", other.namespace, other.name);
            turn.status.job_uid.is_none().then(|| turn.fail(message))
        }
    }
}

/// A claim is set only on the word of the NodeOp itself: in an old view a node that was given back looks like one that
/// is about to be taken, or whose claim somebody removed.
pub fn still_ours(turn: &mut Turn<'_>, change: &NodeChange) -> Option<Decision> {
    let question = Question::Op(turn.op.me.clone());
    let known = turn.s.answer(&question).or_else(|| turn.s.answer(&Question::Rivals));
    if change.claimed_by.is_none() || known.is_some() {
        return None;
    }
    turn.ask(question);
    Some(Decision::Wait("checking that the node is still to be claimed".into()))
}

//! What nodes say of operations in conditions of their own, at every change of a node.

use kairos_operator::{
    api::nodeop::{Phase, Step},
    plan::model::lifecycle::{Lifecycle, said_by},
};
use kairos_sim::Change;
use serde_json::Value;

use super::{CLAIMED_BY, Past, owner, text};

/// An entry of a node's conditions.
fn entry(node: &Value, condition: Lifecycle) -> Option<&Value> {
    let entries = node["status"]["conditions"].as_array()?;
    entries.iter().find(|entry| entry["type"] == condition.kind())
}

/// Whose an entry is, if it is an operation's.
fn ours(node: &Value, condition: Lifecycle) -> Option<String> {
    said_by(text(entry(node, condition)?, "/message")).map(|op| op.uid)
}

/// What a node says in an operation's name.
pub fn said(node: &Value) -> Vec<&'static str> {
    Lifecycle::ALL.into_iter().filter(|one| ours(node, *one).is_some()).map(Lifecycle::kind).collect()
}

impl Past<'_> {
    pub(super) fn says(&mut self, change: &Change) {
        let (node, after) = (&change.key.name, &*change.object);
        let Some(before) = change.before.as_deref().filter(|_| !self.is_bad(node)) else { return };
        for condition in Lifecycle::ALL {
            let theirs = entry(before, condition).filter(|_| ours(before, condition).is_none());
            if theirs.is_some() && theirs != entry(after, condition) {
                self.broken(format!(
                    "{node} does not say any more what somebody else had it say: {theirs:?}"
                ));
            }
            let Some(op) = ours(after, condition).filter(|op| ours(before, condition).as_ref() != Some(op))
            else {
                continue;
            };
            let claim = owner(after, CLAIMED_BY);
            let step =
                self.entry(&op, node).filter(|entry| entry.phase == Phase::Running).and_then(|it| it.step);
            let fits = match condition {
                // A drain that is over at once moves on while this is being said.
                Lifecycle::Draining => matches!(step, Some(Step::Drain | Step::Job)),
                Lifecycle::Maintenance => true,
                Lifecycle::Drained => {
                    matches!(step, None | Some(Step::Job | Step::Reboot | Step::Verify))
                }
            };
            if (claim.as_ref() != Some(&op) || !fits) && !self.rivals() {
                self.broken(format!(
                    "{node} says {condition:?} for {op}; its claim is {claim:?}, its step {step:?}"
                ));
            }
        }
    }
}

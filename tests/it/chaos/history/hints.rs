//! What nodes tell autoscalers, at every change of a node: ours while an operation has the node, else what
//! others have said.

use kairos_operator::{api::names, plan::model::hints::Hints};
use kairos_sim::Change;
use serde_json::Value;

use super::{CLAIMED_BY, Past, balancers, owner};

/// An annotation of a node.
pub fn annotation(node: &Value, name: &str) -> Option<String> {
    node["metadata"]["annotations"][name].as_str().map(str::to_owned)
}

impl Past<'_> {
    /// Somebody who is not of ours said something to autoscalers.
    pub(super) fn told(&mut self, node: &str, name: &'static str, value: &Option<String>) {
        self.foreign_hints.insert((node.to_owned(), name), value.clone());
        if name == names::NOT_BALANCED {
            self.labelled(node);
        }
    }

    /// A node joined: what it says to autoscalers is its own.
    pub(super) fn joined_with_hints(&mut self, change: &Change) {
        for (name, _) in names::KEEPS_FROM_SCALE_DOWN {
            self.told(&change.key.name, name, &annotation(&change.object, name));
        }
        let (node, label) = (change.key.name.clone(), balancers::label(&change.object));
        self.off.remove(&node);
        self.foreign_hints.insert((node, names::NOT_BALANCED), label);
    }

    /// Somebody who is none of those people changed a node.
    pub(super) fn hinted(&mut self, change: &Change) {
        let (node, after) = (&change.key.name, &*change.object);
        let text = annotation(after, names::AUTOSCALER_HINTS);
        let hints: Option<Hints> = text.as_ref().and_then(|text| text.parse().ok());
        let claim = owner(after, CLAIMED_BY);
        if self.is_bad(node) {
            return;
        }
        let kept = balancers::is_kept_off(after);
        if text.is_some() && !kept && hints.as_ref().map(|hints| &hints.by.uid) != claim.as_ref() {
            self.broken(format!("{node} has hints of {text:?} and a claim of {claim:?}"));
        }
        // Nobody else says anything to remediators here.
        let left = after["metadata"]["labels"][names::NOT_REMEDIATED].is_string();
        if left != hints.as_ref().is_some_and(|hints| hints.has(names::NOT_REMEDIATED)) {
            self.broken(format!("{node} has hints of {text:?}, and remediators leave it: {left}"));
        }
        let claimed = change.before.as_ref().is_some_and(|before| owner(before, CLAIMED_BY).is_none());
        for (name, asks) in names::KEEPS_FROM_SCALE_DOWN {
            let stands = annotation(after, name);
            let theirs = self.foreign_hints.get(&(node.clone(), name)).cloned().flatten();
            let ours = stands.as_deref() == Some(asks)
                && hints.as_ref().is_some_and(|hints| hints.before.contains_key(name));
            if stands != theirs && !ours {
                self.broken(format!("{node} tells autoscalers {name}={stands:?}, and was told {theirs:?}"));
            }
            if claimed && claim.is_some() && stands.as_deref() != Some(asks) {
                self.broken(format!("{node} is claimed, and autoscalers are told {name}={stands:?}"));
            }
        }
    }
}

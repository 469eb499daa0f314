//! Who is out of load balancers, at every change of a node: those that an operation has taken out, until it
//! gives them back or somebody uncordons them, and those of other people.

use std::time::Duration;

use kairos_operator::{api::names, plan::model::hints::Hints};
use kairos_sim::Change;
use serde_json::Value;

use super::{CLAIMED_BY, CORDONED_BY, Past, hints::annotation, intent, owner, text};

/// For this time the operator may not know yet what others have just done to a node that it relied on.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The label by which load balancers leave a node.
pub fn label(node: &Value) -> Option<String> {
    node["metadata"]["labels"][names::NOT_BALANCED].as_str().map(str::to_owned)
}

fn hints(node: &Value) -> Option<Hints> {
    annotation(node, names::AUTOSCALER_HINTS)?.parse().ok()
}

/// Whether an operation has taken a node out of load balancers.
fn is_off(node: &Value) -> bool {
    let ours = hints(node).is_some_and(|hints| hints.has(names::NOT_BALANCED));
    ours && label(node).as_deref() == Some(names::NOT_BALANCED_VALUE)
}

/// Whether nothing is left on a node of an operation but what goes when somebody uncordons it.
pub fn is_kept_off(node: &Value) -> bool {
    let failed = text(node, CLAIMED_BY).is_empty() && text(node, CORDONED_BY).contains("!failed");
    failed && hints(node).is_some_and(|hints| hints.before.keys().all(|name| name == names::NOT_BALANCED))
}

/// What a node that comes to rest says of us to load balancers, unless it is cordoned because it failed.
pub fn left(node: &Value) -> Option<String> {
    let kept = node["spec"]["unschedulable"] == true && is_kept_off(node);
    (is_off(node) && !kept).then(|| format!("{} is left out of load balancers", text(node, "/metadata/name")))
}

impl Past<'_> {
    /// A node joined, or somebody labelled one: what load balancers relied on may just have gone.
    pub(super) fn labelled(&mut self, node: &str) {
        self.off.remove(node);
        self.unsure_until = self.at + UNKNOWN;
    }

    /// Somebody who is none of those people changed a node.
    pub(super) fn balanced(&mut self, change: &Change) {
        let (name, after) = (&change.key.name, &*change.object);
        if self.is_bad(name) {
            return;
        }
        let stands = label(after);
        let theirs = self.foreign_hints.get(&(name.clone(), names::NOT_BALANCED)).cloned().flatten();
        if stands != theirs && !is_off(after) {
            self.broken(format!("{name} is labelled {stands:?} for load balancers, and was {theirs:?}"));
        }
        if !is_off(after) {
            self.off.remove(name);
            return;
        }
        if owner(after, CLAIMED_BY).is_none() && !is_kept_off(after) {
            self.broken(format!("{name} is nobody's, and out of load balancers"));
        }
        if self.off.contains_key(name) {
            return;
        }
        self.off.insert(name.clone(), self.at);
        let wants = |op: String| self.known.get(&op).is_some_and(|op| intent(op).leaves_balancers.is_some());
        if !owner(after, CLAIMED_BY).is_some_and(wants) {
            self.broken(format!("{name} leaves load balancers, and nobody wanted that"));
        }
        let mut others = self.nodes.iter().filter(|(other, _)| *other != name);
        if others.all(|(_, other)| label(other).is_some()) && self.at > self.unsure_until {
            self.broken(format!("{name} was the last node in load balancers"));
        }
    }

    /// A node is disturbed for this NodeOp: load balancers have had their time to leave it.
    pub(super) fn disturbed(&mut self, op: &str, node: &str) {
        let wait = self.known.get(op).and_then(|op| intent(op).leaves_balancers).unwrap_or_default();
        let Ok(wait) = Duration::try_from(wait) else { return };
        if let Some(since) = self.off.get(node)
            && self.at < *since + wait
            && self.claim(node).as_deref() == Some(op)
        {
            self.broken(format!("{node} is disturbed {:?} after it left load balancers", self.at - *since));
        }
    }
}

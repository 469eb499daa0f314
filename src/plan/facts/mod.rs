//! Which nodes' facts are read, and when: at first sight of a node, after each of its boots, and when our
//! schema changes.
//!
//! The annotation `facts-of` says what has been read, so a restarted or newly elected operator makes no pod.
//! Ten nodes are read at a time; those that an upgrade waits for come first, are not counted, and do not have
//! to be Ready yet. A pod that only its own kubelet can end must not keep the others waiting when that
//! kubelet is gone: pods are counted on Ready nodes alone, and one whose node is away, or that takes too
//! long, is deleted. A pod that failed stays, as the memory of when and how often, until its successor is
//! made.

pub mod labels;
mod next;
mod obstacle;
mod pod;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;

pub use self::obstacle::obstacle;
use self::{
    next::Next,
    pod::{delete, make, ours},
    slots::{AT_ONCE, busy},
};
use crate::plan::model::{
    effects::Effects,
    snapshot::{PodView, Snapshot, Standing},
    time::later,
};

/// How long a node may have been there before our cache shows it: the pod may be another leader's, made for
/// it.
const NODE_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Reads what is to be read, and clears what has been.
pub fn sweep(snapshot: &Snapshot) -> Effects {
    let mut pods: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in ours(snapshot) {
        pods.entry(&pod.node).or_default().push(pod);
    }
    let mut effects = Effects::default();
    let mut free = AT_ONCE.saturating_sub(busy(snapshot).len());
    // Of all other nodes there is nothing to read, and nothing to clear.
    let unread = snapshot.nodes.by_name(Standing::Unread).keys().map(String::as_str);
    let concerned: BTreeSet<&str> = unread.chain(pods.keys().copied()).collect();
    for node in concerned.into_iter().filter_map(|name| snapshot.nodes.get(name)) {
        let of_node = pods.remove(node.name.as_str()).unwrap_or_default();
        if let Next::Make { attempt, last_error, waited_for } =
            effects.absorb(next::of_node(snapshot, node, &of_node))
            && (waited_for || free > 0)
        {
            free -= usize::from(!waited_for);
            effects.add(make(snapshot, node, attempt, last_error));
        }
    }
    for pod in pods.into_values().flatten() {
        let unseen = later(snapshot.first_seen(pod), NODE_VISIBLE_WITHIN);
        if snapshot.now >= unseen {
            effects.add(delete(pod, "its node is gone"));
        } else if !pod.deleting {
            effects.add(Effects::wake_at(unseen));
        }
    }
    effects
}

#[cfg(test)]
mod tests;

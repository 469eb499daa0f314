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
    effects::{Effects, Planned},
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
    let mut free = AT_ONCE.saturating_sub(busy(snapshot).len());
    // Of all other nodes there is nothing to read, and nothing to clear.
    let unread = snapshot.nodes.by_name(Standing::Unread).keys().map(String::as_str);
    let concerned: BTreeSet<&str> = unread.chain(pods.keys().copied()).collect();
    let nodes = concerned.into_iter().filter_map(|name| snapshot.nodes.get(name));
    let read = nodes.map(|node| {
        let pods = pods.get(node.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Planned { value: next, effects } = next::of_node(snapshot, node, pods);
        if let Next::Make { attempt, last_error, waited_for } = next
            && (waited_for || free > 0)
        {
            free -= usize::from(!waited_for);
            return Effects::all([effects, make(snapshot, node, attempt, last_error).into()]);
        }
        effects
    });
    let without_node = pods.iter().filter(|(node, _)| !snapshot.nodes.contains_key(**node));
    let lost = without_node.flat_map(|(_, pods)| pods).map(|pod| lose(snapshot, pod));
    read.chain(lost).collect()
}

/// Deletes a pod whose node is gone, once it would have been seen if it were there.
fn lose(snapshot: &Snapshot, pod: &PodView) -> Effects {
    let unseen = later(snapshot.first_seen(pod), NODE_VISIBLE_WITHIN);
    if snapshot.now >= unseen {
        delete(pod, "its node is gone")
    } else if pod.deleting {
        Effects::default()
    } else {
        Effects::wake_at(unseen)
    }
}

#[cfg(test)]
mod tests;

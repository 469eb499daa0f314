//! Which nodes' facts are read, and when: at first sight of a node, after each of its boots, and when our
//! schema changes.
//!
//! The annotation `facts-of` says what has been read, so a restarted or newly elected operator makes no pod.
//! Ten nodes are read at a time; those that an upgrade waits for come first, are not counted, and do not have
//! to be Ready yet. A pod that only its own kubelet can end must not keep the others waiting when that
//! kubelet is gone: pods are counted on Ready nodes alone, and one whose node is away, or that takes too
//! long, is deleted. An upgrade that waits judges by what the pod says, which is written on the Node with its
//! release. A pod that failed stays, as the memory of when and how often, until its successor is
//! made.

pub mod labels;
mod next;
mod obstacle;
mod pod;
mod slots;

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use self::{
    next::FactsStep,
    pod::{delete, make},
    slots::{Reader, Reading},
};
pub use self::{obstacle::obstacle, pod::said};
use crate::plan::model::{
    effects::{Effects, Planned},
    snapshot::{NodeClass, NodeView, Snapshot},
    time::later,
};

/// How long a node may have been there before our cache shows it: the pod may be another leader's, made for
/// it.
const NODE_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Reads what is to be read, and clears what has been.
pub fn sweep(snapshot: &Snapshot) -> Effects {
    let reading = Reading::of(snapshot);
    let mut free = reading.free();
    let read = concerned(snapshot, &reading).into_iter().map(|node| {
        let Planned { value: next, effects } = next::of_node(&reading, node);
        if let FactsStep::Make { attempt, last_error, waited_for } = next
            && (waited_for || free > 0)
        {
            free -= usize::from(!waited_for);
            return Effects::all([effects, make(snapshot, node, attempt, last_error, waited_for).into()]);
        }
        effects
    });
    let lost = reading.nodes().iter().filter(|node| !snapshot.nodes.contains_key(**node));
    let lost = lost.flat_map(|node| reading.of_node(node)).map(|reader| lose(snapshot.now, &reader));
    read.chain(lost).collect()
}

/// The nodes that something may be done for now: at an installation all of them are to be read, and it is not
/// the turn of most. Nodes that could not be read before come last: they must not keep a node that has just
/// joined waiting.
fn concerned<'a>(snapshot: &'a Snapshot, reading: &Reading<'a>) -> Vec<&'a Arc<NodeView>> {
    let (read, waited_for) = (reading.nodes(), reading.waited_for());
    let unread = snapshot.nodes.by_name(NodeClass::ToBeRead).keys().map(String::as_str);
    let unread = unread.filter(|name| !read.contains(name) && !waited_for.contains(name));
    let waited_for = waited_for.iter().copied().filter(|name| !read.contains(name));
    let mut tried: Vec<(i32, &str)> = read.iter().map(|name| (reading.tries(name), *name)).collect();
    tried.sort_unstable();
    let names = unread.take(reading.free()).chain(waited_for).chain(tried.into_iter().map(|(_, name)| name));
    names.filter_map(|name| snapshot.nodes.get(name)).collect()
}

/// Deletes a pod whose node is gone, once it would have been seen if it were there.
fn lose(now: Timestamp, Reader { pod, seen }: &Reader<'_>) -> Effects {
    let unseen = later(*seen, NODE_VISIBLE_WITHIN);
    if now >= unseen {
        delete(pod, "its node is gone")
    } else if pod.deleting {
        Effects::default()
    } else {
        Effects::wake_at(unseen)
    }
}

#[cfg(test)]
mod tests;

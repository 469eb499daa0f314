//! What is done with each pod of a node: evict it, wait for it, leave it, or refuse to drain at all. Each
//! with a reason.
//!
//! kubectl's filters: DaemonSets, static pods, local storage, pods that nobody would make again, selectors;
//! before them, what is ours. A pod that is left anyway is not waited for when it is being deleted: as with
//! kubectl, the end of a static pod's mirror or of a DaemonSet's pod keeps no node from its operation.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::names,
    plan::model::{
        intent::DrainIntent,
        selector,
        snapshot::{NodePod, Owner},
        time::later,
    },
};

/// What is done with a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictionDecision {
    Evict,
    /// It is ending already.
    AwaitDeletion,
    /// It stays where it is.
    Skip(&'static str),
    /// kubectl would not drain the node while this pod is there.
    Refuse(&'static str),
}

impl EvictionDecision {
    /// Why kubectl would refuse, if it would.
    pub fn refusal(&self) -> Option<&'static str> {
        if let Self::Refuse(why) = self { Some(why) } else { None }
    }
}

/// Why a pod is left that came to the node while it was drained, and does so for ever.
pub const COMES_BACK: &str = "it came after the drain had started, and would come back";

/// Decides about one pod. `ending`: until when it may take to end, by our clock, if its deletion was asked
/// for; `ours`: it belongs to a NodeOp, or to the Job of one; `stays_away`: once evicted, it does not come
/// back to the node at once, as far as one knows.
pub fn decide(
    (pod, ending): (&NodePod, Option<Timestamp>),
    options: &DrainIntent,
    ours: bool,
    stays_away: bool,
    now: Timestamp,
) -> EvictionDecision {
    let controller = pod.controller.as_ref();
    if ours {
        return EvictionDecision::Skip("it belongs to a NodeOp");
    }
    // The Jobs of operations that are over are not kept, so whose pod it was is not known any more. It is
    // worth its log alone, and holds nothing of the node: of a pod that has ended the label may be
    // believed.
    if pod.finished && pod.labels.contains_key(names::NODEOP) {
        return EvictionDecision::Skip("it has ended, and is there for its log");
    }
    // Ours that read its facts: evicted, they would only be made again, and be in the way again.
    if !pod.mirror && controller.is_some_and(Owner::is_node) {
        return EvictionDecision::Skip("it belongs to the node itself");
    }
    if pod.mirror {
        return EvictionDecision::Skip("it is a static pod");
    }
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    if options.options.pod_selector.as_ref().is_some_and(|selector| !selector::matches(selector, label)) {
        return EvictionDecision::Skip("podSelector does not match it");
    }
    if options.options.skip.as_ref().is_some_and(|selector| selector::matches(selector, label)) {
        return EvictionDecision::Skip("skip matches it");
    }
    let of_daemon_set = !pod.finished && pod.is_of_daemon_set();
    if of_daemon_set && options.ignore_daemon_sets {
        return EvictionDecision::Skip("a DaemonSet would make it again at once");
    }
    if let Some(since) = ending {
        return match options.skip_wait_for_delete {
            Some(limit) if now >= later(since, limit) => {
                EvictionDecision::Skip("it is being deleted for too long to be waited for")
            }
            _ => EvictionDecision::AwaitDeletion,
        };
    }
    if !stays_away {
        return EvictionDecision::Skip(if of_daemon_set {
            "its DaemonSet made it again"
        } else {
            COMES_BACK
        });
    }
    let refuse =
        |why| if options.strict { EvictionDecision::Refuse(why) } else { EvictionDecision::Skip(why) };
    if of_daemon_set {
        return if options.strict {
            EvictionDecision::Refuse("it belongs to a DaemonSet (ignoreDaemonSets is false)")
        } else {
            EvictionDecision::Evict
        };
    }
    if !pod.finished && pod.local_storage && !options.delete_empty_dir_data {
        return refuse("it has emptyDir data (deleteEmptyDirData is false)");
    }
    if !pod.finished && controller.is_none() && !options.force {
        return refuse("no controller would make it again (force is false)");
    }
    EvictionDecision::Evict
}

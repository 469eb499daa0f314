//! The pods of nodes that are drained, and what came of evicting them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{NodePod, Snapshot, Table};

/// The last eviction of each pod that this process tried, by node and by pod UID.
pub type Evictions = Table<String, BTreeMap<String, Eviction>>;

/// The last eviction that this process tried on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub at: Timestamp,
    /// The request has no answer yet; the server may hold it for more than ten seconds.
    pub under_way: bool,
    /// The last answer, if it was no.
    pub refusal: Option<Refusal>,
}

/// The API server does not evict the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Since when it has been refusing.
    pub since: Timestamp,
    /// What it says.
    pub message: String,
    /// Seconds that it asked us to stay away.
    pub retry_after: Option<i64>,
    /// Waiting does not help (for example two budgets over one pod).
    pub permanent: bool,
}

impl Snapshot {
    /// The pods of a node that is being drained; none where they are not listed.
    pub fn residents(&self, node: &str) -> impl Iterator<Item = &NodePod> {
        self.drained_pods.get(node).into_iter().flat_map(|pods| pods.iter()).map(AsRef::as_ref)
    }

    /// The last eviction of this pod from the node that this process tried.
    pub fn last_eviction(&self, node: &str, pod: &NodePod) -> Option<&Eviction> {
        self.evictions.get(node)?.get(&pod.uid)
    }
}

//! Taking a node out of load balancers before its pods are evicted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Seconds that load balancers get to stop sending to a node, if the spec does not say: three health checks
/// of ten seconds, which is what most of them take.
const WAIT: i32 = 30;

/// Whether load balancers outside the cluster leave a node before it is disturbed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::load_balancer)]
pub struct LoadBalancer {
    /// Label the node `node.kubernetes.io/exclude-from-external-load-balancers` when it is claimed, and wait
    /// `waitSeconds` before anything is done to it. The label goes when the node is uncordoned. A node that
    /// has the label already keeps it. One without which load balancers would be left with no node that is
    /// Ready and schedulable does not get it, and an Event says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub exclude: Option<bool>,
    /// Seconds between the label and the first eviction, for connections to end (default 30).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub wait_seconds: Option<i32>,
}

impl LoadBalancer {
    /// How many seconds are waited for load balancers to leave a node; nothing if they are not told to.
    pub fn wait(&self) -> Option<i32> {
        self.exclude.filter(|exclude| *exclude).map(|_| self.wait_seconds.unwrap_or(WAIT))
    }
}

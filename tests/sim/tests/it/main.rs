//! Tests of the simulator itself: that it behaves as a cluster does where an operator looks (`kubernetes`,
//! which a real API server can be asked, too), and that it does what only a simulator can.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

mod api;
mod faults;
mod jobs;
mod kubectl;
mod kubernetes;
mod nodes;
mod odd;
mod rbac;
mod sidecars;

use std::time::Duration;

use kairos_sim::{Builder, Cluster};
use serde_json::{Value, json};

/// Longer than anything here takes, also on a machine that compiles beside it.
const LONG: Duration = Duration::from_secs(600);

fn small() -> Builder {
    Cluster::builder().nodes(2).boot(Duration::from_millis(100)).script_time(Duration::from_millis(10))
}

/// A pod of one container on a node.
fn pod(name: &str, node: &str, labels: Value, command: &[&str], policy: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": node, "restartPolicy": policy, "containers": [{"name": "c", "image": "busybox:1", "command": command}]},
    })
    .to_string()
}

/// Whether an object is of this name and phase.
fn is(object: &Value, name: &str, phase: &str) -> bool {
    object["metadata"]["name"] == name && object["status"]["phase"] == phase
}

/// Whether an object has a true condition.
fn has(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

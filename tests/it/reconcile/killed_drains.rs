//! The operator ended by SIGKILL at any moment of a drain: the same end, no cordon left, and no pod evicted
//! that was not on the node. `KAIROS_DRAIN_SEEDS=50 cargo test --test it killed_drains` plays fifty.

use std::collections::BTreeMap;

use kairos_sim::{Cluster, Request};
use serde_json::{Value, json};

use super::rig::{LONG, OPERATOR, Rig};

/// Three replicas of which two must stay, and one pod whose data would be lost.
const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: nginx}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: cache, image: redis}], volumes: [{name: data, emptyDir: {}}]}
"#;

fn seeds() -> u64 {
    std::env::var("KAIROS_DRAIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_killed_ends_as_if_it_had_not_been() {
    futures::future::join_all((1..=seeds()).map(killed)).await;
}

async fn killed(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1).seed(seed)).await;
    rig.cluster.apply(WORKLOAD).await.unwrap();
    let running =
        |pod: &Value| pod["metadata"]["labels"]["app"] == "cache" && pod["status"]["phase"] == "Running";
    rig.cluster.until("pods", LONG, running).await.unwrap();
    let cache =
        rig.cluster.list("pods").into_iter().find(|pod| running(pod)).unwrap()["metadata"]["uid"].clone();
    let spec = json!({"image": "busybox:1", "command": ["true"], "cordon": true, "concurrency": 1, "drainOptions": {"enabled": true}});
    rig.op("op", spec).await;
    rig.start(&[]);
    for _ in 0..3 {
        rig.asks(random.usize(1..40), "op").await;
        rig.operators[0].kill();
        rig.operators.clear();
        rig.start(&[]);
    }
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], &status["counts"]["completed"]),
        (&json!("Completed"), &json!(3)),
        "seed {seed}: {status:#}"
    );
    assert_eq!(rig.left(), [""; 0], "seed {seed}");
    assert!(
        rig.cluster.list("pods").iter().any(|pod| pod["metadata"]["uid"] == cache),
        "seed {seed}: emptyDir data stays where it is"
    );
    let evictions = rig
        .cluster
        .requests()
        .iter()
        .filter(|request| request.resource == "pods/eviction" && request.code == 201)
        .count();
    assert!(evictions >= 3, "seed {seed}: nothing was drained");
    let foreign: Vec<Request> =
        rig.cluster.requests().into_iter().filter(|request| !was_drained(&rig, request)).collect();
    assert!(foreign.is_empty(), "seed {seed}: {foreign:#?}");
}

/// Whether a request is no eviction, or one of a pod that was then on a node that was being drained.
fn was_drained(rig: &Rig, request: &Request) -> bool {
    if request.user != OPERATOR
        || (request.resource.as_str(), request.verb.as_str()) != ("pods/eviction", "create")
    {
        return true;
    }
    let (mut nodes, mut steps) = (BTreeMap::new(), Value::Null);
    for change in rig.cluster.history().iter().filter(|change| change.version <= request.version) {
        match change.object["kind"].as_str() {
            Some("Pod") => {
                drop(nodes.insert(change.key.name.clone(), change.object["spec"]["nodeName"].clone()))
            }
            Some("NodeOp") => steps = change.object["status"]["nodeStatuses"].clone(),
            _ => {}
        }
    }
    let node = nodes.get(&request.name).and_then(Value::as_str).unwrap_or_default();
    // An eviction takes a moment, and the drain may be over when it is answered.
    matches!(steps[node]["step"].as_str(), Some("Drain" | "Job"))
}

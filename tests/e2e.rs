//! End to end, against any cluster that the operator runs in: no reboot, no cordon, the command is `true` or
//! `false`.
//!
//! ```sh
//! kubectl apply -k manifests/default          # or run the operator in any other way
//! KUBECONFIG=… cargo test --test e2e -- --ignored
//! ```
//!
//! Every test makes a namespace of its own and deletes it. Whoever runs them must be allowed to create
//! namespaces and NodeOps; the NodeOps run privileged pods on every Linux node, so Pod Security must admit
//! them (the namespaces ask for it). `KAIROS_E2E_IMAGE` names an image with `true`, `false` and `sh` that the
//! nodes have or can pull; `busybox:1` if not set.

// Helpers of tests, outside of them: a panic is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, future::Future, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Namespace, Node, Pod, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kairos_operator::api::{
    names,
    nodeop::{NodeOp, NodeOpStatus, Phase, RebootStatus},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{conditions::is_deleted, wait::await_condition},
};
use serde_json::{Value, json};

/// Pulling the image included.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A namespace that goes with the test.
struct Place {
    client: Client,
    namespace: String,
}

/// Runs a test in a namespace of its own, which is deleted whatever comes of it.
fn in_a_namespace<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Client, String) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(async { Client::try_default().await.expect("a cluster in KUBECONFIG") });
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = runtime.block_on(async {
        let labels = [("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned())];
        let wanted = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("kairos-e2e-".into()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let made = namespaces.create(&PostParams::default(), &wanted).await.unwrap();
        made.metadata.name.unwrap()
    });
    let ended = runtime.block_on(runtime.spawn(test(client, namespace.clone())));
    runtime
        .block_on(namespaces.delete(&namespace, &DeleteParams::default()))
        .expect("the namespace is deleted");
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic.into_panic());
    }
}

impl Place {
    fn ops(&self) -> Api<NodeOp> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a NodeOp with this command; `more` is added to its spec.
    async fn create(&self, name: &str, command: &[&str], more: Value) -> NodeOp {
        let image = std::env::var("KAIROS_E2E_IMAGE").unwrap_or_else(|_| "busybox:1".into());
        let mut spec = json!({"image": image, "command": command});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": name}, "spec": spec});
        let op = serde_json::from_value(op).unwrap();
        self.ops().create(&PostParams::default(), &op).await.unwrap()
    }

    /// Waits until the NodeOp's status is as asked.
    async fn wait(&self, name: &str, what: &str, until: impl Fn(&NodeOpStatus) -> bool) -> NodeOpStatus {
        let meets = |op: Option<&NodeOp>| op.and_then(|op| op.status.as_ref()).is_some_and(&until);
        let found = tokio::time::timeout(TIMEOUT, await_condition(self.ops(), name, meets)).await;
        let Ok(found) = found else {
            let last = self.ops().get_opt(name).await;
            panic!("{name} is not {what} within {TIMEOUT:?}: {last:#?}");
        };
        found.unwrap().and_then(|op| op.status).unwrap()
    }

    async fn end(&self, name: &str) -> NodeOpStatus {
        self.wait(name, "over", |status| status.phase.is_some_and(Phase::is_final)).await
    }

    async fn delete(&self, op: &NodeOp) {
        let (name, uid) = (op.metadata.name.as_deref().unwrap(), op.metadata.uid.as_deref().unwrap());
        self.ops().delete(name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(self.ops(), name, is_deleted(uid));
        tokio::time::timeout(TIMEOUT, gone).await.expect("the NodeOp goes").unwrap();
    }

    /// Names of our Jobs, pods and accounts.
    async fn left(&self) -> Vec<String> {
        let of = ListParams::default().labels(names::NODEOP);
        let (client, namespace) = (&self.client, &self.namespace);
        let mut left = Vec::new();
        let jobs = Api::<Job>::namespaced(client.clone(), namespace).list(&of).await.unwrap();
        left.extend(jobs.items.into_iter().filter_map(|job| job.metadata.name));
        let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&of).await.unwrap();
        left.extend(pods.items.into_iter().filter_map(|pod| pod.metadata.name));
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace).list(&of).await.unwrap();
        left.extend(accounts.items.into_iter().filter_map(|account| account.metadata.name));
        left
    }

    /// Waits until nothing of ours is left.
    async fn wait_for_nothing(&self) {
        let start = tokio::time::Instant::now();
        loop {
            let left = self.left().await;
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < TIMEOUT, "still there: {left:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Linux nodes that are Ready, by name; the annotations by which this NodeOp would hold each.
    async fn nodes(&self, op: &NodeOp) -> BTreeMap<String, Vec<String>> {
        let uid = op.metadata.uid.clone().unwrap();
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await.unwrap();
        let linux = nodes.items.into_iter().filter(|node| {
            let labels = node.metadata.labels.iter().flatten();
            labels.clone().all(|(name, value)| name.as_str() != names::OS_LABEL || value == "linux")
        });
        let held = |node: &Node| {
            let annotations = node.metadata.annotations.iter().flatten();
            annotations.filter(|(_, value)| value.ends_with(&uid)).map(|(name, _)| name.clone()).collect()
        };
        linux.map(|node| (node.metadata.name.clone().unwrap(), held(&node))).collect()
    }
}

fn condition(status: &NodeOpStatus, type_: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|condition| condition.status.clone()).unwrap_or_default()
}

#[test]
#[ignore = "needs a cluster that the operator runs in"]
fn a_command_runs_on_every_node_and_holds_none_at_the_end() {
    in_a_namespace(|client, namespace| async move {
        let place = Place { client, namespace };
        let op = place.create("fine", &["true"], json!({"concurrency": 2, "stopOnFailure": true})).await;
        let status = place.end("fine").await;
        assert_eq!(status.phase, Some(Phase::Completed), "{status:#?}");
        assert_eq!(
            (condition(&status, "Complete"), condition(&status, "Failed")),
            ("True".into(), "False".into())
        );
        assert_eq!(status.observed_generation, op.metadata.generation);
        let nodes = place.nodes(&op).await;
        assert_eq!(
            status.node_statuses.keys().collect::<Vec<_>>(),
            nodes.keys().collect::<Vec<_>>(),
            "every Linux node is a target"
        );
        for (name, entry) in &status.node_statuses {
            assert_eq!(
                (entry.phase, entry.reboot_status),
                (Phase::Completed, Some(RebootStatus::NotRequested)),
                "{name}"
            );
            assert!(entry.job_name.is_some(), "{name}: its Job is named for those who want its log");
        }
        let counts = status.counts.unwrap();
        assert_eq!((counts.done, counts.failed), (format!("{0}/{0}", nodes.len()), 0));
        assert!(nodes.values().all(Vec::is_empty), "no node is held: {nodes:?}");
        place.delete(&op).await;
        place.wait_for_nothing().await;
    });
}

#[test]
#[ignore = "needs a cluster that the operator runs in"]
fn a_failure_stops_the_rollout_and_says_what_the_command_said_last() {
    in_a_namespace(|client, namespace| async move {
        let place = Place { client, namespace };
        let command = ["sh", "-c", "echo the disk is full; exit 3"];
        let op = place
            .create("bad", &command, json!({"concurrency": 1, "stopOnFailure": true, "backoffLimit": 0}))
            .await;
        let status = place.end("bad").await;
        assert_eq!(status.phase, Some(Phase::Failed), "{status:#?}");
        assert_eq!(condition(&status, "Failed"), "True");
        let of = |phase| status.node_statuses.values().filter(move |entry| entry.phase == phase);
        assert_eq!(of(Phase::Failed).count(), 1);
        assert_eq!(of(Phase::Pending).count(), status.node_statuses.len() - 1, "the others are not touched");
        let message = of(Phase::Failed).next().and_then(|entry| entry.message.clone()).unwrap_or_default();
        assert!(message.contains("exit code 3: the disk is full"), "{message}");
        let nodes = place.nodes(&op).await;
        assert!(nodes.values().all(Vec::is_empty), "no node is held: {nodes:?}");
    });
}

#[test]
#[ignore = "needs a cluster that the operator runs in"]
fn deleting_a_nodeop_stops_its_commands_and_leaves_nothing() {
    in_a_namespace(|client, namespace| async move {
        let place = Place { client, namespace };
        let op = place.create("long", &["sleep", "3600"], json!({"concurrency": 0})).await;
        let runs = |status: &NodeOpStatus| status.node_statuses.values().any(|entry| entry.job_uid.is_some());
        place.wait("long", "running", runs).await;
        assert!(!place.left().await.is_empty());
        place.delete(&op).await;
        place.wait_for_nothing().await;
        let nodes = place.nodes(&op).await;
        assert!(nodes.values().all(Vec::is_empty), "no node is held: {nodes:?}");
    });
}

#[test]
#[ignore = "needs a cluster that the operator runs in"]
fn a_selector_that_matches_nothing_waits_for_a_node() {
    in_a_namespace(|client, namespace| async move {
        let place = Place { client, namespace };
        let nobody = json!({"nodeSelector": {"matchLabels": {"kairos.io/e2e-no-such-label": "true"}}});
        place.create("nobody", &["true"], nobody).await;
        let told = |status: &NodeOpStatus| {
            status.message.as_ref().is_some_and(|message| message.contains("no node matches"))
        };
        let status = place.wait("nobody", "told that no node matches", told).await;
        assert_eq!((status.phase, status.node_statuses.len()), (Some(Phase::Pending), 0));
    });
}

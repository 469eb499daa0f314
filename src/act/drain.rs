//! Evicting one pod, and no other.
//!
//! Through the Eviction API, so that PodDisruptionBudgets hold. The pod is read first and compared by UID and
//! node: an eviction with a wrong UID is refused, but spends the budget all the same (measured), and a pod
//! that was made again under its name elsewhere must not be touched. The UID precondition is the second line.
//! Of the pod, which may be megabytes of anybody's, only the metadata is asked for: its node, which does not
//! stand there, selects it.
//! `kube::Api::evict` cannot be used: it drops its options (kube 5.0).

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::{
    api::policy::v1::Eviction,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    api::{ListParams, PostParams},
    core::Status,
};

use super::{Actor, Patience};
use crate::{
    api::{
        error_text::{NotEvicted, not_evicted, refusal},
        job::Job,
        metadata::{Metadata, Part},
        names,
        nodeop::NodeOp,
        owner::Owner,
        pod::Pod,
    },
    plan::model::{action::Target, snapshot::works_by},
};

/// The server itself may hold an eviction for ten seconds. After a fresh renewal of the Lease there is room
/// for this.
const EVICTION: Patience = Patience { limit: Duration::from_secs(15), suspect: "" };

/// What came of one try.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is on its way out because we asked for that.
    Evicted,
    /// Nothing to evict, as the read before the request showed: the pod is gone, is another one, or is being
    /// deleted (then with its metadata). `Gone` and `Changed` are what the answer to the request claims,
    /// which may be a webhook's word.
    Needless(Option<Box<ObjectMeta>>),
    /// It is being deleted, or gone, as the API server says of the eviction.
    Gone,
    /// Another pod has its name by now, as the API server says of the eviction.
    Changed,
    /// Refused; `permanent` if waiting does not help.
    Refused { by: RefusedBy, message: String, retry_after: Option<i64>, permanent: bool },
}

/// Why an eviction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// PodDisruptionBudgets.
    Budget,
    /// The pod carries out an operation, or a right, a policy or a webhook denies its eviction.
    Other,
}

impl Actor {
    /// Tries once to evict the pod of this UID from `node`.
    pub async fn evict(
        &self,
        node: &str,
        pod: &Target,
        grace_period_seconds: Option<i64>,
    ) -> anyhow::Result<Outcome> {
        let Some(found) = self.pod_on(node, pod).await? else {
            return Ok(Outcome::Needless(None));
        };
        if found.metadata.uid.as_deref() != Some(&pod.uid) {
            return Ok(Outcome::Needless(None));
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Needless(Some(Box::new(found.metadata))));
        }
        if let Some(message) = self.works_for(node, &found.metadata).await? {
            return Ok(Outcome::Refused {
                by: RefusedBy::Other,
                message,
                retry_after: None,
                permanent: false,
            });
        }
        let api = self.api::<Pod>(&pod.namespace);
        let body = eviction(pod, grace_period_seconds);
        let params = PostParams::default();
        let request = api.create_subresource::<Eviction, Status>("eviction", &pod.name, &params, &body);
        match self.answer_to(request, EVICTION).await? {
            Ok(_) => Ok(Outcome::Evicted),
            Err(kube::Error::Api(status)) => judge(*status),
            Err(error) => Err(error.into()),
        }
    }

    /// The metadata of the pod of this name, if it is on the node.
    async fn pod_on(&self, node: &str, pod: &Target) -> anyhow::Result<Option<Metadata<Pod, Part>>> {
        let there = format!("metadata.name={},spec.nodeName={node}", pod.name);
        let params = ListParams::default().fields(&there).limit(1);
        let found = self.read(self.api::<Metadata<Pod, Part>>(&pod.namespace).list(&params)).await?;
        Ok(found.items.into_iter().next())
    }

    /// Whose operation the pod carries out, if it is a NodeOp's. A Job that the planner's cache does not show
    /// yet is found here: its pod would look like anybody's. The label is only why we ask, since anybody can
    /// set one, or name an owner; the proof is that the NodeOp knows of its Job.
    async fn works_for(&self, node: &str, pod: &ObjectMeta) -> anyhow::Result<Option<String>> {
        let labelled = pod.labels.iter().flatten().any(|(name, _)| name == names::NODEOP);
        let job = Owner::of(pod).filter(|owner| labelled && owner.is_job());
        let Some(job) = job else { return Ok(None) };
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        let found = self
            .read(self.api::<Job>(namespace).get_opt(&job.name))
            .await
            .with_context(|| format!("reading its Job {}", job.name))?;
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(&job.uid));
        let Some(owner) = found.and_then(|found| Owner::of(&found.metadata)).filter(Owner::is_nodeop) else {
            return Ok(None);
        };
        let op = self
            .read(self.api::<NodeOp>(namespace).get_opt(&owner.name))
            .await
            .with_context(|| format!("reading NodeOp {}, which its Job {} names", owner.name, job.name))?;
        let op = op.filter(|op| op.metadata.uid.as_deref() == Some(&owner.uid) && works_by(op, &job, node));
        Ok(op.map(|_| format!("it carries out NodeOp {} (Job {})", owner.name, job.name)))
    }
}

fn eviction(pod: &Target, grace_period_seconds: Option<i64>) -> Eviction {
    Eviction {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            grace_period_seconds,
            preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
            ..DeleteOptions::default()
        }),
    }
}

/// What a no of the server means for the next try. What our right does not cover, or several budgets, stays
/// until somebody repairs it; what a webhook or a policy denies may pass in a moment: it may be moving the
/// pod itself.
fn judge(status: Status) -> anyhow::Result<Outcome> {
    let seconds = status.details.as_ref().map(|details| i64::from(details.retry_after_seconds));
    let asked = seconds.filter(|seconds| *seconds > 0);
    let refused = |by, retry_after, permanent| {
        Ok(Outcome::Refused { by, message: refusal(&status), retry_after, permanent })
    };
    match not_evicted(&status) {
        Some(NotEvicted::Gone) => Ok(Outcome::Gone),
        Some(NotEvicted::Changed) => Ok(Outcome::Changed),
        Some(NotEvicted::Budget) => refused(RefusedBy::Budget, asked, false),
        Some(NotEvicted::Budgets) => refused(RefusedBy::Budget, None, true),
        Some(NotEvicted::Forbidden) => refused(RefusedBy::Other, None, true),
        Some(NotEvicted::Denied) => refused(RefusedBy::Other, None, false),
        None => Err(kube::Error::Api(Box::new(status)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hyper::{Request, header::ACCEPT};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::act::tests::{Left, Server, actor};

    /// Sixteen evictions are tried at once, of pods of anybody's.
    #[tokio::test]
    async fn of_a_pod_that_is_evicted_no_more_is_read_than_its_metadata() {
        let asked: Arc<Mutex<Vec<Request<Body>>>> = Arc::default();
        let requests = asked.clone();
        let client = Server::client(move |request| {
            let is_read = request.method() == "GET";
            requests.lock().unwrap().push(request);
            let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}});
            if is_read {
                (200, json!({"metadata": {}, "items": [pod]}))
            } else {
                (201, json!({"status": "Success"}))
            }
        });
        let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(60))))));
        let pod = |uid: &str| Target { namespace: "ns".into(), name: "p".into(), uid: uid.into() };
        assert_eq!(actor.evict("n1", &pod("another"), None).await.unwrap(), Outcome::Needless(None));
        assert_eq!(actor.evict("n1", &pod("u"), None).await.unwrap(), Outcome::Evicted);
        let asked = asked.lock().unwrap();
        let uris: Vec<String> =
            asked.iter().map(|request| format!("{} {}", request.method(), request.uri())).collect();
        let read =
            "GET /api/v1/namespaces/ns/pods?&fieldSelector=metadata.name%3Dp%2Cspec.nodeName%3Dn1&limit=1";
        assert_eq!(uris[..2], [read; 2]);
        assert!(
            uris.len() == 3 && uris[2].starts_with("POST /api/v1/namespaces/ns/pods/p/eviction"),
            "{uris:?}"
        );
        let wants = asked[0].headers()[ACCEPT].to_str().unwrap();
        assert!(wants.contains("as=PartialObjectMetadataList"), "{wants}");
    }

    /// A Job of ours whose NodeOp knows of it is one that the planner's cache may not show yet. Whoever may
    /// create Jobs can name any NodeOp as their owner, and such a pod would keep its node from being drained
    /// for ever.
    #[tokio::test]
    async fn a_pod_is_spared_only_for_a_nodeop_that_works_by_its_job() {
        let evicted = async |status: Option<Value>| {
            let client = Server::client(move |request| {
                let owner = |kind: &str, group: &str, name: &str| json!([{"apiVersion": group, "kind": kind, "name": name, "uid": name, "controller": true}]);
                let meta = |name: &str, owner: Value| json!({"name": name, "namespace": "ns", "uid": name, "ownerReferences": owner, "labels": {"kairos.io/nodeop": "op"}});
                let no = (
                    404,
                    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": 404}),
                );
                match request.uri().path().rsplit('/').next().unwrap_or_default() {
                    "pods" => (200, json!({"metadata": {}, "items": [{"metadata": meta("p", owner("Job", "batch/v1", "j"))}]})),
                    "j" => (200, json!({"metadata": meta("j", owner("NodeOp", "operator.kairos.io/v9", "op"))})),
                    "op" => status.clone().map_or(no, |status| {
                        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
                            "metadata": meta("op", Value::Null), "spec": {"command": ["true"]}, "status": status});
                        (200, op)
                    }),
                    _ => (201, json!({"status": "Success"})),
                }
            });
            let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(60))))));
            let pod = Target { namespace: "ns".into(), name: "p".into(), uid: "p".into() };
            actor.evict("n1", &pod, None).await.unwrap() == Outcome::Evicted
        };
        let status = |entry: Value| Some(json!({"observedGeneration": 1, "nodeStatuses": {"n1": entry}}));
        assert!(evicted(None).await, "there is no such NodeOp");
        assert!(evicted(status(json!({"phase": "Pending"}))).await, "it knows nothing of the Job");
        assert!(!evicted(status(json!({"phase": "Running", "jobName": "j", "jobUid": "j"}))).await);
        assert!(
            !evicted(Some(json!({"phase": "Running"}))).await,
            "the Go operator's, of which nothing is written"
        );
    }

    fn no(code: u16, message: &str) -> anyhow::Result<Outcome> {
        judge(Status::failure(message, "Invalid").with_code(code))
    }

    /// A webhook that gives no code is answered as 400; a policy denies with 422 if it says so.
    #[test]
    fn what_admission_denies_is_no_error() {
        for code in [400, 403, 422] {
            let refused = no(code, "the primary is being moved").unwrap();
            let expected = Outcome::Refused {
                by: RefusedBy::Other,
                message: "the primary is being moved".into(),
                retry_after: None,
                permanent: code == 403,
            };
            assert_eq!(refused, expected, "{code}");
        }
        assert!(no(500, "the webhook did not answer").is_err(), "that passes");
        assert_eq!((no(404, "").unwrap(), no(409, "").unwrap()), (Outcome::Gone, Outcome::Changed));
    }

    /// What is read before an eviction is the latest that is known of the pod; a webhook's 404 is not.
    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_told_and_nothing_is_evicted_for_it() {
        let target = Target { namespace: "ns".into(), name: "p".into(), uid: "u".into() };
        let pod = |uid: &str, deleting: Value| {
            Some(
                json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid, "deletionTimestamp": deleting}}),
            )
        };
        let deleted = || Value::from("2026-11-30T00:00:00Z");
        let tried = async |found: Option<Value>| {
            let client = Server::client(move |request| match request.method().as_str() {
                "GET" => (200, json!({"metadata": {}, "items": found.iter().collect::<Vec<_>>()})),
                _ => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": 404}),
                ),
            });
            let lead = Arc::new(Left(Mutex::new(Some(Duration::from_secs(60)))));
            actor(client, lead).evict("n1", &target, None).await.unwrap()
        };
        // One that is on another node by now is none that is asked for.
        for found in [None, pod("another", Value::Null)] {
            assert_eq!(tried(found).await, Outcome::Needless(None));
        }
        let Outcome::Needless(Some(meta)) = tried(pod("u", deleted())).await else { panic!() };
        assert!(meta.deletion_timestamp.is_some());
        assert_eq!(tried(pod("u", Value::Null)).await, Outcome::Gone, "it may be there still");
    }
}

//! Evicting one pod, and no other.
//!
//! Through the Eviction API, so that PodDisruptionBudgets hold. The pod is read first and compared by UID and
//! node: an eviction with a wrong UID is refused, but spends the budget all the same (measured), and a pod
//! that was made again under its name elsewhere must not be touched. The UID precondition is the second line.
//! `kube::Api::evict` cannot be used: it drops its options (kube 5.0).

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use k8s_openapi::{
    api::policy::v1::Eviction,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{api::PostParams, core::Status};

use super::Actor;
use crate::{
    api::{job::Job, names, owner::Owner, pod::Pod},
    plan::model::action::Target,
};

/// The server itself may hold an eviction for ten seconds. After a fresh renewal of the Lease there is room
/// for this.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What came of one try.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is on its way out because we asked for that.
    Evicted,
    /// The read before it showed that there is nothing to evict; with the pod's metadata if it is there still.
    /// What a webhook or the namespace says is no such proof.
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
        let api = self.api::<Pod>(&pod.namespace);
        let Some(found) = self.write(api.get_opt(&pod.name)).await? else {
            return Ok(Outcome::Needless(None));
        };
        let same = found.metadata.uid.as_deref() == Some(&pod.uid);
        let there = found.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        if !same || !there {
            return Ok(Outcome::Needless(None));
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Needless(Some(Box::new(found.metadata))));
        }
        if let Some(message) = self.works_for(&found.metadata).await? {
            return Ok(Outcome::Refused {
                by: RefusedBy::Other,
                message,
                retry_after: None,
                permanent: false,
            });
        }
        let body = eviction(pod, grace_period_seconds);
        let params = PostParams::default();
        let request = api.create_subresource::<Eviction, Status>("eviction", &pod.name, &params, &body);
        match self.answer_to(request, TIMEOUT).await? {
            Ok(_) => Ok(Outcome::Evicted),
            Err(kube::Error::Api(status)) => judge(*status),
            Err(error) => Err(error.into()),
        }
    }

    /// Whose operation the pod carries out, if it is a NodeOp's. A Job that the planner's cache does not show
    /// yet is found here: its pod would look like anybody's. The label is only why we ask, since anybody can
    /// set one; the Job's owner is the proof.
    async fn works_for(&self, pod: &ObjectMeta) -> anyhow::Result<Option<String>> {
        let labelled = pod.labels.iter().flatten().any(|(name, _)| name == names::NODEOP);
        let job = Owner::of(pod).filter(|owner| labelled && owner.is_job());
        let Some(job) = job else { return Ok(None) };
        let api = self.api::<Job>(pod.namespace.as_deref().unwrap_or_default());
        let found = self
            .write(api.get_opt(&job.name))
            .await
            .with_context(|| format!("reading its Job {}", job.name))?;
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(&job.uid));
        let op = found.and_then(|found| Owner::of(&found.metadata)).filter(Owner::is_nodeop);
        Ok(op.map(|op| format!("it carries out NodeOp {} (Job {})", op.name, job.name)))
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

/// Reads the server's no. 404 and 409 mean that the pod is gone or another one; 429 is a budget without room;
/// a 500 that speaks of several budgets stays until somebody repairs them, and so does what our right does
/// not cover. What a webhook or a policy denies may pass in a moment: it may be moving the pod itself.
fn judge(status: Status) -> anyhow::Result<Outcome> {
    let details = status.details.as_ref();
    let causes: Vec<&str> =
        details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str()).collect();
    let message = if causes.is_empty() { status.message.clone() } else { causes.join("; ") };
    let seconds =
        details.map(|details| i64::from(details.retry_after_seconds)).filter(|seconds| *seconds > 0);
    let by = RefusedBy::Budget;
    match status.code {
        404 => Ok(Outcome::Gone),
        409 => Ok(Outcome::Changed),
        429 => Ok(Outcome::Refused { by, message, retry_after: seconds, permanent: false }),
        500 if status.message.contains("more than one PodDisruptionBudget") => {
            Ok(Outcome::Refused { by, message: status.message, retry_after: None, permanent: true })
        }
        403 if causes_of(&status).values().any(|reason| reason == "NamespaceTerminating") => {
            Ok(Outcome::Gone)
        }
        // Our right, a policy or a webhook: a webhook that gives no code is a 400, and a policy may give a
        // 422.
        400 | 403 | 422 => {
            let permanent = status.code == 403;
            Ok(Outcome::Refused { by: RefusedBy::Other, message, retry_after: None, permanent })
        }
        _ => Err(kube::Error::Api(Box::new(status)).into()),
    }
}

fn causes_of(status: &Status) -> BTreeMap<String, String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| (cause.field.clone(), cause.reason.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::{
        super::tests::{Left, Server, actor},
        *,
    };

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
        let pod = |uid: &str, node: &str, deleting: Value| {
            let meta = json!({"name": "p", "namespace": "ns", "uid": uid, "deletionTimestamp": deleting});
            Some(json!({"metadata": meta, "spec": {"nodeName": node, "containers": []}}))
        };
        let deleted = || Value::from("2026-11-30T00:00:00Z");
        let tried = async |found: Option<Value>| {
            let client = Server::client(move |request| match (request.method().as_str(), &found) {
                ("GET", Some(found)) => (200, found.clone()),
                _ => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": 404}),
                ),
            });
            let lead = Arc::new(Left(Mutex::new(Some(Duration::from_secs(60)))));
            actor(client, lead).evict("n1", &target, None).await.unwrap()
        };
        for found in [None, pod("another", "n1", Value::Null), pod("u", "n2", Value::Null)] {
            assert_eq!(tried(found).await, Outcome::Needless(None));
        }
        let Outcome::Needless(Some(meta)) = tried(pod("u", "n1", deleted())).await else { panic!() };
        assert!(meta.deletion_timestamp.is_some());
        assert_eq!(tried(pod("u", "n1", Value::Null)).await, Outcome::Gone, "it may be there still");
    }
}

//! What the waiter asks of the Kubernetes API: two GETs, two annotations on itself, a watch on one Job, and
//! an Event.
//!
//! A token of the pod can do no more. Every request has its own time limit, as kube has none.

use std::{
    collections::BTreeMap,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt, future::ready};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder, Reporter},
        watcher::{Config, Event as Change, watcher},
    },
};
use serde_json::json;
use tracing::{debug, warn};

use super::{
    decide::{Announced, Job, Live, Pod},
    request::{RequestError, SHORT, is_code, is_denied, is_replaced, within},
};
use crate::{
    api::{error_text::error_message, job::Job as KubeJob, names, pod::Pod as KubePod, webhooks},
    contract::{env, reboot_state},
};

/// How long the Event before a reboot by the kernel may take: nobody waits for it.
const EVENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which pod this is; from the downward API.
#[derive(Clone, Debug)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Identity {
    pub fn from_env() -> Result<Self> {
        let get = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .with_context(|| format!("{name} is not set"))
        };
        Ok(Self { namespace: get(env::POD_NAMESPACE)?, name: get(env::POD_NAME)?, uid: get(env::POD_UID)? })
    }
}

/// The API as the waiter needs it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    pods: Api<KubePod>,
    jobs: Api<KubeJob>,
    me: Identity,
    job: String,
    owner_uid: String,
    /// UID of the Job, if its success is recorded.
    succeeded: Option<String>,
    /// The boot that the node is in, as a pod reads it, if it is to be said.
    boot: Option<String>,
    /// Why the last request that failed did.
    last_error: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("me", &self.me).field("job", &self.job).finish_non_exhaustive()
    }
}

/// Each item: the Job may be over. It never ends.
pub type JobEvents = Pin<Box<dyn Stream<Item = ()> + Send>>;

impl Cluster {
    pub fn new(client: Client, me: Identity, job: &str, owner_uid: &str, succeeded: Option<String>) -> Self {
        let pods = Api::namespaced(client.clone(), &me.namespace);
        let jobs = Api::namespaced(client.clone(), &me.namespace);
        let (job, owner_uid, last_error) = (job.into(), owner_uid.into(), Arc::default());
        Self { client, pods, jobs, me, job, owner_uid, succeeded, boot: None, last_error }
    }

    /// Has it say in which boot it is with all that it announces: the controller compares that with what the
    /// node's kubelet reads.
    pub fn in_boot(self, boot: &str) -> Self {
        Self { boot: Some(boot.into()), ..self }
    }

    /// Why the last request that failed did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unanswered<T>(&self, what: &str, error: &RequestError, unknown: T) -> T {
        let last_error = format!("asking about {what}: {error}");
        warn!("{last_error}");
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(last_error);
        unknown
    }

    /// The Job first: by the time its verdict is used, the pod's is the younger one.
    pub async fn look(&self, job_uid: Option<&str>) -> Live {
        let job = if job_uid.is_some() && job_uid == self.succeeded.as_deref() {
            Job::Complete
        } else {
            self.look_at_job(job_uid).await
        };
        let pod = match within(SHORT, self.pods.get_opt(&self.me.name)).await {
            Ok(pod) => judge_pod(pod.as_ref(), &self.me.uid, &self.owner_uid),
            Err(error) => self.unanswered("the pod", &error, Pod::Unknown),
        };
        Live { pod, job }
    }

    async fn look_at_job(&self, job_uid: Option<&str>) -> Job {
        match within(SHORT, self.jobs.get_opt(&self.job)).await {
            Ok(job) => judge_job(job.as_ref(), job_uid, &self.owner_uid),
            Err(error) => self.unanswered("the Job", &error, Job::Unknown),
        }
    }

    /// Sets the annotation. The UID in the patch is a precondition: a pod that took our name is not
    /// annotated.
    pub async fn announce(&self, state: &str) -> Announced {
        match self.annotate(state).await {
            Ok(pod) => Announced::Done(judge_pod(Some(&pod), &self.me.uid, &self.owner_uid)),
            Err(RequestError::Answer(error)) if is_code(&error, 404) => {
                Announced::Done(judge_pod(None, &self.me.uid, &self.owner_uid))
            }
            Err(RequestError::Answer(error)) if is_replaced(&error) => {
                Announced::Done(Pod::Lost("was replaced".into()))
            }
            Err(error) => {
                let stranger = matches!(&error, RequestError::Answer(error) if is_code(error, 401));
                let announced = if stranger { Announced::Stranger } else { Announced::Unknown };
                self.unanswered("the annotation", &error, announced)
            }
        }
    }

    /// An admission policy of an earlier version knows nothing of the boot, and refuses it. Webhooks have
    /// their time, or it would never be said that the waiter waits; but no reboot waits for them.
    async fn annotate(&self, state: &str) -> Result<KubePod, RequestError> {
        let limit = if state == reboot_state::REBOOTING { SHORT } else { webhooks::ANSWER_WITHIN };
        let patch = |annotations: serde_json::Value| {
            let patch = Patch::Merge(json!({"metadata": {"uid": self.me.uid, "annotations": annotations}}));
            async move { within(limit, self.pods.patch(&self.me.name, &PatchParams::default(), &patch)).await }
        };
        let state_alone = json!({(names::REBOOT_STATE): state});
        let Some(boot) = &self.boot else { return patch(state_alone).await };
        match patch(json!({(names::REBOOT_STATE): state, (names::WAITS_IN): boot})).await {
            Err(RequestError::Answer(error)) if is_denied(&error) => patch(state_alone).await,
            answer => answer,
        }
    }

    /// Watches our Job by its name, which is all that our Role allows. Reconnects by itself, with pauses;
    /// what was missed meanwhile shows in the list that comes first.
    pub fn watch_job(&self) -> JobEvents {
        let config = Config::default().fields(&format!("metadata.name={}", self.job));
        let (mut listed, owner) = (Listed::default(), self.owner_uid.clone());
        let told = watcher(self.jobs.clone(), config).default_backoff().filter_map(move |event| {
            ready(match event {
                Ok(event) => listed.may_be_over(&event, &owner).then_some(()),
                Err(error) => {
                    debug!("watching the Job: {}", error_message(&error));
                    None
                }
            })
        });
        told.chain(futures::stream::pending()).boxed()
    }

    /// Tells about a reboot without init's help. Tried once: the node goes down in any case.
    pub async fn tell_of_kernel_reboot(&self, why: &str) {
        let reporter = Reporter { controller: names::MANAGER.into(), instance: Some(self.me.name.clone()) };
        let event = Event {
            type_: EventType::Warning,
            reason: "RebootForced".into(),
            note: Some(format!("rebooting the node by the kernel: {why}")),
            action: "Reboot".into(),
            secondary: None,
        };
        let mut pod = KubePod::default();
        pod.metadata.name = Some(self.me.name.clone());
        pod.metadata.namespace = Some(self.me.namespace.clone());
        pod.metadata.uid = Some(self.me.uid.clone());
        let recorder = Recorder::new(self.client.clone(), reporter);
        if tokio::time::timeout(EVENT_TIMEOUT, recorder.publish(&event, &pod.object_ref(&()))).await.is_err()
        {
            warn!("the Event about the reboot was not taken in time");
        }
    }
}

/// What the lists of a watch have shown.
#[derive(Debug, Default)]
struct Listed {
    /// In the first one, which follows a live look, the Job still ran.
    runs: bool,
    done: bool,
}

impl Listed {
    /// Whether a live look may show that the Job is over. One that runs changes with each of its pods, and
    /// would be looked at each time by every waiter. A list after the first one may stand for events that
    /// were missed, also for those of another Job in between.
    fn may_be_over(&mut self, event: &Change<KubeJob>, owner_uid: &str) -> bool {
        let runs = |job: &KubeJob| judge_job(Some(job), None, owner_uid) == Job::Running;
        match event {
            Change::Init => false,
            Change::InitApply(job) => {
                self.runs = runs(job) && !self.done;
                false
            }
            Change::InitDone => {
                self.done = true;
                !mem::take(&mut self.runs)
            }
            Change::Apply(job) => !runs(job),
            Change::Delete(_) => true,
        }
    }
}

/// What a live pod means, `None` being a 404. One that its NodeOp owns no more (`--cascade=orphan`) is
/// nobody's: no controller sees it as a waiter, and none could call its reboot off.
fn judge_pod(pod: Option<&KubePod>, uid: &str, owner_uid: &str) -> Pod {
    let Some(pod) = pod else { return Pod::Lost("is gone".into()) };
    if pod.metadata.uid.as_deref() != Some(uid) {
        return Pod::Lost("was replaced".into());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Pod::Lost("is being deleted".into());
    }
    if !is_owned(&pod.metadata, owner_uid) {
        return Pod::Lost("belongs to no NodeOp any more".into());
    }
    let annotations: Option<&BTreeMap<String, String>> = pod.metadata.annotations.as_ref();
    let state = annotations.and_then(|annotations| annotations.get(names::REBOOT_STATE));
    Pod::Ours { completed: state.is_some_and(|state| state == reboot_state::COMPLETED) }
}

/// Whether that NodeOp controls it.
fn is_owned(metadata: &kube::api::ObjectMeta, owner_uid: &str) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == owner_uid)
}

/// What a live Job means, `None` being a 404. Only the conditions `Complete` and `Failed` are final; the
/// earlier `SuccessCriteriaMet` and `FailureTarget` leave pods that are still ending. Without a sentinel any
/// Job of our owner will do, and none at all is none *yet*.
fn judge_job(job: Option<&KubeJob>, job_uid: Option<&str>, owner_uid: &str) -> Job {
    let over = |how: &str| Job::Over(how.into());
    let Some(job) = job else {
        return if job_uid.is_some() { over("is gone") } else { Job::Absent };
    };
    if job_uid.is_some_and(|uid| job.metadata.uid.as_deref() != Some(uid)) {
        return over("was replaced");
    }
    if !is_owned(&job.metadata, owner_uid) {
        return over("belongs to somebody else");
    }
    if job.metadata.deletion_timestamp.is_some() {
        return over("is being deleted");
    }
    let conditions = || job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is =
        |type_: &str| conditions().any(|condition| condition.type_ == type_ && condition.status == "True");
    match (is("Complete"), is("Failed")) {
        (_, true) => over("failed"),
        (true, false) => Job::Complete,
        // The controller has seen that the operation succeeded, and ended a container that kept the Job from
        // completing.
        (false, false) if is_settled(job) => Job::Complete,
        (false, false) => Job::Running,
    }
}

/// Whether the Job can start no pod any more, and the controller has written on it that its operation
/// succeeded.
fn is_settled(job: &KubeJob) -> bool {
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    suspended
        && job
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(names::SETTLED_IN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(conditions: &[(&str, &str)]) -> KubeJob {
        let conditions: Vec<_> =
            conditions.iter().map(|(type_, status)| json!({"type": type_, "status": status})).collect();
        let owner = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "x", "uid": "o", "controller": true});
        let job = json!({"metadata": {"name": "j", "uid": "u", "ownerReferences": [owner]}, "status": {"conditions": conditions}});
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn only_final_conditions_count() {
        for (conditions, expected) in [
            (&[][..], Job::Running),
            (&[("SuccessCriteriaMet", "True")], Job::Running),
            (&[("FailureTarget", "True")], Job::Running),
            (&[("Complete", "False")], Job::Running),
            (&[("SuccessCriteriaMet", "True"), ("Complete", "True")], Job::Complete),
            (&[("Failed", "True")], Job::Over("failed".into())),
        ] {
            assert_eq!(judge_job(Some(&job(conditions)), Some("u"), "o"), expected, "{conditions:?}");
        }
    }

    #[test]
    fn a_job_that_runs_is_looked_at_once_and_one_that_may_be_over_each_time() {
        let (runs, complete) = (job(&[]), job(&[("Complete", "True")]));
        let mut other = runs.clone();
        other.metadata.owner_references = None;
        let told = |events: &[Change<KubeJob>]| {
            let mut listed = Listed::default();
            events.iter().map(|event| listed.may_be_over(event, "o")).collect::<Vec<_>>()
        };
        let list = |job: &KubeJob| [Change::Init, Change::InitApply(job.clone()), Change::InitDone];
        let begins = list(&runs);
        assert_eq!(told(&begins), [false; 3], "it was looked at right before");
        for (job, expected) in [(&runs, false), (&complete, true), (&other, true)] {
            let events = [&begins[..], &[Change::Apply(job.clone())]].concat();
            assert_eq!(told(&events).last(), Some(&expected));
            assert_eq!(told(&list(job)).last(), Some(&expected), "it has changed since");
        }
        assert_eq!(told(&[&begins[..], &[Change::Delete(runs.clone())]].concat()).last(), Some(&true));
        assert_eq!(told(&[Change::Init, Change::InitDone]), [false, true], "it is gone");
        let anew = [&begins[..], &list(&runs)[..]].concat();
        assert_eq!(told(&anew).last(), Some(&true), "whatever was missed in between");
    }

    #[test]
    fn another_job_is_not_ours() {
        let complete = job(&[("Complete", "True")]);
        assert_eq!(judge_job(None, Some("u"), "o"), Job::Over("is gone".into()));
        assert_eq!(judge_job(None, None, "o"), Job::Absent);
        assert_eq!(judge_job(Some(&complete), Some("u2"), "o"), Job::Over("was replaced".into()));
        assert_eq!(judge_job(Some(&complete), Some("u"), "o2"), Job::Over("belongs to somebody else".into()));
        let mut deleted = complete;
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(judge_job(Some(&deleted), Some("u"), "o"), Job::Over("is being deleted".into()));
        deleted.metadata.owner_references = None;
        assert!(matches!(judge_job(Some(&deleted), Some("u"), "o"), Job::Over(_)));
    }

    #[test]
    fn only_our_own_living_pod_is_ours() {
        let pod = |meta: serde_json::Value| -> KubePod {
            serde_json::from_value(json!({ "metadata": meta })).unwrap()
        };
        let owner = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "x", "uid": "o", "controller": true});
        let judge = |mut meta: serde_json::Value| {
            meta["ownerReferences"] = json!([owner]);
            judge_pod(Some(&pod(meta)), "u", "o")
        };
        assert_eq!(judge(json!({"uid": "u"})), Pod::Ours { completed: false });
        assert_eq!(
            judge(json!({"uid": "u", "annotations": {"kairos.io/reboot-state": "completed"}})),
            Pod::Ours { completed: true }
        );
        assert_eq!(
            judge(json!({"uid": "u", "annotations": {"kairos.io/reboot-state": "rebooting"}})),
            Pod::Ours { completed: false }
        );
        assert!(matches!(judge(json!({"uid": "v"})), Pod::Lost(_)));
        assert!(matches!(
            judge(json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"})),
            Pod::Lost(_)
        ));
        assert!(matches!(judge_pod(None, "u", "o"), Pod::Lost(_)));
        let orphan = pod(json!({"uid": "u"}));
        assert!(matches!(judge_pod(Some(&orphan), "u", "o"), Pod::Lost(_)), "nobody could call it off");
    }
}

//! From what the API server returns to what the planner sees: parsed once, at the edge.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerStatus, Node, Pod, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};

use super::cache::Version;
use crate::{
    api::{names, owner},
    plan::model::snapshot::{ContainerState, ContainerView, JobState, JobView, NodeView, PodPhase, PodView, Resident, Role},
};

/// Which version of which object this is.
pub fn version(meta: &ObjectMeta) -> Version {
    Version { key: (text(&meta.namespace), text(&meta.name)), uid: text(&meta.uid), resource_version: text(&meta.resource_version) }
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn annotation(meta: &ObjectMeta, name: &str) -> Option<String> {
    meta.annotations.as_ref()?.get(name).cloned()
}

fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The node that an object of ours is for: the annotation has the full name, a label may be cut.
fn node_of(meta: &ObjectMeta) -> String {
    let label = || meta.labels.as_ref().and_then(|labels| labels.get(names::NODE).cloned());
    annotation(meta, names::NODE_NAME).or_else(label).unwrap_or_default()
}

/// Those annotations of a node that say facts.
fn facts(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let ours = names::FACT_ANNOTATIONS.map(|(name, _)| name).into_iter().chain([names::FACTS_OF, names::RELEASE, names::BOOT_STATE_OF]);
    ours.filter_map(|name| Some((name.to_owned(), annotation(meta, name)?))).collect()
}

/// A node as the planner sees it.
pub fn node(node: &Node) -> NodeView {
    let meta = &node.metadata;
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let owner = |name| annotation(meta, name).and_then(|text| text.parse().ok());
    NodeView {
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        created: created(meta),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: facts(meta),
        unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: owner(names::CORDONED_BY),
        claimed_by: owner(names::CLAIMED_BY),
        ready: conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        boot_id: status.and_then(|status| status.node_info.as_ref()).map(|info| info.boot_id.clone()).unwrap_or_default(),
        volumes_attached: status.and_then(|status| status.volumes_attached.as_ref()).is_some_and(|volumes| !volumes.is_empty()),
        deleting: meta.deletion_timestamp.is_some(),
    }
}

/// A Job as the planner sees it.
pub fn job(job: &Job) -> JobView {
    let meta = &job.metadata;
    JobView {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        owner_uid: owner::controller(meta).map(|owner| owner.uid.clone()).unwrap_or_default(),
        node: node_of(meta),
        suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
        deleting: meta.deletion_timestamp.is_some(),
        state: job_state(job),
        started_at: job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        deadline_seconds: job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds),
    }
}

/// `Complete` and `Failed` are the outcome; `SuccessCriteriaMet` and `FailureTarget` come before the pods have ended.
fn job_state(job: &Job) -> JobState {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let find = |type_: &str| conditions.into_iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    let words = |type_: &str| find(type_).map(|c| format!("{}: {}", text(&c.reason), text(&c.message)));
    if find("Complete").is_some() {
        JobState::Complete
    } else if let Some(why) = words("Failed") {
        JobState::Failed(why)
    } else if let Some(why) = words("FailureTarget") {
        JobState::Failing(why)
    } else {
        JobState::Active
    }
}

/// A pod of ours as the planner sees it.
pub fn pod(pod: &Pod) -> PodView {
    let meta = &pod.metadata;
    let status = pod.status.as_ref();
    let reason = status.map(|status| [text(&status.reason), text(&status.message)].join(" ").trim().to_owned());
    PodView {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        owner_uid: owner::controller(meta).map(|owner| owner.uid.clone()).unwrap_or_default(),
        role: role(meta),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_else(|| node_of(meta)),
        phase: phase(pod),
        reason: reason.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        created: created(meta),
        attempt: annotation(meta, names::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
        reboot_state: annotation(meta, names::REBOOT_STATE),
        containers: status.map(containers).unwrap_or_default(),
    }
}

fn role(meta: &ObjectMeta) -> Role {
    let labels = meta.labels.as_ref();
    let has = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
    // The Go operator's labeler pods carry our label, and belong to its DaemonSet or Jobs.
    let reads_facts = has(names::APP) && owner::controller(meta).is_some_and(|owner| owner.kind == "Node");
    match (has(names::REBOOT), has(names::PREFLIGHT), reads_facts) {
        (true, _, _) => Role::Waiter,
        (false, true, _) => Role::Preflight,
        (false, false, true) => Role::Facts,
        (false, false, false) => Role::Job,
    }
}

fn phase(pod: &Pod) -> PodPhase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Running" | "Unknown") => PodPhase::Running,
        _ => PodPhase::Pending,
    }
}

fn containers(status: &k8s_openapi::api::core::v1::PodStatus) -> Vec<ContainerView> {
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.map(|status| ContainerView { name: status.name.clone(), state: state(status), restarts: status.restart_count }).collect()
}

fn state(status: &ContainerStatus) -> ContainerState {
    let state = status.state.clone().unwrap_or_default();
    if let Some(ended) = state.terminated {
        return ContainerState::Ended { code: ended.exit_code, reason: text(&ended.reason), message: text(&ended.message) };
    }
    if let Some(running) = state.running {
        return ContainerState::Running { since: running.started_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0) };
    }
    let waiting = state.waiting.unwrap_or_default();
    ContainerState::Waiting { reason: text(&waiting.reason), message: text(&waiting.message) }
}

/// The PersistentVolumeClaim behind a volume; an ephemeral volume's claim is named after pod and volume.
fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
    let ephemeral = || volume.ephemeral.as_ref().map(|_| format!("{}-{}", text(&pod.metadata.name), volume.name));
    named.or_else(ephemeral)
}

/// Any pod, as a drain sees it.
pub fn resident(pod: &Pod) -> Resident {
    let meta = &pod.metadata;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    Resident {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        labels: meta.labels.clone().unwrap_or_default(),
        created: created(meta),
        deleting_since: meta.deletion_timestamp.as_ref().map(|time| time.0),
        finished: phase(pod).is_final(),
        controller: owner::controller(meta).map(|owner| (owner.kind.clone(), owner.uid.clone())),
        of_nodeop: owner::nodeop(meta).is_some(),
        mirror: annotation(meta, "kubernetes.io/config.mirror").is_some(),
        local_storage: volumes.into_iter().flatten().any(|volume| volume.empty_dir.is_some()),
        claims: volumes.into_iter().flatten().filter_map(|volume| claim(pod, volume)).collect(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
    }
}

//! From what the API server returns to what the planner sees: parsed once, at the edge.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};

use super::cache::Version;
pub use super::{job::job, resident::resident};
use crate::{
    api::{
        names::{self, container},
        node::{DISK_PRESSURE, Node, NodeCondition, READY},
        owner::Owner,
        pod::{ContainerStatus, MAX_CONTAINERS, Pod, PodStatus, Terminated},
    },
    plan::model::{
        id::OpRef,
        lifecycle::{self, Lifecycle},
        object_name,
        snapshot::{
            ContainerState, ContainerView, Ended, NodeLabels, NodeView, PodPhase, PodView, Role, brief,
            has_native_sidecars,
        },
        time::later,
    },
};

/// For how long a kubelet has to have been Ready by its own clock to be said to stay so.
const STAYS: SignedDuration = SignedDuration::from_secs(60);

/// Which version of which object this is.
pub fn version(meta: &ObjectMeta) -> Version {
    Version {
        key: (text(&meta.namespace), text(&meta.name)),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
    }
}

pub(super) fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

pub(super) fn annotation(meta: &ObjectMeta, name: &str) -> Option<String> {
    meta.annotations.as_ref()?.get(name).cloned()
}

pub(super) fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The node that an object of ours is for: the annotation has the full name, a label may be cut.
pub(super) fn node_of(meta: &ObjectMeta) -> String {
    let label = || meta.labels.as_ref().and_then(|labels| labels.get(names::NODE).cloned());
    let named = annotation(meta, names::NODE_NAME).or_else(label);
    // No node has a longer name, and it is kept with each such object, whoever made it.
    named.filter(|name| name.len() <= MAX_NODE_NAME).unwrap_or_default()
}

const MAX_NODE_NAME: usize = 253;

/// Those annotations of a node that say facts, or what it was tried with, and those that autoscalers read.
fn annotations(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let ours = names::FACT_ANNOTATIONS.map(|(name, _)| name).into_iter().chain([
        names::FACTS_OF,
        names::RELEASE,
        names::BOOT_STATE_OF,
        names::ATTEMPTED,
    ]);
    let hints = names::KEEPS_FROM_SCALE_DOWN.map(|(name, _)| name);
    ours.chain(hints).filter_map(|name| Some((name.to_owned(), annotation(meta, name)?))).collect()
}

/// A node as the planner sees it.
pub fn node(node: Node) -> NodeView {
    let seen = all_but_labels(&node);
    NodeView { labels: node.labels.into(), ..seen }
}

fn all_but_labels(node: &Node) -> NodeView {
    let meta = &node.metadata;
    let status = node.status.as_ref();
    let info = status.and_then(|status| status.node_info.as_ref());
    let owner = |name| annotation(meta, name).and_then(|text| text.parse().ok());
    let ready = condition(node, READY);
    NodeView {
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        created: created(meta),
        labels: NodeLabels::default(),
        annotations: annotations(meta),
        unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: owner(names::CORDONED_BY),
        kept_cordon: annotation(meta, names::CORDONED_BY).and_then(|text| text.parse().ok()),
        claimed_by: owner(names::CLAIMED_BY),
        hints: annotation(meta, names::AUTOSCALER_HINTS).and_then(|text| text.parse().ok()),
        lifecycle: lifecycle(node),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        ready_changed: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
        stays_ready: ready.is_some_and(stays),
        boot_id: info.map(|info| info.boot_id.clone()).unwrap_or_default(),
        // A kubelet tells its version and its boot in one and the same report.
        bootless: info.is_some_and(|info| info.boot_id.is_empty() && !info.kubelet_version.is_empty()),
        machine_id: info.map(|info| info.machine_id.clone()).filter(|id| !id.is_empty()),
        os: info.map(|info| info.operating_system.clone()).unwrap_or_default(),
        arch: info.map(|info| info.architecture.clone()).unwrap_or_default(),
        native_sidecars: info.is_some_and(|info| has_native_sidecars(&info.kubelet_version)),
        etcd_votes: etcd_votes(node),
        etcd_said: etcd_said(node),
        disk_pressure: condition(node, DISK_PRESSURE).is_some_and(|condition| condition.status == "True"),
        volumes_attached: status
            .and_then(|status| status.volumes_attached.as_ref())
            .is_some_and(|volumes| !volumes.is_empty()),
        deleting: node.is_on_its_way_out(),
    }
}

/// Whether a condition has been what it is for a while when it was reported last: one clock tells both.
fn stays(condition: &NodeCondition) -> bool {
    let (began, told) = (&condition.last_transition_time, &condition.last_heartbeat_time);
    let for_a_while = |(began, told): (&Time, &Time)| told.0 >= later(began.0, STAYS);
    condition.status == "True" && began.as_ref().zip(told.as_ref()).is_some_and(for_a_while)
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == type_)
}

/// Those of a node's conditions that say what an operation does to it.
fn lifecycle(node: &Node) -> BTreeMap<Lifecycle, Option<OpRef>> {
    let said_by = |found: &NodeCondition| lifecycle::said_by(&found.message);
    let of = |condition: Lifecycle| Some((condition, said_by(self::condition(node, condition.kind())?)));
    Lifecycle::ALL.into_iter().filter_map(of).collect()
}

/// What the distribution says of the node's etcd. It says `NotAMember` of a node that runs none, which is
/// none of its failures, and of one that has lost its membership, which the node's label tells apart.
fn etcd_votes(node: &Node) -> Option<bool> {
    let condition = condition(node, names::ETCD_CONDITION)?;
    let member = node.labels.contains_key(names::ETCD_LABEL);
    let runs_none = condition.reason == names::ETCD_NO_MEMBER && !member;
    (!runs_none).then_some(condition.status == "True")
}

/// The reason and the message by which a distribution says that the node's etcd does not vote.
fn etcd_said(node: &Node) -> String {
    let said = condition(node, names::ETCD_CONDITION).filter(|_| etcd_votes(node) == Some(false));
    let texts = said.into_iter().flat_map(|said| [said.reason.as_str(), said.message.as_str()]);
    brief(&texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": "))
}

/// A pod that carries our label, as the planner sees it. `own` is our own namespace.
pub fn pod(pod: &Pod, own: &str) -> PodView {
    let meta = &pod.metadata;
    let status = pod.status.as_ref();
    let owner = Owner::of(meta).unwrap_or_default();
    let reason = status.map(|status| [text(&status.reason), text(&status.message)]);
    let reason =
        reason.map(|said| said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": "));
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_else(|| node_of(meta));
    PodView {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        role: role(meta, &owner, &node, own),
        owner,
        node,
        phase: phase(pod),
        reason: bounded(reason.unwrap_or_default()),
        deleting: meta.deletion_timestamp.is_some(),
        created: created(meta),
        attempt: annotation(meta, names::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
        reboot_state: annotation(meta, names::REBOOT_STATE).filter(|state| state.len() <= MAX_STATE),
        waits_in: annotation(meta, names::WAITS_IN).filter(|boot| boot.len() <= MAX_STATE),
        containers: status.map(containers).unwrap_or_default(),
    }
}

/// What a pod is for: its owner's kind decides, and its name among those that a NodeOp owns. A label is
/// anybody's to take away; the Go operator's pods have other names, and are told by it.
fn role(meta: &ObjectMeta, owner: &Owner, node: &str, own: &str) -> Role {
    let labels = meta.labels.as_ref();
    let has = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
    let name = meta.name.as_deref().unwrap_or_default();
    let is_named = |kind| object_name::attempt((&owner.name, &owner.uid), node, kind, name).is_some();
    if owner.is_job() {
        return Role::Job;
    }
    if owner.is_nodeop() {
        return if is_named(container::REBOOT) {
            Role::Waiter
        } else if is_named(container::PREFLIGHT) {
            Role::Preflight
        } else if has(names::REBOOT) {
            Role::Waiter
        } else if has(names::PREFLIGHT) {
            Role::Preflight
        } else {
            Role::Stranger
        };
    }
    // The Go operator's labeler pods carry the label of ours, too, and belong to its DaemonSet or Jobs.
    let reads_facts = owner.is_node() && has(names::APP) && meta.namespace.as_deref() == Some(own);
    if reads_facts { Role::Facts } else { Role::Stranger }
}

pub(super) fn phase(pod: &Pod) -> PodPhase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Running" | "Unknown") => PodPhase::Running,
        _ => PodPhase::Pending,
    }
}

fn containers(status: &PodStatus) -> Vec<ContainerView> {
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.take(MAX_CONTAINERS).map(container).collect()
}

/// Bytes of a waiter's state: it is one of three words.
pub(super) const MAX_STATE: usize = 64;
/// Bytes of a text of a node's that are kept. A kubelet cuts a termination message at half of it; whoever
/// has a node's credentials may write as much as an object holds, on each of our pods there.
const MAX_TEXT: usize = 8192;

fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(names::cut(&text, MAX_TEXT).len());
        text.shrink_to_fit();
    }
    text
}

/// A text of a node's.
fn said(text: &Option<String>) -> String {
    bounded(text.clone().unwrap_or_default())
}

fn container(status: &ContainerStatus) -> ContainerView {
    let ended = |ended: Terminated| Ended {
        code: ended.exit_code,
        reason: said(&ended.reason),
        message: said(&ended.message),
    };
    ContainerView {
        name: status.name.clone(),
        state: state(status),
        last: status.last_state.clone().and_then(|last| last.terminated).map(ended),
        restarts: status.restart_count,
        started: status.started.unwrap_or(false),
        image_id: bounded(status.image_id.clone()),
    }
}

/// What a kubelet says of a container that it cannot find.
const NOT_FOUND: &str = "ContainerStatusUnknown";

/// Whether a container that has ended, as its kubelet says, never was. A kubelet that ends a pod writes into
/// each of its main containers that it has no end of that it was killed (`TerminatePod` in its status
/// manager; seen with 1.36), also if it only waited for its image. One that ran has an id and an image,
/// or a last state that says so.
fn never_was(status: &ContainerStatus, ended: &Terminated) -> bool {
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    ended.reason.as_deref() == Some(NOT_FOUND)
        && status.restart_count == 0
        && last.is_none()
        && status.image_id.is_empty()
        && status.container_id.as_ref().is_none_or(String::is_empty)
}

fn state(status: &ContainerStatus) -> ContainerState {
    let state = status.state.clone().unwrap_or_default();
    if let Some(ended) = state.terminated {
        if never_was(status, &ended) {
            return ContainerState::Waiting { reason: said(&ended.reason), message: said(&ended.message) };
        }
        return ContainerState::Ended {
            code: ended.exit_code,
            reason: said(&ended.reason),
            message: said(&ended.message),
        };
    }
    if let Some(running) = state.running {
        return ContainerState::Running {
            since: running.started_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        };
    }
    let waiting = state.waiting.unwrap_or_default();
    ContainerState::Waiting { reason: said(&waiting.reason), message: said(&waiting.message) }
}

#[cfg(test)]
mod tests;

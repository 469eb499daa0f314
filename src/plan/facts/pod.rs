//! The pod that reads a node's facts: how it is named and made, what it says, and how it ends.

use crate::{
    api::names::{self, container},
    contract::{Facts, boot_state},
    plan::model::{
        action::{Action, Target},
        effects::Effects,
        object_name,
        snapshot::{ContainerView, NodeView, PodView, Role, Snapshot, brief},
    },
};

/// The facts pods. Others that carry their label are the Go operator's, and none of ours to delete.
pub fn ours(snapshot: &Snapshot) -> impl Iterator<Item = &PodView> {
    snapshot.facts_pods.values().map(AsRef::as_ref).filter(|pod| pod.role == Role::Facts)
}

/// Deletes the pod, if that was not done before.
pub fn delete(pod: &PodView, why: &'static str) -> Effects {
    Effects::act((!pod.deleting).then(|| Action::DeletePod { pod: Target::of(pod), why }))
}

/// The deterministic name of a facts pod: of this machine, in this boot.
pub fn name(node: &NodeView, attempt: i32) -> String {
    object_name::object((names::LABELER, &format!("{} {}", node.uid, node.boot_id)), &node.name, "", attempt)
}

/// Whether the pod reads this machine in this boot.
pub fn is_current(pod: &PodView, node: &NodeView) -> bool {
    pod.is_of_node(node) && pod.name == name(node, pod.attempt)
}

pub fn read(pod: &PodView) -> Option<Facts> {
    pod.container(container::FACTS)?.parsed_message()
}

/// What a node says of itself in the boot in which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub release: Option<String>,
    pub boot_state: String,
}

/// What the node says, on its Node, or where the pod that has read it is there still.
pub fn said(snapshot: &Snapshot, node: &NodeView) -> Option<Said> {
    let unknown = || boot_state::UNKNOWN.to_owned();
    if node.says_its_facts() {
        let release = node.annotations.get(names::RELEASE).cloned();
        let boot_state = node.annotations.get(names::BOOT_STATE_OF).cloned();
        return Some(Said { release, boot_state: boot_state.unwrap_or_else(unknown) });
    }
    let pods = snapshot.facts_pods.on_node(&node.name).filter(|pod| pod.role == Role::Facts);
    let mut read = pods.filter(|pod| is_current(pod, node)).filter_map(|pod| read(pod));
    let Facts { version, kairos, boot_state, .. } = read.find(|facts| facts.boot == node.boot_id)?;
    Some(Said { release: version, boot_state: if kairos { boot_state } else { unknown() } })
}

/// Why the pod has not read what it should have, if it is over.
pub fn failure(pod: &PodView) -> Option<String> {
    // The kubelet had not yet reported the boot that the pod ran in, or reports an old one.
    let of_another_boot = read(pod).map(|_| "the facts are of another boot".to_owned());
    of_another_boot.or_else(|| {
        pod.phase.is_final().then(|| [brief(&pod.reason), ended(pod)].join(" ").trim().to_owned())
    })
}

/// How its container ended. What that has said is the node's own text, which is quoted in part.
fn ended(pod: &PodView) -> String {
    let container = pod.container_view(container::FACTS);
    container.and_then(ContainerView::ended).map_or_else(
        || pod.obstacle().map(|obstacle| obstacle.text).unwrap_or_default(),
        |ended| ended.to_string(),
    )
}

/// Makes a pod of this attempt, or of the next one whose name is nobody else's.
pub fn make(
    snapshot: &Snapshot,
    node: &NodeView,
    attempt: i32,
    last_error: Option<String>,
    waited_for: bool,
) -> Action {
    let is_foreign = |name: &str| {
        let key = (snapshot.config.namespace.clone(), name.to_owned());
        let there = [snapshot.facts_pods.get(&key), snapshot.pods.get(&key)];
        there.into_iter().flatten().any(|pod| !pod.is_of_node(node))
    };
    let mut attempt = attempt;
    while is_foreign(&name(node, attempt)) && attempt < i32::MAX {
        attempt += 1;
    }
    Action::CreateFactsPod {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        name: name(node, attempt),
        attempt,
        last_error,
        waited_for,
    }
}

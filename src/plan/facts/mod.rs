//! Which nodes' facts are read, and when: at first sight of a node, after each of its boots, and when our
//! schema changes.
//!
//! The annotation `facts-of` says what has been read, so a restarted or newly elected operator makes no pod.
//! Ten nodes are read at a time; those that an upgrade waits for come first, are not counted, and do not have
//! to be Ready yet. A pod that only its own kubelet can end must not keep the others waiting when that
//! kubelet is gone: pods are counted on Ready nodes alone, and one whose node is away, or that takes too
//! long, is deleted. A pod that failed stays, as the memory of when and how often, until its successor is
//! made.

pub mod labels;
mod obstacle;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;

pub use self::obstacle::obstacle;
use crate::{
    api::{
        names::{self, container},
        nodeop::{NodeOp, Phase, Step},
    },
    contract::{self, Facts},
    plan::model::{
        action::{Action, Target},
        effects::{Effects, Planned},
        object_name,
        snapshot::{ContainerView, NodeView, PodView, Role, Snapshot, Standing, brief},
        time::later,
    },
};

/// Nodes that are read at a time, over the whole cluster, besides those that an upgrade waits for.
const AT_ONCE: usize = 10;
/// The pause after the first failure. It doubles with each further one.
const BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// How often the pause doubles at most.
const DOUBLINGS: i32 = 7;
/// How much longer than its deadline a pod may take, as we saw it: its kubelet counts from a moment of its
/// own.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// How long a node may have been there before our cache shows it: the pod may be another leader's, made for
/// it.
const NODE_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Reads what is to be read, and clears what has been.
pub fn sweep(snapshot: &Snapshot) -> Effects {
    let mut pods: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in ours(snapshot) {
        pods.entry(&pod.node).or_default().push(pod);
    }
    let mut effects = Effects::default();
    let mut free = AT_ONCE.saturating_sub(busy(snapshot).len());
    // Of all other nodes there is nothing to read, and nothing to clear.
    let unread = snapshot.nodes.by_name(Standing::Unread).keys().map(String::as_str);
    let concerned: BTreeSet<&str> = unread.chain(pods.keys().copied()).collect();
    for node in concerned.into_iter().filter_map(|name| snapshot.nodes.get(name)) {
        let of_node = pods.remove(node.name.as_str()).unwrap_or_default();
        if let Next::Make { attempt, last_error, waited_for } =
            effects.take(plan_node(snapshot, node, &of_node))
            && (waited_for || free > 0)
        {
            free -= usize::from(!waited_for);
            effects.add(make(snapshot, node, attempt, last_error));
        }
    }
    for pod in pods.into_values().flatten() {
        let unseen = later(snapshot.first_seen(pod), NODE_VISIBLE_WITHIN);
        if snapshot.now >= unseen {
            effects.add(delete(pod, "its node is gone"));
        } else if !pod.deleting {
            effects.add(Effects::wake_at(unseen));
        }
    }
    effects
}

/// The facts pods. Others that carry their label are the Go operator's, and none of ours to delete.
fn ours(snapshot: &Snapshot) -> impl Iterator<Item = &PodView> {
    snapshot.facts.values().map(AsRef::as_ref).filter(|pod| pod.role == Role::Facts)
}

/// The nodes that are being read and count: their kubelets will end the pods.
fn busy(snapshot: &Snapshot) -> BTreeSet<&str> {
    let counts = |pod: &&PodView| {
        let node = snapshot
            .nodes
            .get(&pod.node)
            .filter(|node| node.ready && node.is_linux() && is_current(pod, node));
        pod.is_active() && node.is_some_and(|node| !is_waited_for(snapshot, node))
    };
    ours(snapshot).filter(counts).map(|pod| pod.node.as_str()).collect()
}

/// Whether an upgrade waits to know what the node runs: it has booted, and that is to be proved.
fn is_waited_for(snapshot: &Snapshot, node: &NodeView) -> bool {
    let waits = |op: &NodeOp| {
        let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(&node.name));
        let entry = entry.filter(|entry| entry.phase == Phase::Running && op.spec.upgrade.is_some())?;
        let booted = entry.boot.as_ref().is_some_and(|left| *left != node.boot_id);
        Some(entry.step == Some(Step::Verify) || (entry.step == Some(Step::Reboot) && booted))
    };
    snapshot.ops.values().any(|op| waits(op).unwrap_or(false))
}

/// What comes next for a node.
#[derive(Debug)]
enum Next<'a> {
    /// Nothing is to be read, or what was read is being recorded.
    Nothing,
    /// It cannot be read as long as the node is not Ready.
    Away,
    /// This pod reads it, or is being ended.
    Reads(&'a PodView),
    /// The last pod failed, and the next one is made after this pause.
    Pause { pause: SignedDuration, why: String },
    /// A pod is to be made, once there is room.
    Make { attempt: i32, last_error: Option<String>, waited_for: bool },
}

/// What comes next for a node, and what is to be done for that; but for the making of a pod, which takes a
/// slot.
fn plan_node<'a>(snapshot: &Snapshot, node: &NodeView, pods: &[&'a PodView]) -> Planned<Next<'a>> {
    let mut effects = Effects::default();
    let known = node.says_its_facts();
    let waited_for = !known && is_waited_for(snapshot, node);
    let kept_off = labels::hands_off(node) && !waited_for;
    if known || node.boot_id.is_empty() || node.deleting || kept_off || !node.is_linux() {
        pods.iter().for_each(|pod| effects.add(delete(pod, "its facts are recorded, or not wanted")));
        return Planned { value: Next::Nothing, effects };
    }
    let newest = pods.iter().filter(|pod| is_current(pod, node)).max_by_key(|pod| pod.attempt).copied();
    for pod in pods.iter().filter(|pod| newest.is_none_or(|newest| newest.uid != pod.uid)) {
        effects.add(delete(pod, "it is of an earlier boot, or another one has taken its place"));
    }
    let may_start = node.ready || waited_for;
    let Some(pod) = newest else {
        let next =
            if may_start { Next::Make { attempt: 0, last_error: None, waited_for } } else { Next::Away };
        return Planned { value: next, effects };
    };
    if let Some(facts) = read(pod).filter(|facts| facts.boot == node.boot_id) {
        effects.add(Action::patch_node(node, labels::change(node, &facts)));
        return Planned { value: Next::Nothing, effects };
    }
    let value = effects.take(unread(snapshot, node, pod, waited_for));
    Planned { value, effects }
}

/// What comes next for a node whose newest pod has not read it.
fn unread<'a>(snapshot: &Snapshot, node: &NodeView, pod: &'a PodView, waited_for: bool) -> Planned<Next<'a>> {
    let may_start = node.ready || waited_for;
    let mut effects = Effects::default();
    let overdue =
        later(snapshot.first_seen(pod), SignedDuration::from_secs(contract::FACTS_DEADLINE) + MARGIN);
    let why = match failure(pod) {
        Some(_) if !may_start => return Next::Away.into(),
        Some(why) => why,
        None if !may_start => {
            return Planned::from(Next::Away).with(delete(pod, "its node is not Ready"));
        }
        None if snapshot.now < overdue => {
            return Planned::from(Next::Reads(pod)).with(Effects::wake_at(overdue));
        }
        None => {
            effects.add(delete(pod, "it has not ended in time"));
            if !node.ready {
                // Nobody confirms its end, and a second pod would do no better.
                return Planned { value: Next::Reads(pod), effects };
            }
            "it did not end in time".into()
        }
    };
    let pause = BACKOFF * 2i32.pow(u32::try_from(pod.attempt.clamp(0, DOUBLINGS)).unwrap_or(0));
    let until = later(snapshot.first_seen(pod), pause);
    if snapshot.now < until {
        return Planned::from(Next::Pause { pause, why }).with(effects).with(Effects::wake_at(until));
    }
    let next = Next::Make { attempt: pod.attempt.saturating_add(1), last_error: Some(why), waited_for };
    Planned { value: next, effects }
}

/// Deletes the pod, if that was not done before.
fn delete(pod: &PodView, why: &'static str) -> Effects {
    Effects::act((!pod.deleting).then(|| Action::DeletePod { pod: Target::of(pod), why }))
}

/// The deterministic name of a facts pod: of this machine, in this boot.
fn name(node: &NodeView, attempt: i32) -> String {
    object_name::object((names::LABELER, &format!("{} {}", node.uid, node.boot_id)), &node.name, "", attempt)
}

/// Whether the pod reads this machine in this boot.
fn is_current(pod: &PodView, node: &NodeView) -> bool {
    pod.is_of_node(node) && pod.name == name(node, pod.attempt)
}

fn read(pod: &PodView) -> Option<Facts> {
    pod.container(container::FACTS)?.parsed_message()
}

/// Why the pod has not read what it should have, if it is over.
fn failure(pod: &PodView) -> Option<String> {
    // The kubelet had not yet reported the boot that the pod ran in, or reports an old one.
    let of_another_boot = read(pod).map(|_| "the facts are of another boot".to_owned());
    of_another_boot.or_else(|| {
        pod.phase.is_final().then(|| [brief(&pod.reason), ended(pod)].join(" ").trim().to_owned())
    })
}

/// How its container ended. What that has said is the node's own text, which is quoted in part.
fn ended(pod: &PodView) -> String {
    let container = pod.containers.iter().find(|container| container.name == container::FACTS);
    container.and_then(ContainerView::ended).map_or_else(
        || pod.obstacle().map(|obstacle| obstacle.text).unwrap_or_default(),
        |ended| ended.to_string(),
    )
}

/// Makes a pod of this attempt, or of the next one whose name is nobody else's.
fn make(snapshot: &Snapshot, node: &NodeView, attempt: i32, last_error: Option<String>) -> Action {
    let is_foreign = |name: &str| {
        snapshot
            .facts
            .values()
            .chain(snapshot.pods.values())
            .any(|pod| pod.name == name && !pod.is_of_node(node))
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
    }
}

#[cfg(test)]
mod tests;

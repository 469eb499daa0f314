//! What comes next for a node whose facts are to be read.

use k8s_openapi::jiff::SignedDuration;

use super::{
    labels,
    pod::{delete, failure, is_current, read},
    slots::is_waited_for,
};
use crate::{
    contract,
    plan::model::{
        action::Action,
        effects::{Effects, Planned},
        snapshot::{NodeView, PodView, Snapshot},
        time::later,
    },
};

/// The pause after the first failure. It doubles with each further one, unless an upgrade waits for the node.
const BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// How often the pause doubles at most.
const DOUBLINGS: i32 = 7;
/// How much longer than its deadline a pod may take, as we saw it: its kubelet counts from a moment of its
/// own.
pub const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// What comes next for a node.
#[derive(Debug)]
pub enum Next<'a> {
    /// Nothing is to be read, or what was read is being recorded.
    Nothing,
    /// It cannot be read: a node's facts are those of a boot, and its kubelet tells none.
    NoBoot,
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
pub fn of_node<'a>(snapshot: &Snapshot, node: &NodeView, pods: &[&'a PodView]) -> Planned<Next<'a>> {
    let mut effects = Effects::default();
    let known = node.says_its_facts();
    let waited_for = !known && is_waited_for(snapshot, node);
    let kept_off = labels::hands_off(node) && !waited_for;
    let stays = !node.deleting || waited_for;
    let wanted = !known && stays && !kept_off && node.is_linux();
    if !wanted || !node.tells_its_boot() {
        pods.iter().for_each(|pod| effects.add(delete(pod, "its facts are recorded, or not wanted")));
        return Planned { value: if wanted { Next::NoBoot } else { Next::Nothing }, effects };
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
    let value = effects.absorb(unread(snapshot, node, pod, waited_for));
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
    // What failed while its network was not there says nothing about reading it now, and a step has an end of
    // its own, so that no pause has to grow.
    let doublings = if waited_for { 0 } else { pod.attempt.clamp(0, DOUBLINGS) };
    let pause = BACKOFF * 2i32.pow(u32::try_from(doublings).unwrap_or(0));
    let until = later(snapshot.first_seen(pod), pause);
    if snapshot.now < until {
        return Planned::from(Next::Pause { pause, why }).with(effects).with(Effects::wake_at(until));
    }
    let next = Next::Make { attempt: pod.attempt.saturating_add(1), last_error: Some(why), waited_for };
    Planned { value: next, effects }
}

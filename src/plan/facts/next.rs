//! What comes next for a node whose facts are to be read.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    labels,
    pod::{delete, failure, is_current, read},
    slots::{Reader, Reading},
};
use crate::{
    contract,
    plan::model::{
        action::Action,
        effects::{Effects, Planned},
        snapshot::{NodeView, PodView},
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

/// Pods of a node, other than the newest, that may be ending while a further one is made. Only its kubelet
/// confirms that they have ended, and whoever has that kubelet's credentials can report one boot after the
/// other.
const ENDING: usize = 1;

/// What comes next for a node.
#[derive(Debug)]
pub enum FactsStep<'a> {
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
pub fn of_node<'a>(reading: &Reading<'a>, node: &NodeView) -> Planned<FactsStep<'a>> {
    let pods: Vec<Reader<'a>> = reading.of_node(&node.name).collect();
    let known = node.says_its_facts();
    let waited_for = !known && reading.is_waited_for(node);
    let kept_off = node.is_left_alone() && !waited_for;
    let stays = !node.deleting || waited_for;
    let wanted = !known && stays && !kept_off && node.is_linux();
    if !wanted || !node.tells_its_boot() {
        let ended = pods.iter().map(|reader| delete(reader.pod, "its facts are recorded, or not wanted"));
        return Planned {
            value: if wanted { FactsStep::NoBoot } else { FactsStep::Nothing },
            effects: ended.collect(),
        };
    }
    let current = pods.iter().filter(|reader| is_current(reader.pod, node));
    let newest = current.max_by_key(|reader| reader.pod.attempt);
    let older = pods.iter().filter(|reader| newest.is_none_or(|newest| newest.pod.uid != reader.pod.uid));
    let older: Vec<&'a PodView> = older.map(|reader| reader.pod).collect();
    let why = "it is of an earlier boot, or another one has taken its place";
    let replaced: Effects = older.iter().map(|pod| delete(pod, why)).collect();
    let bounded = |next: FactsStep<'a>| match (next, older.get(ENDING)) {
        (FactsStep::Make { .. }, Some(ending)) => FactsStep::Reads(ending),
        (next, _) => next,
    };
    let may_start = node.ready || waited_for;
    let Some(newest) = newest else {
        let next = if may_start {
            FactsStep::Make { attempt: 0, last_error: None, waited_for }
        } else {
            FactsStep::Away
        };
        return Planned { value: bounded(next), effects: replaced };
    };
    if let Some(facts) = read(newest.pod).filter(|facts| facts.boot == node.boot_id) {
        // An upgrade that waits for it reads it here, and gives the node back with the same patch. A node
        // whose labels we keep off says it as long as somebody waits for it, and no longer.
        let now = !waited_for || node.is_left_alone();
        let recorded = now.then(|| Action::patch_node(node, labels::change(node, &facts)));
        return Planned { value: FactsStep::Nothing, effects: replaced }.with(Effects::act(recorded));
    }
    let Planned { value, effects } = unread(reading.now(), node, newest, waited_for);
    Planned { value: bounded(value), effects: Effects::all([replaced, effects]) }
}

/// What comes next for a node whose newest pod has not read it.
fn unread<'a>(
    now: Timestamp,
    node: &NodeView,
    newest: &Reader<'a>,
    waited_for: bool,
) -> Planned<FactsStep<'a>> {
    let Reader { pod, seen } = *newest;
    let may_start = node.ready || waited_for;
    let limit = if waited_for { contract::WAITED_FACTS_DEADLINE } else { contract::FACTS_DEADLINE };
    let overdue = later(seen, SignedDuration::from_secs(limit) + MARGIN);
    let (why, ended) = match failure(pod) {
        Some(_) if !may_start => return FactsStep::Away.into(),
        Some(why) => (why, Effects::default()),
        None if !may_start => {
            return Planned::from(FactsStep::Away).with(delete(pod, "its node is not Ready"));
        }
        None if now < overdue => {
            return Planned::from(FactsStep::Reads(pod)).with(Effects::wake_at(overdue));
        }
        None => {
            let ended = delete(pod, "it has not ended in time");
            if !node.ready {
                // Nobody confirms its end, and a second pod would do no better.
                return Planned { value: FactsStep::Reads(pod), effects: ended };
            }
            ("it did not end in time".into(), ended)
        }
    };
    // What failed while its network was not there says nothing about reading it now, and a step has an end of
    // its own, so that no pause has to grow.
    let doublings = if waited_for { 0 } else { pod.attempt.clamp(0, DOUBLINGS) };
    let pause = BACKOFF * 2i32.pow(u32::try_from(doublings).unwrap_or(0));
    let until = later(seen, pause);
    if now < until {
        return Planned::from(FactsStep::Pause { pause, why }).with(ended).with(Effects::wake_at(until));
    }
    let next = FactsStep::Make { attempt: pod.attempt.saturating_add(1), last_error: Some(why), waited_for };
    Planned { value: next, effects: ended }
}

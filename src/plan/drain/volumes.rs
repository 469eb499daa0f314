//! Volumes of the pods that went: a database must not come up on a second node while the first still has its disk.
//!
//! Waited for with an end, since a storage driver that never detaches must not hold a rollout: after two minutes the drain
//! goes on, and an Event says so.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    super::{
        action::Notice,
        question::{Answer, Question},
        step::{Turn, later},
    },
    Progress, list,
};

/// How long volumes are waited for.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);
/// How often the attachments are looked at meanwhile: nothing tells when one goes.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(2);

/// Waits for the volumes of pods that have gone; `None` when there is nothing (more) to wait for.
pub fn wait(turn: &mut Turn<'_>) -> Option<Progress> {
    if !turn.node.volumes_attached {
        return None;
    }
    let question = Question::Volumes(turn.node.name.clone());
    let attached = match turn.s.answer(&question) {
        None => {
            turn.ask(question);
            return Some(Progress::Going("draining: looking for attached volumes".into()));
        }
        Some(Answer::Attached(volumes)) if !volumes.is_empty() => volumes.clone(),
        Some(_) => return None,
    };
    let now = turn.s.now;
    let Some(since) = turn.status.detaching_since.as_ref().map(|time| time.0) else {
        return Some(Progress::Record(turn.record(|status| status.detaching_since = Some(Time(now)))));
    };
    if now < later(since, PATIENCE) {
        turn.plan.wake(later(now, LOOK_EVERY));
        return Some(Progress::Going(format!(
            "draining: the pods are gone, waiting for their volumes to be detached: {}",
            list(&attached)
        )));
    }
    let name = turn.node.name.clone();
    let message = format!("node {name}: after {} s these volumes are still attached, going on: {}", PATIENCE.as_secs(), list(&attached));
    turn.say(Notice { warning: true, reason: "VolumesAttached", message, node: Some(name) });
    None
}

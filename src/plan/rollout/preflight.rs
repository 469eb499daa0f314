//! The preflight of a node: a pod that disturbs nothing, ahead of its turn.
//!
//! Only the command's own exit code, its deadline counted from its container's start, or an image that cannot be pulled
//! is a verdict. A pod that was evicted, shut down with its node or lost says nothing, and runs again.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{
        names::container,
        nodeop::{NodeOpSpec, NodeStatus, Phase, RebootStatus, Step},
    },
    contract::Proceed,
    plan::{
        model::{
            action::{Action, Plan, Target},
            intent::PreflightIntent,
            silence,
            snapshot::{ContainerState, NodeView, PodView, Role, Snapshot},
            time::later,
        },
        node::turn::{Next, Op, finish},
    },
};

/// Lost pods after which we stop and say so.
const MAX_ATTEMPTS: i32 = 10;

/// The status of a node whose preflight is to run.
///
/// A verdict that is outdated has a pod, which may still be seen: the next attempt must not read its verdict again.
pub fn begin(now: Timestamp, node: &NodeView, status: &NodeStatus) -> NodeStatus {
    let again = status.boot.is_some() || status.attempt.is_some();
    NodeStatus {
        phase: Phase::Preflight,
        step: Some(Step::Preflight),
        message: Some("Preflight in progress".into()),
        last_updated: Some(Time(now)),
        boot: None,
        new_boot: Some(node.boot_id.clone()),
        attempt: again.then(|| status.attempt.unwrap_or(0).saturating_add(1)),
        ..status.clone()
    }
}

/// Advances a node in phase `Preflight`. `stopped`: the rollout starts nothing more, so the pod goes.
pub fn advance(s: &Snapshot, op: &Op, node: &NodeView, status: &NodeStatus, stopped: bool, plan: &mut Plan) -> Next {
    let Some(intent) = op.intent.preflight.as_ref().filter(|_| !stopped && !op.deleting) else {
        return to_pending(s.now, status, None, None);
    };
    // A node that went away says nothing, and must not keep others from being looked at.
    if !node.ready {
        return to_pending(s.now, status, None, Some("Preflight interrupted: the node is not Ready".into()));
    }
    let attempt = status.attempt.unwrap_or(0);
    let name = op.object_name(&node.name, "preflight", attempt);
    let Some(pod) = s.pods.get(&(op.me.namespace.clone(), name.clone())) else {
        plan.actions.push(Action::MakePreflight { op: op.object.clone(), node: node.name.clone(), name });
        return Next::Wait("Preflight in progress".into());
    };
    if !pod.is_of(&op.me) {
        let message =
            format!("Preflight failed: a pod {}/{name} exists that is not ours; delete it and create the NodeOp again", op.me.namespace);
        return finish(s.now, status, Phase::Failed, Some(RebootStatus::NotRequested), message);
    }
    verdict(s, op, intent, node, status, pod, plan)
}

fn verdict(s: &Snapshot, op: &Op, intent: &PreflightIntent, node: &NodeView, status: &NodeStatus, pod: &PodView, plan: &mut Plan) -> Next {
    let end = |phase, message: String| finish(s.now, status, phase, Some(RebootStatus::NotRequested), message);
    match pod.container(container::PREFLIGHT) {
        Some(ContainerState::Ended { code: 0, .. }) if status.new_boot.as_ref() != Some(&node.boot_id) => {
            to_pending(s.now, status, None, Some("Preflight passed in an earlier boot, it is asked again".into()))
        }
        Some(ended @ ContainerState::Ended { code: 0, message, .. }) if message.trim().is_empty() || proceeds(&op.object.spec, ended) => {
            to_pending(s.now, status, Some(node.boot_id.clone()), Some("Preflight passed".into()))
        }
        Some(ContainerState::Ended { code: 0, message, .. }) => end(Phase::Completed, format!("Skipped by preflight: {}", message.trim())),
        // The kubelet ends a container with 137 or 143 when it ends the pod; then the pod says why, and the command said nothing.
        Some(ContainerState::Ended { .. }) if !pod.reason.is_empty() || pod.deleting => again(s, status, pod),
        Some(ContainerState::Ended { code, reason, message }) => {
            let words = if message.trim().is_empty() { reason.clone() } else { message.trim().to_owned() };
            end(Phase::Failed, format!("Preflight failed: {words} (exit code {code})"))
        }
        Some(ContainerState::Running { since }) => {
            let deadline = later(*since, intent.deadline);
            if s.now >= deadline {
                return end(
                    Phase::Failed,
                    format!("Preflight failed: DeadlineExceeded, it ran for more than {} s", intent.deadline.as_secs()),
                );
            }
            plan.wake(deadline);
            Next::Wait("Preflight in progress".into())
        }
        Some(ContainerState::Waiting { .. }) | None if pod.phase.is_final() || pod.deleting => again(s, status, pod),
        Some(ContainerState::Waiting { .. }) | None => not_started(s, op, node, status, pod, plan),
    }
}

/// Whether our own check says to go ahead. The same words of a user's command skip the node, as all words of it do.
fn proceeds(spec: &NodeOpSpec, ended: &ContainerState) -> bool {
    let ours = spec.preflight.is_none() && spec.upgrade.is_some();
    ours && ended.words::<Proceed>().is_some_and(|record| record.proceed)
}

fn not_started(s: &Snapshot, op: &Op, node: &NodeView, status: &NodeStatus, pod: &PodView, plan: &mut Plan) -> Next {
    let deadline = later(pod.created, op.intent.pull_timeout);
    let complaint = pod.obstacle().map(|obstacle| obstacle.text).or_else(|| silence::words(s, pod, plan));
    if s.now >= deadline && node.ready {
        let why = complaint.unwrap_or_else(|| "the node did not start it".into());
        let message = format!("Preflight failed: no start in {} s: {why}", op.intent.pull_timeout.as_secs());
        return finish(s.now, status, Phase::Failed, Some(RebootStatus::NotRequested), message);
    }
    if s.now < deadline {
        plan.wake(deadline);
    }
    Next::Wait(complaint.map_or_else(|| "Preflight in progress".into(), |why| format!("Preflight cannot start yet: {why}")))
}

/// The pod was lost without a verdict: the next attempt, up to a limit.
fn again(s: &Snapshot, status: &NodeStatus, pod: &PodView) -> Next {
    if pod.deleting && !pod.phase.is_final() {
        return Next::Wait("Preflight in progress: its pod was deleted and is made again".into());
    }
    let attempt = status.attempt.unwrap_or(0).saturating_add(1);
    if attempt >= MAX_ATTEMPTS {
        let why = pod.obstacle().map_or_else(|| "an end without a reason".into(), |obstacle| obstacle.text);
        let message = format!("Preflight failed: its pod was lost {attempt} times, the last time because of {why}");
        return finish(s.now, status, Phase::Failed, Some(RebootStatus::NotRequested), message);
    }
    let mut next = status.clone();
    next.attempt = Some(attempt);
    Next::Become(Box::new(next))
}

fn to_pending(now: Timestamp, status: &NodeStatus, boot: Option<String>, message: Option<String>) -> Next {
    Next::Become(Box::new(NodeStatus {
        phase: Phase::Pending,
        step: None,
        boot,
        new_boot: None,
        message,
        attempt: Some(status.attempt.unwrap_or(0)),
        last_updated: Some(Time(now)),
        ..status.clone()
    }))
}

/// The rollout starts nothing more: a node whose preflight still runs is as untouched as the others.
pub fn withdraw(now: Timestamp, entry: &mut NodeStatus) {
    if entry.phase == Phase::Preflight
        && let Next::Become(next) = to_pending(now, entry, None, None)
    {
        *entry = *next;
    }
}

/// Preflight pods whose verdict is recorded, or no longer wanted.
pub fn sweep(s: &Snapshot, op: &Op, plan: &mut Plan) {
    let Some(status) = &op.object.status else { return };
    for pod in s.pods_of(&op.me, Role::Preflight).filter(|pod| !pod.deleting) {
        let entry = status.node_statuses.get(&pod.node);
        let attempt = entry.and_then(|entry| entry.attempt).unwrap_or(0);
        let wanted =
            entry.is_some_and(|entry| entry.phase == Phase::Preflight) && pod.name == op.object_name(&pod.node, "preflight", attempt);
        if !wanted {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its verdict is recorded" });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_our_own_check_goes_ahead_with_words() {
        let spec = |value| -> NodeOpSpec { serde_json::from_value(value).unwrap() };
        let upgrade = spec(json!({"image": "kairos:v2", "upgrade": {}}));
        let users = spec(json!({"command": ["x"], "preflight": {"command": ["check"]}}));
        let says = |code, message: &str| ContainerState::Ended { code, reason: String::new(), message: message.into() };
        let record = r#"{"proceed":true,"boot":"b1","before":"v1","target":"v2"}"#;
        assert!(proceeds(&upgrade, &says(0, record)));
        assert!(!proceeds(&users, &says(0, record)), "what a user's command says skips the node");
        for (code, message) in [(1, record), (0, "node is already at v2"), (0, "{}"), (0, r#"{"proceed":false,"boot":"b1"}"#)] {
            assert!(!proceeds(&upgrade, &says(code, message)), "{code} {message}");
        }
    }
}

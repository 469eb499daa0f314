//! The preflight of a node: a pod that disturbs nothing, ahead of its turn.
//!
//! A verdict is the command's own exit code, or its deadline, and it counts for a node that nobody else has,
//! in the boot in which it was asked, confirmed by a live read when it is recorded. A pod that was refused,
//! evicted, shut down with its node or deleted says nothing, and is made again (see [`lost`]). What no
//! waiting helps fails the node at once.
//!
//! Times are counted from when we first saw the pod, and its container run: the node has a clock of its own.

mod lost;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{
        names::container,
        nodeop::{NodeStatus, Phase, RebootStatus, Step},
    },
    contract::Proceed,
    plan::{
        image,
        model::{
            action::{Action, Plan, Target},
            intent::PreflightIntent,
            silence,
            snapshot::{ContainerState, ContainerView, Ended, NodeView, PodView, Role, Snapshot, brief},
            time::later,
        },
        node::context::{Next, Op, finish},
        rollout::others::Others,
    },
};

/// What is said of a preflight that goes on.
const RUNNING: &str = "Preflight in progress";
/// How the sentence on a pod that has not started begins; what kept it follows.
const NOT_STARTED: &str = "Preflight cannot start yet: ";

/// The status of a node whose preflight is to run.
///
/// A verdict that is outdated has a pod, which may still be seen: the next attempt must not read its verdict
/// again.
pub fn begin(now: Timestamp, node: &NodeView, status: &NodeStatus) -> NodeStatus {
    let again = status.boot.is_some() || status.attempt.is_some();
    NodeStatus {
        phase: Phase::Preflight,
        step: Some(Step::Preflight),
        message: Some(RUNNING.into()),
        last_updated: Some(Time(now)),
        boot: None,
        target: None,
        image: None,
        new_boot: Some(node.boot_id.clone()),
        since: None,
        attempt: again.then(|| status.attempt.unwrap_or(0).saturating_add(1)),
        ..status.clone()
    }
}

/// Advances a node in phase `Preflight`. `stopped`: the rollout starts nothing more, so the pod goes.
pub fn advance(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    status: &NodeStatus,
    stopped: bool,
    plan: &mut Plan,
) -> Next {
    let Some(intent) = op.intent.preflight.as_ref().filter(|_| !stopped && !op.deleting) else {
        return to_pending(snapshot.now, status, None, None);
    };
    let asked_again = |why: &str| to_pending(snapshot.now, status, None, Some(why.into()));
    // A node that went away says nothing, and must not keep others from being looked at.
    let Some(node) = snapshot.nodes.get(name).filter(|node| node.ready) else {
        return asked_again("Preflight interrupted: the node is not Ready");
    };
    if status.new_boot.as_ref() != Some(&node.boot_id) {
        return asked_again("the node was rebooted during its preflight, it is asked again");
    }
    let others = Others::of(snapshot, op);
    if let Some(why) = others.keep(node) {
        return to_pending(snapshot.now, status, None, Some(why));
    }
    let next = ask(snapshot, op, intent, node, status, plan);
    let decides = matches!(&next, Next::Become(next) if next.phase != Phase::Preflight);
    let open: Vec<_> =
        others.questions(node).into_iter().filter(|question| snapshot.answer(question).is_none()).collect();
    if !decides || open.is_empty() {
        return next;
    }
    plan.questions.extend(open);
    Next::Wait("Preflight ended; checking that it is still the same node, and nobody else's".into())
}

/// What the node's pod says, or is about to.
fn ask(
    snapshot: &Snapshot,
    op: &Op,
    intent: &PreflightIntent,
    node: &NodeView,
    status: &NodeStatus,
    plan: &mut Plan,
) -> Next {
    let name = op.object_name(&node.name, "preflight", status.attempt.unwrap_or(0));
    let Some(pod) = snapshot.pods.get(&(op.id.namespace.clone(), name.clone())) else {
        if let Some(why) = lost::pause(snapshot.now, op, status, plan) {
            return Next::Wait(why);
        }
        plan.actions.push(Action::CreatePreflightPod {
            op: op.object.clone(),
            node: node.name.clone(),
            name,
        });
        return Next::Wait(RUNNING.into());
    };
    if pod.role != Role::Preflight || !pod.is_of(&op.id) || pod.node != node.name {
        return lost::foreign(snapshot.now, op, status, pod);
    }
    let container = pod.containers.iter().find(|found| found.name == container::PREFLIGHT);
    let begun = container.filter(|container| !matches!(container.state, ContainerState::Waiting { .. }));
    match begun.map(|container| (container, container.ended())) {
        Some((_, Some(ended))) => verdict(snapshot, op, node, status, pod, &ended),
        Some((container, None)) => running(snapshot, intent, status, pod, container, plan),
        None => not_started(snapshot, op, status, pod, plan),
    }
}

/// The container has ended.
fn verdict(
    snapshot: &Snapshot,
    op: &Op,
    node: &NodeView,
    status: &NodeStatus,
    pod: &PodView,
    ended: &Ended,
) -> Next {
    if ended.code != 0 {
        return match lost::says_nothing(pod, ended) {
            true => lost::again(snapshot.now, op, status, &lost::reason(pod)),
            false => fail(snapshot.now, status, &ended.to_string()),
        };
    }
    match image::compare(snapshot, &op.object, pod) {
        image::Compared::Differs(why) => return fail(snapshot.now, status, &why),
        // What it is compared with stands in status before anything follows from it.
        image::Compared::First => return Next::Wait(RUNNING.into()),
        image::Compared::Same | image::Compared::Unknown => {}
    }
    let record = proceed(op, pod);
    if record.as_ref().is_some_and(|record| record.boot != node.boot_id) {
        return lost::again(
            snapshot.now,
            op,
            status,
            "it looked at another boot than the one that the node reports",
        );
    }
    match ended.message.trim() {
        message if record.is_none() && !message.is_empty() => {
            end(snapshot.now, status, Phase::Completed, format!("Skipped by preflight: {}", brief(message)))
        }
        _ => {
            let found = NodeStatus {
                target: record.and_then(|record| record.target),
                image: image::pinned(&op.object, pod),
                ..status.clone()
            };
            to_pending(snapshot.now, &found, Some(node.boot_id.clone()), Some("Preflight passed".into()))
        }
    }
}

/// Our own check's record that the node may go ahead, and what it found. The same text from a user's command
/// skips the node, as all of its output does.
fn proceed(op: &Op, pod: &PodView) -> Option<Proceed> {
    let ours = op.object.spec.preflight.is_none() && op.object.spec.upgrade.is_some();
    let said = pod.container(container::PREFLIGHT).filter(|_| ours)?.parsed_message::<Proceed>();
    said.filter(|record| record.proceed)
}

/// The container runs, for as long as it may.
fn running(
    snapshot: &Snapshot,
    intent: &PreflightIntent,
    status: &NodeStatus,
    pod: &PodView,
    container: &ContainerView,
    plan: &mut Plan,
) -> Next {
    let deadline =
        later(snapshot.running_since(pod, &container.name).unwrap_or(snapshot.now), intent.deadline);
    if snapshot.now >= deadline {
        return fail(
            snapshot.now,
            status,
            &format!("DeadlineExceeded, it ran for more than {} s", intent.deadline.as_secs()),
        );
    }
    plan.wake(deadline);
    Next::Wait(RUNNING.into())
}

/// The container has not started, and in a pod that has ended it never will.
fn not_started(snapshot: &Snapshot, op: &Op, status: &NodeStatus, pod: &PodView, plan: &mut Plan) -> Next {
    let obstacle = pod.obstacle();
    if let Some(lasts) = obstacle.as_ref().filter(|obstacle| obstacle.permanent) {
        return fail(snapshot.now, status, &lasts.text);
    }
    if !pod.is_active() {
        return lost::again(snapshot.now, op, status, &lost::reason(pod));
    }
    let deadline = later(snapshot.first_seen(pod), op.intent.pull_timeout);
    let why = obstacle.map(|obstacle| obstacle.text).or_else(|| silence::event_message(snapshot, pod, plan));
    if snapshot.now < deadline {
        plan.wake(deadline);
        return Next::Wait(why.map_or_else(|| RUNNING.into(), |why| format!("{NOT_STARTED}{why}")));
    }
    // Events are not read in every plan; what they said last stands in the message.
    let told = || status.message.as_ref().and_then(|told| told.strip_prefix(NOT_STARTED)).map(str::to_owned);
    let why = why.or_else(told).unwrap_or_else(|| "the node did not start it".into());
    fail(snapshot.now, status, &format!("no start in {} s: {why}", op.intent.pull_timeout.as_secs()))
}

fn end(now: Timestamp, status: &NodeStatus, phase: Phase, message: String) -> Next {
    finish(now, status, phase, Some(RebootStatus::NotRequested), message)
}

fn fail(now: Timestamp, status: &NodeStatus, why: &str) -> Next {
    end(now, status, Phase::Failed, failed(why))
}

/// The message of a node that failed at its preflight.
pub fn failed(why: &str) -> String {
    format!("Preflight failed: {why}")
}

fn to_pending(now: Timestamp, status: &NodeStatus, boot: Option<String>, message: Option<String>) -> Next {
    Next::Become(Box::new(NodeStatus {
        phase: Phase::Pending,
        step: None,
        boot,
        new_boot: None,
        since: None,
        message,
        attempt: Some(status.attempt.unwrap_or(0)),
        last_updated: Some(Time(now)),
        ..status.clone()
    }))
}

/// Somebody else has to do with the node: what was found out about it is forgotten, and asked again under
/// another name.
pub fn forget(entry: &mut NodeStatus) {
    entry.attempt = entry.attempt.or_else(|| entry.boot.is_some().then_some(0));
    (entry.boot, entry.target, entry.image) = (None, None, None);
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
pub fn sweep(snapshot: &Snapshot, op: &Op, plan: &mut Plan) {
    let Some(status) = &op.object.status else { return };
    for pod in snapshot.pods_of(&op.id, Role::Preflight).filter(|pod| !pod.deleting) {
        let entry = status.node_statuses.get(&pod.node);
        let attempt = entry.and_then(|entry| entry.attempt).unwrap_or(0);
        let wanted = entry.is_some_and(|entry| entry.phase == Phase::Preflight)
            && pod.name == op.object_name(&pod.node, "preflight", attempt);
        if !wanted {
            plan.actions.push(Action::DeletePod { pod: Target::of(pod), why: "its verdict is recorded" });
        }
    }
}

#[cfg(test)]
mod tests;

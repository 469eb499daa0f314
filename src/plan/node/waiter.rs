//! The reboot waiter of a node in hand: there before the Job may start, there again if it was lost.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::nodeop::{Phase, Step},
    contract::reboot_state,
    plan::{
        model::{
            action::{Action, Grant},
            silence,
            snapshot::{PodPhase, Role, Snapshot},
            time::later,
        },
        node::{
            legacy,
            turn::{Next, Op, Turn},
        },
    },
};

/// Seconds to wait before each further waiter, times the number of those lost: a node that ends its pods at once must
/// not be fed with them.
const BACKOFF: SignedDuration = SignedDuration::from_secs(5);
/// Before the operation has started, a node that ends so many waiters is failed: nothing grows without bound.
const MAX_ATTEMPTS: i32 = 20;

/// What a waiter does that has not said anything yet.
pub const STARTS: &str = "it starts";

/// Where the waiter stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiter {
    /// No reboot is asked for.
    NotAsked,
    /// It stands, and watches.
    Ready,
    /// Not yet, and why.
    Starting(String),
    /// It ended without a reboot: record the next attempt.
    Lost(Next),
    /// A pod of that name is somebody else's.
    Foreign(String),
}

/// Sees to it that the node's waiter exists.
pub fn ensure(turn: &mut Turn<'_>, job: &str) -> Waiter {
    if !turn.op.intent.reboot {
        return Waiter::NotAsked;
    }
    if legacy::is_adopted(turn) {
        return Waiter::Ready;
    }
    let attempt = turn.status.attempt.unwrap_or(0);
    let name = turn.op.object_name(&turn.node.name, "reboot", attempt);
    let key = (turn.op.me.namespace.clone(), name.clone());
    let Some(pod) = turn.s.pods.get(&key).cloned() else {
        return make(turn, name, job, attempt);
    };
    if !pod.is_of(&turn.op.me) {
        return Waiter::Foreign(format!("{}/{}", pod.namespace, pod.name));
    }
    if pod.phase.is_final() || pod.deleting {
        return lost(turn, pod.phase, pod.deleting, attempt);
    }
    match pod.reboot_state.as_deref() {
        Some(reboot_state::WAITING | reboot_state::REBOOTING | reboot_state::COMPLETED) => Waiter::Ready,
        _ => {
            let told = pod.obstacle().map(|obstacle| obstacle.text).or_else(|| silence::words(turn.s, &pod, turn.plan));
            Waiter::Starting(told.unwrap_or_else(|| STARTS.into()))
        }
    }
}

fn make(turn: &mut Turn<'_>, name: String, job: &str, attempt: i32) -> Waiter {
    if attempt > 0 {
        // No record of when it was lost: long ago, in an earlier step.
        let at = turn.status.since.as_ref().map(|lost| later(lost.0, BACKOFF * attempt));
        if let Some(at) = at.filter(|at| turn.s.now < *at) {
            turn.plan.wake(at);
            return Waiter::Starting(format!("{attempt} were lost, the next one is made at {at:.0}"));
        }
    }
    let grant = grant(turn.s, turn.op, &turn.node.name, &name, job);
    let (op, node) = (turn.op.object.clone(), turn.node.name.clone());
    turn.act(Action::MakeWaiter { op, node, name, job: job.to_owned(), grant });
    Waiter::Starting(STARTS.into())
}

fn lost(turn: &Turn<'_>, phase: PodPhase, deleting: bool, attempt: i32) -> Waiter {
    if deleting && !phase.is_final() {
        return Waiter::Starting("the old one is being deleted".into());
    }
    if attempt >= MAX_ATTEMPTS && turn.status.step != Some(Step::Reboot) {
        let message = format!("the reboot waiter was lost {MAX_ATTEMPTS} times, the operation was not started");
        return Waiter::Lost(turn.fail(message));
    }
    let next = turn.record(|status| {
        status.attempt = Some(attempt.saturating_add(1));
        status.since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(turn.s.now));
    });
    Waiter::Lost(next)
}

/// Fails the node if its waiter, wanted since `begun` or since the last one was lost, does not get ready in time.
pub fn overdue(turn: &mut Turn<'_>, begun: Timestamp, why: &str) -> Option<Next> {
    let from = turn.status.since.as_ref().map_or(begun, |lost| lost.0.max(begun));
    let deadline = later(from, turn.op.intent.pull_timeout);
    if turn.s.now >= deadline {
        let seconds = turn.op.intent.pull_timeout.as_secs();
        return Some(turn.fail(format!("the reboot waiter did not get ready in {seconds} s: {why}")));
    }
    turn.plan.wake(deadline);
    None
}

/// What the waiters of this NodeOp may touch: their own pod and their own Job, of the nodes that are in hand, and of those
/// that are not yet, or not any more, while there is a waiter. `name` is about to be made on node `of`.
pub fn grant(s: &Snapshot, op: &Op, of: &str, name: &str, job: &str) -> Grant {
    let mut grant = Grant { waiters: vec![name.to_owned()], jobs: vec![job.to_owned()] };
    let entries = op.object.status.iter().flat_map(|status| &status.node_statuses);
    for (node, entry) in entries {
        let needs = entry.phase == Phase::Running && !matches!(entry.step, Some(Step::Claim | Step::Preflight) | None);
        if needs && *node != of {
            grant.waiters.push(op.object_name(node, "reboot", entry.attempt.unwrap_or(0)));
            grant.jobs.push(op.object_name(node, "", 0));
        }
    }
    for pod in s.pods_of(&op.me, Role::Waiter).filter(|pod| !pod.phase.is_final()) {
        grant.waiters.push(pod.name.clone());
        grant.jobs.push(op.object_name(&pod.node, "", 0));
    }
    for names in [&mut grant.waiters, &mut grant.jobs] {
        names.sort();
        names.dedup();
    }
    grant
}

/// What the node's present waiter says of itself.
pub fn says<'a>(turn: &'a Turn<'_>) -> Option<&'a str> {
    let name = turn.op.object_name(&turn.node.name, "reboot", turn.status.attempt.unwrap_or(0));
    let pod = turn.s.pods.get(&(turn.op.me.namespace.clone(), name))?;
    pod.reboot_state.as_deref().filter(|_| pod.is_of(&turn.op.me))
}

/// Whether a waiter of this node said that the reboot is under way or over: it had seen the Job `Complete` by then.
pub fn went_on(turn: &Turn<'_>) -> Option<&'static str> {
    let here = turn.s.pods_of(&turn.op.me, Role::Waiter).filter(|pod| pod.node == turn.node.name);
    let states: Vec<&str> = here.filter_map(|pod| pod.reboot_state.as_deref()).collect();
    [reboot_state::COMPLETED, reboot_state::REBOOTING].into_iter().find(|state| states.contains(state))
}

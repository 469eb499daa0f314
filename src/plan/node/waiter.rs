//! The reboot waiter of a node that is worked on: there before the Job may start, there again if it was lost.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use crate::{
    api::nodeop::{Phase, Step},
    contract::reboot_state,
    plan::{
        model::{
            action::{Action, WaiterGrant},
            silence,
            snapshot::{PodView, Role, Snapshot},
            time::later,
        },
        node::{
            context::{Decision, NodeContext, Op},
            legacy,
        },
    },
};

/// The pause before each further waiter, times the number of those lost …
const BACKOFF: SignedDuration = SignedDuration::from_secs(5);
/// … and at most this: a node that ends its pods at once must not be fed with them.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(120);
/// Before the operation has started, a node on which this number of waiters were lost is given up, however
/// long each may take to start.
const MAX_ATTEMPTS: i32 = 50;

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
    Lost(Decision),
    /// It did not get ready in the time that it has, or never will.
    Overdue(Decision),
}

/// Whether the node has the room that its drain makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Made,
    /// The drain goes on. A waiter that the node has no room for waits for it: no pod is ever pushed aside
    /// for a waiter.
    Awaited,
}

/// Sees to it that the node's waiter exists.
pub fn ensure(ctx: &mut NodeContext<'_>, job: &str, room: Room) -> Waiter {
    if !ctx.op.intent.reboot {
        return Waiter::NotAsked;
    }
    if legacy::is_adopted(ctx) {
        return Waiter::Ready;
    }
    let attempt = ctx.status.attempt.unwrap_or(0);
    let name = ctx.op.object_name(&ctx.node.name, "reboot", attempt);
    let key = (ctx.op.id.namespace.clone(), name.clone());
    let Some(pod) = ctx.snapshot.pods.get(&key).cloned() else {
        return make(ctx, name, job, attempt);
    };
    if !pod.is_of(&ctx.op.id) {
        // Somebody else's pod stands in the name, and in nothing else: the next attempt has another one.
        return next_attempt(
            ctx,
            &format!("a pod {}/{name} exists that is not ours", pod.namespace),
            attempt,
            false,
        );
    }
    if !pod.is_active() {
        return lost(ctx, &pod, attempt, room);
    }
    match pod.reboot_state.as_deref() {
        Some(reboot_state::WAITING | reboot_state::REBOOTING | reboot_state::COMPLETED) => Waiter::Ready,
        _ => starting(ctx, &pod),
    }
}

/// The waiter is there, and has not said yet that it watches.
fn starting(ctx: &mut NodeContext<'_>, pod: &PodView) -> Waiter {
    let obstacle = pod.obstacle();
    if let Some(obstacle) = obstacle.as_ref().filter(|obstacle| obstacle.permanent)
        && may_give_up(ctx)
    {
        return Waiter::Overdue(ctx.fail(format!("the reboot waiter cannot start: {}", obstacle.text)));
    }
    let told = obstacle
        .map(|obstacle| obstacle.text)
        .or_else(|| silence::event_message(ctx.snapshot, pod, ctx.plan));
    if told.is_none() && silence::is_asked(ctx.snapshot, pod, ctx.plan) {
        // Not given up for a reason that is just being read.
        return Waiter::Starting(STARTS.into());
    }
    in_time(ctx, told.unwrap_or_else(|| STARTS.into()))
}

fn make(ctx: &mut NodeContext<'_>, name: String, job: &str, attempt: i32) -> Waiter {
    if attempt > 0 {
        // No record of when it was lost: long ago, in an earlier step.
        if let Some(at) = ctx.paused_until((BACKOFF * attempt).min(MAX_BACKOFF)) {
            let why = last_lost(ctx, attempt)
                .map(|why| format!(", the last one because {why}"))
                .unwrap_or_default();
            return in_time(ctx, format!("{attempt} were lost{why}; the next one is made at {at:.0}"));
        }
    }
    let grant = grant(ctx.snapshot, ctx.op, &ctx.node.name, &name, job);
    let (op, node) = (ctx.op.object.clone(), ctx.node.name.clone());
    ctx.act(Action::CreateWaiter { op, node, name, job: job.to_owned(), grant });
    in_time(ctx, STARTS.into())
}

/// Why the waiter before this attempt was lost, while its pod is there to tell.
fn last_lost(ctx: &NodeContext<'_>, attempt: i32) -> Option<String> {
    let name = ctx.op.object_name(&ctx.node.name, "reboot", attempt.saturating_sub(1));
    let pod = ctx.snapshot.pods.get(&(ctx.op.id.namespace.clone(), name))?;
    Some(pod.obstacle()?.text)
}

fn lost(ctx: &mut NodeContext<'_>, pod: &PodView, attempt: i32, room: Room) -> Waiter {
    if pod.deleting && !pod.phase.is_final() {
        return in_time(ctx, "the old one is being deleted".into());
    }
    let obstacle = pod.obstacle();
    let why = obstacle.as_ref().map_or_else(|| "its pod ended".to_owned(), |obstacle| obstacle.text.clone());
    if obstacle.is_some_and(|obstacle| obstacle.permanent) && may_give_up(ctx) {
        return Waiter::Overdue(ctx.fail(format!("the reboot waiter cannot start: {why}")));
    }
    let refused = !pod.has_run();
    if refused && room == Room::Awaited {
        return Waiter::Starting(format!("the node has no room for it before the drain is over: {why}"));
    }
    // One that stood, or that had to wait for the drain, leaves its successor the whole time; one that never
    // stood does not.
    let anew = pod.reboot_state.is_some()
        || (refused && ctx.op.intent.drain.is_some() && ctx.status.waiter_since.is_none());
    next_attempt(ctx, &why, attempt, anew)
}

/// Records the next attempt; `anew`: it has the whole time to get ready.
fn next_attempt(ctx: &NodeContext<'_>, why: &str, attempt: i32, anew: bool) -> Waiter {
    if attempt >= MAX_ATTEMPTS && may_give_up(ctx) {
        let message = format!(
            "the reboot waiter was lost {attempt} times, the operation was not started; the last time because {why}"
        );
        return Waiter::Overdue(ctx.fail(message));
    }
    let now = Time(ctx.snapshot.now);
    Waiter::Lost(ctx.record(|status| {
        status.attempt = Some(attempt.saturating_add(1));
        status.since = Some(now.clone());
        if anew {
            status.waiter_since = Some(now);
        }
    }))
}

/// Whether the node can still be given up for its waiter: not once the operation has succeeded, then it has
/// to reboot.
fn may_give_up(ctx: &NodeContext<'_>) -> bool {
    ctx.status.step != Some(Step::Reboot)
}

/// Waits for a waiter, for as long as it may take to get ready: `pullTimeoutSeconds`, once, from when it was
/// wanted.
fn in_time(ctx: &mut NodeContext<'_>, why: String) -> Waiter {
    if !may_give_up(ctx) {
        return Waiter::Starting(why);
    }
    let begun = match ctx.status.step {
        Some(Step::Drain) => ctx.status.drain_started_at.as_ref(),
        _ => ctx.status.last_updated.as_ref(),
    };
    let from = ctx.begun_at(begun).max(ctx.begun_at(ctx.status.waiter_since.as_ref().or(begun)));
    let deadline = later(from, ctx.op.intent.pull_timeout);
    if ctx.snapshot.now >= deadline {
        let seconds = ctx.op.intent.pull_timeout.as_secs();
        return Waiter::Overdue(
            ctx.fail(format!("the reboot waiter did not get ready in {seconds} s: {why}")),
        );
    }
    ctx.plan.wake(deadline);
    Waiter::Starting(why)
}

/// What the waiters of this NodeOp may touch: their own pod and their own Job, of the nodes that are worked
/// on, and of those that are not yet, or not any more, while there is a waiter. `name` is about to be made on
/// node `of`.
pub fn grant(snapshot: &Snapshot, op: &Op, of: &str, name: &str, job: &str) -> WaiterGrant {
    let mut grant = WaiterGrant { waiters: [name.to_owned()].into(), jobs: [job.to_owned()].into() };
    let entries = op.object.status.as_ref().map(|status| &status.node_statuses);
    for (node, entry) in entries.into_iter().flatten() {
        let needs = entry.phase == Phase::Running
            && !matches!(entry.step, Some(Step::Claim | Step::Preflight) | None);
        if needs && *node != of {
            grant.waiters.insert(op.object_name(node, "reboot", entry.attempt.unwrap_or(0)));
            grant.jobs.insert(op.job_name(node, Some(entry)));
        }
    }
    for pod in snapshot.pods_of(&op.id, Role::Waiter).filter(|pod| !pod.phase.is_final()) {
        grant.waiters.insert(pod.name.clone());
        grant.jobs.insert(op.job_name(&pod.node, entries.and_then(|entries| entries.get(&pod.node))));
    }
    grant
}

/// What the node's present waiter says of itself.
pub fn says<'a>(ctx: &'a NodeContext<'_>) -> Option<&'a str> {
    let name = ctx.op.object_name(&ctx.node.name, "reboot", ctx.status.attempt.unwrap_or(0));
    let pod = ctx.snapshot.pods.get(&(ctx.op.id.namespace.clone(), name))?;
    pod.reboot_state.as_deref().filter(|_| pod.is_of(&ctx.op.id))
}

/// Whether a waiter of this node said that the reboot is under way or over: it had seen the Job `Complete` by
/// then.
pub fn went_on(ctx: &NodeContext<'_>) -> Option<&'static str> {
    let here = ctx.snapshot.pods_of(&ctx.op.id, Role::Waiter).filter(|pod| pod.node == ctx.node.name);
    let states: Vec<&str> = here.filter_map(|pod| pod.reboot_state.as_deref()).collect();
    [reboot_state::COMPLETED, reboot_state::REBOOTING].into_iter().find(|state| states.contains(state))
}
